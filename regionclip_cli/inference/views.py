"""Several views of one image, detected one by one and merged: tiles for small objects, and a mirror image.

Tiles follow SAHI (Akyon et al., ICIP 2022): the image is cut into overlapping squares, each is resized for the network
as an image would be, and the whole image is detected as well, for objects larger than a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from regionclip_cli.results.detections import ImageDetections

if TYPE_CHECKING:
    from regionclip_cli.inference.preprocess import InferenceConfig, PreparedImage

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
        views: The whole image first.
    """

    pixels: np.ndarray
    views: tuple[View, ...]

    @classmethod
    def of(cls, pixels: np.ndarray, inference: InferenceConfig) -> Views | None:
        """Return the views that the settings ask for, or None if the whole image is the only one."""
        height, width = pixels.shape[:2]
        tiles = windows(width, height, inference.tiles, inference.overlap) if inference.tiles else []
        views = [View(window) for window in ((0, 0, width, height), *tiles)]
        if inference.flip:
            views += [View(view.window, mirrored=True) for view in views]
        return cls(pixels, tuple(views)) if len(views) > 1 else None


Detect = Callable[[Sequence[np.ndarray]], list[ImageDetections]]


def detect_views(image: PreparedImage, inference: InferenceConfig, detect: Detect) -> ImageDetections:
    """Detect in every view of an image and merge the results.

    Boxes cut by a tile's border are dropped, since the next tile or the whole image shows the object entire. What is
    left is suppressed across views as the scoring suppresses it within one (`nms`, `iou`).

    Args:
        image: An image with views.
        inference: Settings.
        detect: Detects in a batch of RGB uint8 images (h, w, 3).

    Returns:
        At most `max_dets` detections, by falling score.
    """
    if image.views is None:
        raise ValueError(f"{image.name} has no views")
    found: list[ImageDetections] = []
    for start in range(0, len(image.views.views), VIEWS_AT_ONCE):
        views = image.views.views[start : start + VIEWS_AT_ONCE]
        parts = detect([view.cut(image.views.pixels) for view in views])
        for view, part in zip(views, parts, strict=True):
            boxes = view.boxes_in_image(part.boxes)
            found.append(_select(part, boxes, np.flatnonzero(~view.is_cut(boxes, image.width, image.height)), image))
    boxes = np.concatenate([part.boxes for part in found])
    scores = np.concatenate([part.scores for part in found])
    ids = np.concatenate([part.ids for part in found])
    labels = tuple(label for part in found for label in part.labels)
    every = ImageDetections(image.name, image.width, image.height, boxes, scores, labels, ids)
    scoring = inference.scoring
    kept = suppress(boxes, scores, ids if scoring.nms == "class" else np.zeros_like(ids),
                    1.0 if scoring.nms == "off" else scoring.iou, scoring.max_dets)  # fmt: skip
    return _select(every, boxes, kept, image)


def suppress(boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, iou: float, limit: int) -> np.ndarray:
    """Return the rows that greedy non-maximum suppression keeps, at most `limit`, by falling score.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        groups: (N,); only boxes of one group suppress one another.
        iou: Overlap above which the lower of two boxes is dropped.
        limit: Number of rows to return at most.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        order = rest[(_iou(boxes[best], boxes[rest]) <= iou) | (groups[rest] != groups[best])]
    return np.array(kept, np.int64)


def _iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the intersection over union (N,) of one box with boxes (N, 4)."""
    shared = np.clip(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return shared / np.maximum(areas - shared, 1e-9)


def _select(part: ImageDetections, boxes: np.ndarray, rows: np.ndarray, image: PreparedImage) -> ImageDetections:
    """Return some rows of a part's detections, with other boxes, as those of the image."""
    labels = tuple(part.labels[row] for row in rows)
    return ImageDetections(
        image.name, image.width, image.height, boxes[rows].astype(np.float32), part.scores[rows], labels, part.ids[rows]
    )
