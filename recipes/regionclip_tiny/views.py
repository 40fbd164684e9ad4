"""Training views: one photo scaled and cut, or a mosaic of four, mirrored, with varied colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance
from sources import Photo
from torch import Tensor

VISIBLE, NAMEABLE = 0.3, 0.55
"""Share of an object that must be in view to be found, and to be named."""
SMALLEST = 4.0
"""Sides of an object in pixels of the view."""
TRUST = 0.5
"""Weight of background in photos whose objects may not all have boxes."""
_NOTHING = -1


@dataclass
class View:
    """A training image (3, S, S) uint8 and what is known about it, in its pixels.

    Attributes:
        image: RGB.
        boxes: (N, 4) xyxy of the objects.
        labels: (N,) indices of their names, -1 for none.
        coarse: (N,) indices of names above those, -1 for none.
        weights: (N,) how sure the names are.
        ignored: (M, 4) regions that may show an object.
        cells: (P, 5) where each photo lies (xyxy), and how much its background is to be trusted.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    coarse: Tensor
    weights: Tensor
    ignored: Tensor
    cells: Tensor


def make_view(
    draw: Callable[[], Photo], index: dict[str, int], side: int, rng: np.random.Generator, mosaic: float = 0.5
) -> View:
    """Return a square view of `side` pixels.

    Args:
        draw: Returns a photo at random.
        index: Index of every name.
        side: S.
        rng: For all choices.
        mosaic: Share of views that are mosaics.
    """
    canvas = np.full((side, side, 3), 127, np.uint8)
    quarters, scales = [(0, 0, side, side)], (0.62, 1.7)
    if rng.random() < mosaic:
        x, y = (int(side * rng.uniform(0.38, 0.62)) for _ in range(2))
        quarters = [(0, 0, x, y), (x, 0, side - x, y), (0, y, x, side - y), (x, y, side - x, side - y)]
        scales = (0.75, 1.7)
    rows: list[tuple[np.ndarray, int, int, float]] = []
    ignored, cells = [], []
    for left, top, width, height in quarters:
        photo = draw()
        pixels, boxes, visible, weak, weak_visible = _place(photo, width, height, scales, rng)
        # The four photos of a mosaic meet at its centre.
        left += width - pixels.shape[1] if len(quarters) > 1 and left == 0 else 0
        top += height - pixels.shape[0] if len(quarters) > 1 and top == 0 else 0
        canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        corner = np.array([left, top, left, top], np.float32)
        whole = 1.0 if photo.exhaustive else TRUST
        cells.append((left, top, left + pixels.shape[1], top + pixels.shape[0], whole))
        sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
        for i, (share, shortest) in enumerate(zip(visible, sides, strict=True)):
            if share >= VISIBLE and shortest >= SMALLEST:
                name = photo.names[i] if share >= NAMEABLE else None
                coarse = photo.coarse[i] if name is not None else None
                numbers = [index[each] if each is not None else _NOTHING for each in (name, coarse)]
                rows.append((boxes[i] + corner, numbers[0], numbers[1], float(photo.weights[i])))
            elif share > 0.02 and shortest > 1:
                ignored.append(boxes[i] + corner)
        shortest_weak = (weak[:, 2:] - weak[:, :2]).min(axis=1, initial=np.inf)
        ignored += list(weak[(weak_visible > 0.02) & (shortest_weak > 1)] + corner)
    return View(
        torch.from_numpy(canvas).permute(2, 0, 1),
        _floats([row[0] for row in rows]).view(-1, 4),
        torch.tensor([row[1] for row in rows], dtype=torch.long),
        torch.tensor([row[2] for row in rows], dtype=torch.long),
        _floats([row[3] for row in rows]),
        _floats(ignored).view(-1, 4),
        _floats(cells).view(-1, 5),
    )


def _place(
    photo: Photo, width: int, height: int, scales: tuple[float, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return pixels of at most height x width, and objects and ignored boxes with the share of each that is in view.

    The long side becomes a factor between `scales` times the longer of `width` and `height`; what is too much is cut
    off, around an object most of the time.
    """
    image: Image.Image = Image.open(photo.path)
    across, down = photo.size or image.size
    factor = max(width, height) * np.exp(rng.uniform(*np.log(scales))) / max(across, down)
    factor, stretch = min(factor, 2.2), np.exp(rng.uniform(-0.12, 0.12))
    wide, high = max(16, round(across * factor * stretch)), max(16, round(down * factor / stretch))
    if image.format == "JPEG":
        image.draft("RGB", (wide, high))
    image = image.convert("RGB").resize((wide, high), Image.Resampling.BILINEAR, reducing_gap=2.0)
    room = (max(0, wide - width), max(0, high - height))
    left, top = (int(rng.integers(0, each + 1)) for each in room)
    if len(photo.boxes) and rng.random() < 0.7 and any(room):
        box = photo.boxes[rng.integers(len(photo.boxes))]
        middle = ((box[0] + box[2]) / 2 * wide / across, (box[1] + box[3]) / 2 * high / down)
        left = int(np.clip(middle[0] - width * rng.uniform(0.3, 0.7), 0, room[0]))
        top = int(np.clip(middle[1] - height * rng.uniform(0.3, 0.7), 0, room[1]))
    image = image.crop((left, top, min(wide, left + width), min(high, top + height)))
    for vary in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        if rng.random() < 0.4:
            image = vary(image).enhance(rng.uniform(0.65, 1.4))
    pixels, mirrored = np.asarray(image), rng.random() < 0.5
    scale = np.array([wide / across, high / down] * 2, np.float32)
    moved = [
        _move(boxes.reshape(-1, 4) * scale - np.array([left, top, left, top], np.float32), pixels.shape, mirrored)
        for boxes in (photo.boxes, photo.ignored)
    ]
    return (pixels[:, ::-1] if mirrored else pixels), *moved[0], *moved[1]


def _move(boxes: np.ndarray, shape: tuple[int, ...], mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (N, 4) cut off at the view's borders, and the share of each that is left."""
    height, width = shape[:2]
    full = np.clip(boxes[:, 2:] - boxes[:, :2], 1e-6, None).prod(axis=1)
    cut = boxes.clip(0, [width, height, width, height])
    share = np.clip(cut[:, 2:] - cut[:, :2], 0, None).prod(axis=1) / full
    if mirrored:
        cut = np.stack([width - cut[:, 2], cut[:, 1], width - cut[:, 0], cut[:, 3]], axis=1)
    return cut, share


def _floats(values: list) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))
