"""The output folder of a run: its writers, the list of failed images, and what the run was about."""

from __future__ import annotations

import json
import logging
import pkgutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from regionclip_cli import plugins
from regionclip_cli.errors import OutputError, PluginError, UsageError
from regionclip_cli.files import Journal, check_folder, replacing
from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.results.writers import WRITERS
from regionclip_cli.results.writers.base import Writer
from regionclip_cli.runs.log import open_log

RUN, ERRORS, LOG = "run.json", "errors.jsonl", "run.log"


class OutputFolder:
    """Where a run of `detect` writes.

    Besides what the formats write there is `run.json` (what the run was about), `run.log`, and `errors.jsonl` with
    `{"image", "error"}` for every image that failed, if any did.

    Args:
        folder: The folder; it is made by `open`.
        formats: Names of writers, ours or plugins'.
        resume: Go on with what is in the folder.

    Raises:
        UsageError: A format is unknown, or the folder holds results and `resume` was not asked for.
        PluginError: A format's package is broken.
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: Path, formats: Sequence[str], resume: bool) -> None:
        self.folder, self.resume = folder, resume
        self.log: logging.Logger
        self._writers: list[tuple[str, Writer]] = []
        self.needs_pixels = False
        for name in dict.fromkeys(formats):
            spec = plugins.find("writers", name)
            self._writers.append((name, _make(name, spec.writer)))
            self.needs_pixels = self.needs_pixels or spec.needs_pixels
        if not self._writers:
            raise UsageError("No format to write was named.", f"Choose among {', '.join(plugins.names('writers'))}.")
        check_folder(folder)
        names = [ERRORS, *(output for _, writer in self._writers for output in writer.outputs)]
        held = [name for name in names if _holds_something(folder / name)]
        if held and not resume:
            raise UsageError(
                f"{folder} holds the results of another run already ({held[0]}).",
                "Add --resume to go on with that run, or choose another folder with --out.",
            )

    def open(self, labels: Sequence[str], about: Mapping[str, Any]) -> None:
        """Make the folder and begin every format.

        Args:
            labels: The class names.
            about: What decides the results; an earlier run that is taken up again must have had the same.

        Raises:
            UsageError: The earlier run was about something else.
            OutputError: The disk refuses.
        """
        if self.resume:
            _compare(self.folder / RUN, about)
        with replacing(self.folder / RUN) as file:
            file.write(json.dumps(about, indent=1).encode() + b"\n")
        self.log = open_log(self.folder / LOG)
        self._errors: Journal | None = None
        self._recovered: set[str] = set()
        self._opened: list[tuple[str, Writer]] = []
        for name, writer in self._writers:
            with _blame(name):
                writer.open(self.folder, labels, self.resume)
            self._opened.append((name, writer))
        if self.resume and (self.folder / ERRORS).exists():
            self._errors = Journal(self.folder / ERRORS, resume=True)

    def has(self, name: str) -> bool:
        """Say whether an earlier run wrote this image in every format."""
        return self.resume and all(self._has(format_name, writer, name) for format_name, writer in self._opened)

    def write(self, found: ImageDetections, pixels: np.ndarray | None) -> None:
        """Write one image in every format that does not have it yet."""
        for name, writer in self._opened:
            if not (self.resume and self._has(name, writer, found.image)):
                with _blame(name):
                    writer.write(found, pixels)
        if self._errors is not None and found.image in self._errors:
            self._recovered.add(found.image)
        self.log.debug("%s: %d detections", found.image, len(found))

    def fail(self, name: str, sentence: str) -> None:
        """Put an image on the list of those that failed."""
        if self._errors is None:
            self._errors = Journal(self.folder / ERRORS)
        if name not in self._errors:
            self._errors.append({"image": name, "error": sentence})
        self.log.error("%s", sentence)

    def close(self) -> None:
        """Finish every format, and take images off the list of failures that went well this time."""
        for name, writer in self._opened:
            with _blame(name):
                writer.close()
        if self._errors is not None:
            self._errors.close()
            if self._recovered:
                self._forget(self._errors)
        self._end_log()

    def abort(self, reason: BaseException) -> None:
        """Let go of everything; what was written stays whole, and the run can be taken up again."""
        self.log.error("stopped: %s", str(reason) or type(reason).__name__)
        for name, writer in self._opened:
            with suppress(OutputError, PluginError), _blame(name):
                writer.abort()
        if self._errors is not None:
            with suppress(OutputError):
                self._errors.close()
        self._end_log()

    def _has(self, format_name: str, writer: Writer, image: str) -> bool:
        with _blame(format_name):
            return writer.has(image)

    def _forget(self, errors: Journal) -> None:
        left = [record for record in errors.records() if record["image"] not in self._recovered]
        if not left:
            with suppress(FileNotFoundError):
                errors.path.unlink()
            return
        with replacing(errors.path) as file:
            file.writelines(json.dumps(record).encode() + b"\n" for record in left)

    def _end_log(self) -> None:
        for handler in list(self.log.handlers):
            handler.close()
            self.log.removeHandler(handler)


def _make(name: str, dotted: str) -> Writer:
    """Import the class behind a format and make one."""
    with _blame(name):
        made = pkgutil.resolve_name(dotted)()
    if not isinstance(made, Writer):
        raise PluginError(
            f"The format {name!r} names {dotted}, which is not a Writer.", "Update or remove its package."
        )
    return made


def _blame(name: str) -> AbstractContextManager[None]:
    """Lay errors of a plugin's writer at its door; ours speak for themselves."""
    return nullcontext() if name in WRITERS else plugins.blame(plugins.lookup("writers", name))


def _holds_something(path: Path) -> bool:
    """Say whether there is a file that is not empty, or a folder with something in it."""
    try:
        return any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0
    except OSError:
        return False


def _compare(path: Path, about: Mapping[str, Any]) -> None:
    """Refuse to mix the results of two different questions in one folder."""
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return
    if not isinstance(before, dict):
        return
    for key, value in json.loads(json.dumps(about)).items():
        if key != "version" and key in before and before[key] != value:
            raise UsageError(
                f"The run in {path.parent} had {key} = {_short(before[key])}, and this one has {_short(value)}.",
                "Resume it with the same settings, or choose another folder with --out.",
            )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
