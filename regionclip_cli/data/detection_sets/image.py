"""One image of a detection set: what is on it, and how its bytes are had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Segmentation = Any
"""Of one object as the file has it: polygons [[x1, y1, x2, y2, ...], ...], a run-length object, or None."""


@dataclass(frozen=True, eq=False)
class DetectionImage:
    """An image with N objects of C classes.

    Attributes:
        id: The number that the annotation file gives it.
        name: Its file name as the annotation file has it, with forward slashes.
        path: Where the file is; None when no folder of images was named, or the image is not a file.
        width: Pixels.
        height: Pixels.
        boxes: (N, 4) float32, xyxy in pixels, inside the image.
        labels: (N,) int64 in 0..C-1.
        crowd: (N,) bool; such a box covers several objects, and is neither to be found nor a mistake to find.
        area: (N,) float32, pixels of the object (of its mask where the file has masks).
        neg: Labels of classes that are known to be absent (LVIS).
        not_exhaustive: Labels of classes that are not fully annotated here (LVIS).
    """

    id: int
    name: str
    path: Path | None
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    neg: frozenset[int]
    not_exhaustive: frozenset[int]
    _read: Callable[[], bytes] = field(repr=False)
    _segmentation: Callable[[], list[Segmentation] | None] = field(repr=False)

    def __len__(self) -> int:
        """Return the number of objects N."""
        return len(self.labels)

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            InputError: The file is missing or cannot be read, or no folder of images was named.
        """
        return self._read()

    @property
    def segmentation(self) -> list[Segmentation] | None:
        """One segmentation for each box, read from the annotation file now; None when the set has none."""
        return self._segmentation()
