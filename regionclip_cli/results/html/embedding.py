"""Images inside an HTML page."""

from __future__ import annotations

import base64
import io

import numpy as np


def embedded(pixels: np.ndarray, side: int) -> str:
    """Return an image, RGB uint8 (H, W, 3), as a JPEG data URL of at most `side` pixels in width and height."""
    from PIL import Image

    small = Image.fromarray(pixels)
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
