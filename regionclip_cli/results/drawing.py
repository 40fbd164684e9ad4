"""Boxes and labels on an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from regionclip_cli.environment import package_folder
from regionclip_cli.results.detections import ImageDetections

if TYPE_CHECKING:
    from PIL.Image import Image

PALETTE = (
    *("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#00b3b3", "#f032e6", "#ffd500", "#a0522d", "#9acd32"),
    *("#1e90ff", "#ff7f9f", "#008060", "#b8860b", "#7b68ee", "#ff4500", "#2e4a9e", "#66cdaa", "#c71585", "#8fbc8f"),
)
"""Colours by class index; neighbours differ clearly."""

MIN_FONT_SIZE = 7


def draw(detections: ImageDetections, pixels: np.ndarray, scores: bool = True) -> Image:
    """Return the image with a box and a label for each detection, the best ones on top.

    Line width and font size grow with the image, and text is dark on light colours. Labels are moved apart and stay
    inside the image: where one is too wide, the font shrinks, and at its smallest size the label is cut.

    Args:
        detections: What to draw.
        pixels: RGB uint8 (H, W, 3).
        scores: Whether labels include the score.
    """
    from PIL import Image as pillow
    from PIL import ImageDraw, ImageFont

    image = pillow.fromarray(pixels)
    if not len(detections):
        return image
    canvas = ImageDraw.Draw(image)
    short = min(image.size)
    thickness = max(1, round(short / 200))
    colours = [PALETTE[int(index) % len(PALETTE)] for index in detections.ids]
    corners = [[round(float(x)) for x in box] for box in detections.boxes]
    for box, colour in reversed(list(zip(corners, colours, strict=True))):
        x1, y1, x2, y2 = box
        canvas.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=thickness)
    texts = [
        " ".join([*label.split(), *([f"{score:.2f}"] if scores else [])])
        for label, score in zip(detections.labels, detections.scores, strict=True)
    ]
    size, padding, texts = _fit(texts, image.width, max(MIN_FONT_SIZE, round(0.8 * short**0.5)))
    if image.height < 2 * size + 2 * padding or not all(texts):
        return image
    font = ImageFont.truetype(_font_path(), size)
    height = size + 2 * padding
    sizes = [(int(font.getlength(text)) + 1 + 2 * padding, height) for text in texts]
    places = _place(corners, sizes, image.size)
    for (left, top), (wide, high), text, colour in reversed(list(zip(places, sizes, texts, colours, strict=True))):
        canvas.rounded_rectangle((left, top, left + wide - 1, top + high - 1), max(1, size // 6), fill=colour)
        canvas.text((left + padding, top + high / 2), text, fill=_readable_on(colour), font=font, anchor="lm")
    return image


def _place(
    boxes: Sequence[Sequence[int]], sizes: Sequence[tuple[int, int]], image: tuple[int, int]
) -> list[tuple[int, int]]:
    """Return the top left corner of each label, inside the image and, where there is room, free of better ones.

    Args:
        boxes: N boxes xyxy in pixels, best first.
        sizes: Width and height of each label.
        image: Width and height of the image.
    """
    placed: list[tuple[int, int, int, int]] = []
    for (x1, y1, _, y2), (wide, high) in zip(boxes, sizes, strict=True):
        left = max(0, min(x1, image[0] - wide))
        wanted = (y1 - high, y1, y2, y2 - high, *(y1 + step * high for step in (-2, 1, -3, 2, 3)))
        tops = [max(0, min(top, image[1] - high)) for top in wanted]
        free = (top for top in tops if not any(_touch((left, top, left + wide, top + high), each) for each in placed))
        top = next(free, tops[0])
        placed.append((left, top, left + wide, top + high))
    return [(left, top) for left, top, _, _ in placed]


def _touch(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    """Return whether two boxes xyxy overlap."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _fit(texts: list[str], width: int, size: int) -> tuple[int, int, list[str]]:
    """Return font size, padding and texts such that every label is at most `width` pixels wide."""
    from PIL import ImageFont

    while True:
        font = ImageFont.truetype(_font_path(), size)
        padding = max(2, size // 4)
        room = width - 2 * padding - 2
        if size <= MIN_FONT_SIZE or all(font.getlength(text) <= room for text in texts):
            break
        size -= 1
    fitted = []
    for text in texts:
        while text and font.getlength(text) > room:
            text = text[:-1]
        fitted.append(text.rstrip())
    return size, padding, fitted


def _font_path() -> str:
    """Return DejaVu Sans, which covers most alphabets, from the files of matplotlib, which is not imported."""
    return str(package_folder("matplotlib") / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")


def _readable_on(colour: str) -> str:
    """Return black or white, whichever has more contrast on a hex colour (WCAG relative luminance)."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.35 else "#ffffff"
