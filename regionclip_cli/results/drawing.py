"""Boxes and labels on an image."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

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
    import supervision as sv
    from PIL import Image as pillow

    image = pillow.fromarray(pixels)
    if not len(detections):
        return image
    found = detections.to_supervision()[np.arange(len(detections))[::-1]]
    palette = sv.ColorPalette.from_hex(list(PALETTE))
    letters = sv.ColorPalette.from_hex([_readable_on(colour) for colour in PALETTE])
    short = min(image.size)
    image = sv.BoxAnnotator(color=palette, thickness=max(1, round(short / 200))).annotate(image, found)
    texts = [
        " ".join([*label.split(), *([f"{score:.2f}"] if scores else [])])
        for label, score in zip(reversed(detections.labels), reversed(detections.scores), strict=True)
    ]
    size, padding, texts = _fit(texts, image.width, max(MIN_FONT_SIZE, round(0.8 * short**0.5)))
    if image.height < 2 * size + 2 * padding or not all(texts):
        return image
    annotator = sv.RichLabelAnnotator(
        color=palette,
        text_color=letters,
        font_path=_font_path(),
        font_size=size,
        text_padding=padding,
        border_radius=max(1, size // 6),
        smart_position=True,
    )
    return annotator.annotate(image, found, labels=texts)


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
    """Return DejaVu Sans, which covers most alphabets, from matplotlib (a dependency of supervision)."""
    return str(files("matplotlib") / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")


def _readable_on(colour: str) -> str:
    """Return black or white, whichever has more contrast on a hex colour (WCAG relative luminance)."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.35 else "#ffffff"
