"""Files that are either whole or not there, and errors of the disk as one sentence."""

from __future__ import annotations

import errno
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

from regionclip_cli.errors import OutputError, RegionClipError, UsageError

REASON = 160
"""Characters of a parser's message that an error shows."""
PART = ".regionclip.part"
"""What a file is called, in its own folder, until it is whole."""


def user_path(text: str | os.PathLike[str]) -> Path:
    """Return the path `text` with a leading `~` expanded; an unknown user's `~name` stays as it is."""
    return Path(os.path.expanduser(text))


@contextmanager
def parsing(what: str, hint: str = "") -> Iterator[None]:
    """Turn whatever a parser raises inside the block into one `UsageError`: "`what`: the reason".

    Parsers of damaged files raise anything, from `RecursionError` to a `TypeError` deep inside a library. Only parse in
    the block: a mistake of our own would be reported as a damaged file.

    Args:
        what: The first part of the message, which names the file and what is wrong, e.g. "a.json is not valid JSON".
        hint: What to do.

    Raises:
        UsageError: The block raised an exception that is not one of ours.
    """
    try:
        yield
    except (RegionClipError, FileNotFoundError):
        raise
    except Exception as err:
        lines = str(err).strip().splitlines() or [type(err).__name__]
        reason = lines[0] if len(lines[0]) <= REASON else f"{lines[0][:REASON]}..."
        raise UsageError(f"{what}: {reason.rstrip('.')}.", hint) from err


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn any trouble of the disk inside the block into an `OutputError` about `path`."""
    try:
        yield
    except OSError as err:
        reason = err.strerror or str(err) or type(err).__name__
        raise OutputError(f"{path} cannot be written: {reason}.", "Choose another folder with --out.") from err


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the name `path`, at once and whole, when the block ends well; else nothing is left.

    Raises:
        OutputError: The disk refuses.
    """
    part = path.with_name(PART)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a `.part` path to write to; move it to `path` when the block ends well, remove it otherwise.

    Raises:
        OutputError: For anything the operating system refuses, with what it said.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # safetensors makes files that only their owner may read
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as err:
        hint = "Free some space and try again." if err.errno == errno.ENOSPC else ""
        raise OutputError(f"{path} cannot be written: {err.strerror or err}.", hint) from err
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def is_name_too_long(err: OutputError) -> bool:
    """Return whether a file could not be written because of its name alone, so that others still can."""
    return isinstance(err.__cause__, OSError) and err.__cause__.errno == errno.ENAMETOOLONG


def check_folder(folder: Path) -> None:
    """See that results can go to `folder`, without making it.

    Raises:
        OutputError: A file is in the way, or the folder (or the nearest one above that exists) cannot be written.
    """
    nearest = Path(os.path.abspath(folder))
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        raise OutputError(f"Cannot write to {folder}: {nearest} is a file.", "Choose another folder with --out.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"Cannot write to {folder}: no write permission in {nearest}.", "Choose another --out.")


class Journal:
    """JSON lines with an `image` each, in order of arrival.

    A line is on its way to the disk before `append` returns. What a crash or a full disk leaves of a line is cut when
    it happens, or when the journal is opened again. Lines that are whole are never changed.

    Args:
        path: The file. Its folder is made.
        resume: Go on with the lines that are there; otherwise the file must not exist, or be empty.

    Raises:
        OutputError: The disk refuses.
    """

    def __init__(self, path: Path, resume: bool = False) -> None:
        self.path = path
        self._names: set[str] = set()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = path.exists() and (resume or not path.stat().st_size)
            self._file: BinaryIO = path.open("r+b" if kept else "x+b", buffering=0)
            self._mend()

    def __contains__(self, name: str) -> bool:
        """Say whether there is a line for the image called `name`."""
        return name in self._names

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._names)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line; `record["image"]` names it."""
        line = memoryview(json.dumps(record, allow_nan=False).encode() + b"\n")
        with writing(self.path):
            try:
                rest = line
                while len(rest):
                    rest = rest[self._file.write(rest) :]
            except BaseException:
                self._file.truncate(self._end)
                self._file.seek(self._end)
                raise
        self._end += len(line)
        self._names.add(record["image"])

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield every line, one at a time."""
        with self.path.open("rb") as file:
            yield from (record for record in map(_parse, file) if record is not None)

    def close(self) -> None:
        """Wait until the disk has everything, and let go of the file."""
        if not self._file.closed:
            with writing(self.path), self._file:
                os.fsync(self._file.fileno())

    def _mend(self) -> None:
        """Learn the names in the file, and cut a last line that is not whole."""
        self._end = 0
        with self.path.open("rb") as file:
            for line in file:
                record = _parse(line)
                if not line.endswith(b"\n"):
                    break
                self._end += len(line)
                if record is not None:
                    self._names.add(record["image"])
        self._file.truncate(self._end)
        self._file.seek(self._end)


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the record in a line, or None when it is none of ours."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("image"), str) else None


MOST_FILES = 1_000_000


_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def numbered(text: str) -> list[str]:
    """Return the texts that a text with numbered ranges stands for; one without is itself.

    Numbers are padded as the first one is written.

    >>> numbered("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']

    Raises:
        UsageError: A range runs backwards, or stands for more than a million texts.
    """
    pieces = _RANGE.split(text)
    counts, total = [], 1
    for first, last in zip(pieces[1::3], pieces[2::3], strict=True):
        if int(last) < int(first):
            raise UsageError(f"The range {{{first}..{last}}} in {text} is descending.")
        counts.append((int(first), int(last), len(first) if first.startswith("0") else 1))
        total *= int(last) - int(first) + 1
    if total > MOST_FILES:
        raise UsageError(f"{text} expands to {total:,} files; the limit is {MOST_FILES:,}.")
    numbers = ([f"{n:0{width}}" for n in range(first, last + 1)] for first, last, width in counts)
    return ["".join(_interleave(pieces[0::3], chosen)) for chosen in product(*numbers)]


def _interleave(fixed: Sequence[str], chosen: Sequence[str]) -> Iterator[str]:
    for before, number in zip(fixed, chosen, strict=False):
        yield from (before, number)
    yield fixed[-1]
