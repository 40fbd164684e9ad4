"""Worst images of a report: annotations and predictions side by side, as data URLs."""

from __future__ import annotations

from typing import Any

import numpy as np

from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.results.drawing import draw
from regionclip_cli.results.html.content import Marked, WorstImage
from regionclip_cli.results.html.embedding import embedded

SIDE = 560
"""Longer side in pixels of an image on the page."""
RED, GREEN = 0, 1
"""Indices of the two colours in the palette of boxes."""


def shown(image: WorstImage) -> dict[str, Any]:
    """Return an image as the template takes it."""
    pictures = [] if image.pixels is None else [_drawn(image.pixels, part) for part in (image.truth, image.found)]
    return {"name": image.name, "note": image.note, "pictures": pictures}


def _drawn(pixels: np.ndarray, marked: Marked) -> str:
    """Return an image with boxes, green where correct and red where wrong, as a data URL."""
    from PIL import Image as pillow

    small_image = pillow.fromarray(pixels)
    small_image.thumbnail((SIDE, SIDE))
    pixels_small = np.asarray(small_image)
    factor = small_image.width / pixels.shape[1]
    found = ImageDetections(
        image="",
        width=small_image.width,
        height=small_image.height,
        boxes=(marked.boxes * factor).astype(np.float32).reshape(-1, 4),
        scores=np.ones(len(marked.labels), np.float32),
        labels=marked.labels,
        ids=np.where(marked.right, GREEN, RED).astype(np.int64),
    )
    return embedded(np.asarray(draw(found, pixels_small, scores=False)), SIDE)
