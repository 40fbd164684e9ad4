"""The test-time size of an image: short side S, long side at most M, as detectron2 and the paper's code do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


def target_size(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Return (height, width) in pixels so that the short side is `short_side` and the long one is at most `long_side`.

    `short_side` 0 keeps the size. Rounding is that of detectron2's `ResizeShortestEdge` (half up, the long side
    limited before rounding), which the released models were tested with. No side becomes 0.
    """
    if short_side <= 0:
        return height, width
    scale = short_side / min(height, width)
    new_height, new_width = (short_side * 1.0, scale * width) if height < width else (scale * height, short_side * 1.0)
    if max(new_height, new_width) > long_side:
        shrink = long_side / max(new_height, new_width)
        new_height, new_width = new_height * shrink, new_width * shrink
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def resize_array(pixels: np.ndarray, short_side: int, long_side: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the image at test-time size and the factors (x, y) from original to network pixels.

    Args:
        pixels: RGB uint8 (H, W, 3).
        short_side: Length of the short side in pixels; 0 keeps the size.
        long_side: Limit of the long side in pixels.

    Returns:
        RGB uint8 (3, h, w), resized with Pillow's bilinear filter, and (w / W, h / H).
    """
    height, width = pixels.shape[:2]
    new_height, new_width = target_size(height, width, short_side, long_side)
    if (new_height, new_width) != (height, width):
        image = Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.BILINEAR)
        pixels = np.array(image)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))  # (3, h, w)
    return planes, (new_width / width, new_height / height)


def resize(pixels: np.ndarray, short_side: int, long_side: int) -> tuple[Tensor, tuple[float, float]]:
    """Return what `resize_array` does, with the image as a tensor."""
    import torch

    planes, scale = resize_array(pixels, short_side, long_side)
    return torch.from_numpy(planes), scale
