"""Two images with detections and one without, for the tests of writers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from regionclip_cli.errors import InputError
from regionclip_cli.files import Journal
from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.results.records import JournalRecords

LABELS = ("cat", "coffee cup")


def detections(name: str, rows: list[tuple[int, float, tuple[float, ...]]], size: tuple[int, int]) -> ImageDetections:
    return ImageDetections(
        image=name,
        width=size[0],
        height=size[1],
        boxes=np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        scores=np.array([row[1] for row in rows], np.float32),
        labels=tuple(LABELS[row[0]] for row in rows),
        ids=np.array([row[0] for row in rows], np.int64),
    )


SAMPLE = (
    detections("a/1.jpg", [(1, 0.9, (10, 20, 30.5, 60)), (0, 0.25, (0, 0, 100, 80))], (100, 80)),
    detections("b/1.jpg", [], (64, 48)),
    detections("b/2.png", [(0, 0.5, (1.25, 2.5, 33.333333, 40))], (64, 48)),
)


class SampleRecords(JournalRecords):
    """Records of detections in a journal.

    An image that is no file in the working folder is grey pixels, but those in `gone`, which cannot be read.
    """

    def __init__(self, path: Path, sample: Sequence[ImageDetections] = SAMPLE, gone: Sequence[str] = ()) -> None:
        def read(name: str, path: Path) -> np.ndarray:
            if name in gone:
                raise InputError(f"{name} cannot be read.")
            return np.asarray(Image.open(path))

        pixels = {
            found.image: np.full((found.height, found.width, 3), 128, np.uint8)
            for found in sample
            if found.image not in gone and not os.path.exists(found.image)
        }
        self.skipped: list[str] = []
        journal = Journal(path, resume=True)
        for found in sample:
            if found.image not in journal:
                journal.append(found.to_json())
        journal.close()
        super().__init__(journal, read, pixels, lambda image, reason: self.skipped.append(image))
