"""Stored detections as a writer reads them: image by image, any number of times, one image in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np

from regionclip_cli.errors import InputError
from regionclip_cli.files import Journal
from regionclip_cli.results.detections import ImageRecord


class Records(ABC):
    """What `render(records, folder, labels)` gets: iterate over it as often as needed."""

    @abstractmethod
    def __iter__(self) -> Iterator[ImageRecord]:
        """Yield the images in the order in which they were detected."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    def path(self, record: ImageRecord) -> Path | None:
        """Return the image file, or None for an image from standard input or Python."""
        return Path(record.get("path", record["image"]))

    def pixels(self, record: ImageRecord) -> np.ndarray:
        """Return the upright image, RGB uint8 (H, W, 3), read again from its file.

        Raises:
            InputError: The file is gone, unreadable, or of another size than when it was detected.
        """
        raise InputError(f"{record['image']} cannot be read again.")

    def skip(self, record: ImageRecord, reason: InputError | OSError | str) -> None:  # noqa: B027
        """Report that an image was left out of this format; the run goes on and ends with exit code 3."""


class JournalRecords(Records):
    """The records of `detections.jsonl`.

    Args:
        journal: The file.
        read: Returns the pixels of an image file; gets the name for messages, and the path.
        piped: Pixels of the images that came on standard input, by name.
        on_skip: Called with the name of an image that a writer leaves out, and the reason.
        on_record: Called with the number of images that a pass over the records has reached.
    """

    def __init__(
        self,
        journal: Journal,
        read: Callable[[str, Path], np.ndarray] | None = None,
        piped: dict[str, np.ndarray] | None = None,
        on_skip: Callable[[str, str], None] | None = None,
        on_record: Callable[[int], None] | None = None,
    ) -> None:
        self._journal, self._read, self._piped = journal, read, piped or {}
        self._on_skip, self._on_record = on_skip, on_record

    def __iter__(self) -> Iterator[ImageRecord]:
        """Yield one line after the other."""
        for number, record in enumerate(self._journal.records(), 1):
            yield cast(ImageRecord, record)
            if self._on_record is not None:
                self._on_record(number)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._journal)

    def path(self, record: ImageRecord) -> Path | None:
        """Return the image file, or None for an image from standard input."""
        return None if record["image"] in self._piped else super().path(record)

    def pixels(self, record: ImageRecord) -> np.ndarray:
        """Return the upright image, RGB uint8 (H, W, 3)."""
        name = record["image"]
        pixels, path = self._piped.get(name), self.path(record)
        if pixels is None:
            if path is None or self._read is None:
                return super().pixels(record)
            pixels = self._read(name, path)
        if pixels.shape[:2] != (record["height"], record["width"]):
            raise InputError(
                f"{name} is now {pixels.shape[1]} x {pixels.shape[0]} pixels, and was {record['width']} x "
                f"{record['height']} when objects were detected in it."
            )
        return pixels

    def skip(self, record: ImageRecord, reason: InputError | OSError | str) -> None:
        """Report that an image was left out of this format."""
        if self._on_skip is not None:
            self._on_skip(record["image"], str(reason))
