"""Two images with detections, one without: what the writer tests write."""

from __future__ import annotations

import numpy as np

from regionclip_cli.results.detections import ImageDetections

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


def pixels(found: ImageDetections) -> np.ndarray:
    return np.full((found.height, found.width, 3), 128, np.uint8)
