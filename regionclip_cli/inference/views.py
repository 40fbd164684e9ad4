"""Several views of one image, detected one by one and merged: tiles for small objects, and a mirror image.

Tiles follow SAHI (Akyon et al., ICIP 2022): the image is cut into overlapping squares, each is resized for the network
as an image would be, and the whole image is detected as well, for objects larger than a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from regionclip_cli.inference.engines.selection import greedy_nms
from regionclip_cli.recipe.scoring import Scoring
from regionclip_cli.results.detections import ImageDetections

if TYPE_CHECKING:
    from regionclip_cli.inference.preprocess import InferenceConfig

BORDER = 2.0
"""A box that ends within so many pixels of a tile's inner border is taken for a cut object."""

VIEWS_AT_ONCE = 8
"""Views resized and detected together; it bounds memory."""

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class View:
    """A part of an image.

    Attributes:
        window: x1, y1, x2, y2 in pixels of the image.
        mirrored: Whether it is flipped horizontally.
    """

    window: Window
    mirrored: bool = False

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """Return this view of an image (H, W, 3)."""
        x1, y1, x2, y2 = self.window
        part = pixels[y1:y2, x1:x2]
        return np.ascontiguousarray(part[:, ::-1] if self.mirrored else part)

    def boxes_in_image(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes (N, 4) of this view in pixels of the image."""
        x1, y1, x2, _ = self.window
        if self.mirrored:
            boxes = np.stack([x2 - x1 - boxes[:, 2], boxes[:, 1], x2 - x1 - boxes[:, 0], boxes[:, 3]], axis=1)
        return boxes + np.array([x1, y1, x1, y1], np.float32)

    def is_cut(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """Return (N,) bool: whether a box (in pixels of the image) ends at a border of the view inside the image."""
        x1, y1, x2, y2 = self.window
        borders = np.array([x1 if x1 > 0 else -np.inf, y1 if y1 > 0 else -np.inf,
                            x2 if x2 < width else np.inf, y2 if y2 < height else np.inf])  # fmt: skip
        return (np.abs(boxes - borders) <= BORDER).any(axis=1)


def windows(width: int, height: int, side: int, overlap: float) -> list[Window]:
    """Return the tiles of an image, row by row; none if the image fits into one tile.

    Args:
        width: Of the image in pixels.
        height: Of the image in pixels.
        side: Of a tile in pixels; tiles are smaller only where the image is.
        overlap: Least fraction of a side that neighbours share, below 1; tiles are spread evenly.
    """
    if width <= side and height <= side:
        return []
    return [
        (x, y, min(x + side, width), min(y + side, height))
        for y in _starts(height, side, overlap)
        for x in _starts(width, side, overlap)
    ]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / max(side * (1 - overlap), 1))) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


@dataclass(frozen=True, eq=False)
class Views:
    """The views of one image; each is cut when it is needed.

    Attributes:
        pixels: The image, RGB uint8 (H, W, 3).
        views: Its tiles and mirror images; the whole image is not among them.
    """

    pixels: np.ndarray
    views: tuple[View, ...]

    @classmethod
    def of(cls, pixels: np.ndarray, inference: InferenceConfig) -> Views | None:
        """Return the views that the settings ask for, or None if the whole image is the only one."""
        height, width = pixels.shape[:2]
        tiles = windows(width, height, inference.tiles, inference.overlap) if inference.tiles else []
        views = [View(window) for window in tiles]
        if inference.flip:
            views += [View(window, mirrored=True) for window in ((0, 0, width, height), *tiles)]
        return cls(pixels, tuple(views)) if views else None


Detect = Callable[[Sequence[np.ndarray]], list[ImageDetections]]


def detect_views(whole: ImageDetections, views: Views, scoring: Scoring, detect: Detect) -> ImageDetections:
    """Detect in the views of an image and merge the results with those of the whole image.

    Boxes cut by a tile's border are dropped, since the next tile or the whole image shows the object entire. The rest
    is suppressed across views as within one (`nms`, `iou`).

    Args:
        whole: The detections in the whole image.
        views: The other views.
        scoring: Suppression and number of detections.
        detect: Detects in a batch of RGB uint8 images (h, w, 3).

    Returns:
        At most `max_dets` detections, by falling score.
    """
    found = [whole]
    for start in range(0, len(views.views), VIEWS_AT_ONCE):
        some = views.views[start : start + VIEWS_AT_ONCE]
        for view, part in zip(some, detect([view.cut(views.pixels) for view in some]), strict=True):
            boxes = view.boxes_in_image(part.boxes)
            rows = np.flatnonzero(~view.is_cut(boxes, whole.width, whole.height))
            found.append(_select(replace(part, boxes=boxes, width=whole.width, height=whole.height), rows))
    merged = replace(
        whole,
        boxes=np.concatenate([part.boxes for part in found]),
        scores=np.concatenate([part.scores for part in found]),
        labels=tuple(label for part in found for label in part.labels),
        ids=np.concatenate([part.ids for part in found]),
    )
    merged = _select(merged, np.argsort(-merged.scores, kind="stable"))
    group = merged.ids if scoring.nms == "class" else np.zeros_like(merged.ids)
    iou = 1.0 if scoring.nms == "off" else scoring.iou
    return _select(merged, greedy_nms(merged.boxes, group, iou, scoring.max_dets))


def _select(found: ImageDetections, rows: np.ndarray) -> ImageDetections:
    """Return some rows of detections."""
    labels = tuple(found.labels[row] for row in rows)
    return replace(found, boxes=found.boxes[rows], scores=found.scores[rows], labels=labels, ids=found.ids[rows])
