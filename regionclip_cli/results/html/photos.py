"""Photos of a report: the truth and what was found side by side, as data addresses."""

from __future__ import annotations

from typing import Any

import numpy as np

from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.results.drawing import draw
from regionclip_cli.results.html.content import Marked, WorstPhoto
from regionclip_cli.results.html.embedding import embedded

SIDE = 560
"""Most pixels of a side of a picture on the page."""
RED, GREEN = 0, 1
"""Places of the two colours in the palette that boxes are drawn with."""


def shown(photo: WorstPhoto) -> dict[str, Any]:
    """Return a photo as the template takes it."""
    pictures = [] if photo.pixels is None else [_drawn(photo.pixels, part) for part in (photo.truth, photo.found)]
    return {"name": photo.name, "said": photo.said, "pictures": pictures}


def _drawn(pixels: np.ndarray, marked: Marked) -> str:
    """Return a picture with boxes, green for right and red for wrong, as a data address."""
    from PIL import Image as pillow

    picture = pillow.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    small = np.asarray(picture)
    factor = picture.width / pixels.shape[1]
    found = ImageDetections(
        image="",
        width=picture.width,
        height=picture.height,
        boxes=(marked.boxes * factor).astype(np.float32).reshape(-1, 4),
        scores=np.ones(len(marked.labels), np.float32),
        labels=marked.labels,
        ids=np.where(marked.right, GREEN, RED).astype(np.int64),
    )
    return embedded(np.asarray(draw(found, small, scores=False)), SIDE)
