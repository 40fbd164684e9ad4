"""How an image is varied before a detector learns from it: size, mirror image, and large-scale jitter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from regionclip_cli.data.resize import resize
from regionclip_cli.errors import UsageError
from regionclip_cli.training.masks import Masks


@dataclass(frozen=True)
class View:
    """One view of an image: scaled, then cut out, then mirrored.

    Attributes:
        planes: (3, h, w) RGB uint8.
        scale: Factors (x, y) from the image's pixels to those before the cut.
        corner: Left and top of the cut, in scaled pixels.
        mirrored: Whether left and right have changed places.
    """

    planes: Tensor
    scale: tuple[float, float]
    corner: tuple[int, int] = (0, 0)
    mirrored: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.planes.shape[1]), int(self.planes.shape[2])

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes (N, 4) xyxy of the image in pixels of the view, float32; what is not in it becomes empty."""
        height, width = self.size
        moved = boxes * np.array([*self.scale, *self.scale]) - np.array([*self.corner, *self.corner])
        moved = moved.clip(0, [width, height, width, height])
        if self.mirrored:
            moved = np.stack([width - moved[:, 2], moved[:, 1], width - moved[:, 0], moved[:, 3]], axis=1)
        return moved.astype(np.float32)

    def masks(self, masks: Masks) -> Masks:
        """Return masks of the image in pixels of the view."""
        height, width = self.size
        across, down = self.scale
        scaled = masks.resize((round(masks.height * down), round(masks.width * across)))
        if scaled.height != height or scaled.width != width:
            left, top = self.corner
            scaled = scaled.crop(np.array([left, top, left + width, top + height]))
        return scaled.flip() if self.mirrored else scaled


@dataclass(frozen=True)
class Augment:
    """What views are drawn from; the defaults are the paper's.

    Attributes:
        short_sides: Lengths in pixels of which one is drawn for the short side; 0 keeps an image's own.
        max_side: Limit of the long side in pixels.
        flip: Share of images that are mirrored left to right.
        jitter: Large-scale jitter ("Simple Copy-Paste", Ghiasi et al., CVPR 2021) in place of the lengths: an image is
            fitted into a square of side `canvas`, scaled by a factor between these two, and cut to the square.
        canvas: Side of that square in pixels.
        mosaic: Share of samples that are four images in one square of side `canvas` (YOLOv4, arXiv 2004.10934).
        colour: How far brightness, contrast and saturation vary, each by a factor between 1 - c and 1 + c.
    """

    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    max_side: int = 1333
    flip: float = 0.5
    jitter: tuple[float, float] | None = None
    canvas: int = 1024
    mosaic: float = 0.0
    colour: float = 0.0

    def __post_init__(self) -> None:
        if not self.short_sides or min(self.short_sides) < 0:
            raise UsageError("short_sides needs one length at least, in pixels, and none below 0.")
        if self.jitter is not None and not 0 < self.jitter[0] <= self.jitter[1]:
            raise UsageError("jitter needs two factors above 0, the smaller one first.")

    def draw(self, pixels: np.ndarray, chance: np.random.Generator) -> View:
        """Return a view of an image RGB uint8 (H, W, 3)."""
        if self.colour:
            pixels = vary_colour(pixels, self.colour, chance)
        if self.jitter is None:
            planes, scale = resize(pixels, int(chance.choice(self.short_sides)), self.max_side)
            corner = (0, 0)
        else:
            side = self.canvas * chance.uniform(*self.jitter)
            height, width = pixels.shape[:2]
            short = max(1, round(side * min(height, width) / max(height, width)))
            planes, scale = resize(pixels, short, max(1, round(side)))
            room = [max(0, int(length) - self.canvas) for length in (planes.shape[2], planes.shape[1])]
            corner = (int(chance.integers(room[0] + 1)), int(chance.integers(room[1] + 1)))
            planes = planes[:, corner[1] : corner[1] + self.canvas, corner[0] : corner[0] + self.canvas]
        mirrored = bool(chance.random() < self.flip)
        return View((planes.flip(2) if mirrored else planes).contiguous(), scale, corner, mirrored)

    def quarter(self) -> Augment:
        """Return what the four images of a mosaic are drawn from."""
        return replace(self, jitter=self.jitter or (0.5, 1.5), canvas=max(1, self.canvas // 2), mosaic=0.0)


def vary_colour(pixels: np.ndarray, most: float, chance: np.random.Generator) -> np.ndarray:
    """Return an image RGB uint8 (H, W, 3) with brightness, contrast and saturation changed by random factors."""
    image = Image.fromarray(pixels)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhancer(image).enhance(float(chance.uniform(1 - most, 1 + most)))
    return np.asarray(image)


def stitch(views: Sequence[View], side: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return four views, each at most `side` // 2 pixels wide and high, as one square, and where each one begins.

    They meet at the square's centre; what is left over is black.

    Returns:
        (3, side, side) uint8, and left and top of each view in it.
    """
    canvas = torch.zeros(3, side, side, dtype=torch.uint8)
    corners = []
    for number, view in enumerate(views):
        (height, width), middle = view.size, side // 2
        left = middle if number % 2 else middle - width
        top = middle if number >= 2 else middle - height
        canvas[:, top : top + height, left : left + width] = view.planes
        corners.append((left, top))
    return canvas, corners
