"""Fetch files whole or not at all, within bounds of time, and only when the network may be used."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from regionclip_cli.errors import MissingError, OutputError

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 30.0
"""A server that sends nothing for this long is given up."""

MEGABYTE = 1_000_000


class Progress(Protocol):
    """The part of `stages.progress.Progress` that a download needs."""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Begin a task of `total` units."""

    def advance(self, done: int = 1) -> None:
        """Say that `done` more units are finished."""

    def finish(self) -> None:
        """End the task."""


def offline() -> bool:
    """Tell whether the user wants nothing from the network: `--offline`, or `HF_HUB_OFFLINE=1`."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def fetch_url(url: str, target: Path, progress: Progress, *, sha256: str | None = None) -> Path:
    """Download one file to `target`, unless it is there already, with the right checksum where one is known.

    What arrives goes to a temporary file beside it, so that neither Ctrl-C, a dropped connection, a wrong checksum nor
    a full disk leaves half a file; the next try begins from the start.

    Raises:
        MissingError: No network, no such file, the server went silent or the checksum is another.
        OutputError: The file cannot be written.
    """
    import pooch
    import requests

    if target.exists() and (sha256 is None or pooch.file_hash(str(target)) == sha256):
        return target
    if offline():
        raise MissingError(
            f"{url} has not been downloaded, and network access is disabled.", f"Save the file as {target}."
        )
    bar = _Bar(progress, target.name)
    downloader = pooch.HTTPDownloader(
        progressbar=bar, chunk_size=MEGABYTE, timeout=(CONNECT_SECONDS, SILENCE_SECONDS), headers=_PLAIN
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _quiet("pooch"):
            pooch.retrieve(url, sha256, fname=target.name, path=target.parent, downloader=downloader)
    except requests.HTTPError as err:
        status = err.response.status_code if err.response is not None else "nothing"
        raise MissingError(f"Cannot download {url}: HTTP status {status}.", "Check the URL.") from err
    except requests.Timeout as err:
        raise MissingError(f"Cannot download {url}: the server does not respond.", "Try again later.") from err
    except requests.RequestException as err:
        raise MissingError(
            f"Cannot download {url}: the connection failed.",
            f"Try again, or download it with a browser and save it as {target}.",
        ) from err
    except ValueError as err:
        raise MissingError(f"The download of {url} has the wrong checksum and was deleted.", "Try again.") from err
    except OSError as err:
        raise OutputError(f"{target} cannot be written: {err.strerror or err}.") from err
    finally:
        bar.close()
    return target


def fetch_from_hub(repo: str, files: Sequence[str], progress: Progress) -> Path:
    """Return the first of `files` that a Hugging Face repository has, from the Hub's own cache or the network.

    Raises:
        MissingError: None of them is there, the Hub cannot be reached, or the network is switched off and none is in
            the Hub's cache.
        OutputError: The cache cannot be written.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    wanted = f"{' or '.join(files)} of https://huggingface.co/{repo}"
    for name in files:
        try:
            with _quiet("huggingface_hub"):
                return Path(hf_hub_download(repo, name, local_files_only=offline(), tqdm_class=_bar_class(progress)))
        except LocalEntryNotFoundError as err:
            if not offline():
                raise MissingError(
                    f"Cannot download {wanted}: huggingface.co cannot be reached.", _by_hand(repo)
                ) from err
        except EntryNotFoundError:
            continue
        except HfHubHTTPError as err:
            status = err.response.status_code if err.response is not None else "nothing"
            raise MissingError(f"Cannot download {wanted}: HTTP status {status}.", _by_hand(repo)) from err
        except ConnectionError as err:
            raise MissingError(f"Cannot download {wanted}: the connection failed.", _by_hand(repo)) from err
        except OSError as err:
            raise OutputError(f"Cannot save {wanted}: {err.strerror or err}.") from err
    if offline():
        raise MissingError(f"{wanted} has not been downloaded, and network access is disabled.", _by_hand(repo))
    raise MissingError(f"Cannot find {wanted}.")


_PLAIN = {"Accept-Encoding": "identity"}


def _by_hand(repo: str) -> str:
    return f"Download the file from https://huggingface.co/{repo}/tree/main and run `regionclip models add NAME FILE`."


class _Bar:
    """What pooch drives as a progress bar, handed on in megabytes to a `Progress`."""

    def __init__(self, progress: Progress, task: str) -> None:
        self._progress, self._task = progress, task
        self._bytes = self._told = 0
        self._started = False
        self.total = 0

    def update(self, count: int) -> None:
        """Count bytes; the last chunk is shorter than pooch says."""
        if not self._started:
            self._started = True
            self._progress.start(self._task, -(-self.total // MEGABYTE) or None, "MB")
        self._bytes = min(self._bytes + count, self.total) if self.total else self._bytes + count
        whole = self._bytes // MEGABYTE
        if whole > self._told:
            self._progress.advance(whole - self._told)
            self._told = whole

    def reset(self) -> None:
        """Called before the total is counted once more, which is not needed here."""
        self._bytes = 0

    def close(self) -> None:
        """End the task."""
        if self._started:
            self._started = False
            self._progress.finish()


def _bar_class(progress: Progress) -> Any:
    """Return a class that huggingface_hub uses in place of its own progress bar."""
    from huggingface_hub.utils.tqdm import tqdm

    class HubBar(tqdm):
        """Bytes of one download, handed on in megabytes."""

        def __init__(self, *args: Any, **options: Any) -> None:
            self._bar = _Bar(progress, str(options.get("desc") or "download"))
            self._bar.total = int(options.get("total") or 0)
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            """Count bytes."""
            self._bar.update(int(n or 0))
            return None

        def close(self) -> None:
            """End the task."""
            self._bar.close()
            super().close()

    return HubBar


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library's advice on checksums and tokens off the terminal; its errors come through."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
