"""A file of JSON lines that grows by one image at a time and survives being cut off at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from regionclip_cli.results.files import writing


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
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("image"), str) else None
