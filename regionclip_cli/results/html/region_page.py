"""A page of sample regions with their concepts: one self-contained HTML file, light or dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from regionclip_cli.files import whole_file
from regionclip_cli.results.drawing import PALETTE
from regionclip_cli.results.html.embedding import embedded

TEMPLATE = "region_page.html.jinja"
PICTURE_SIDE, CROP_SIDE = 480, 144
MARGIN = 0.1
"""Margin around a region in its crop, as a share of its sides."""


@dataclass(frozen=True)
class PageRegion:
    """A region on the page.

    Attributes:
        box: x1, y1, x2, y2 in pixels.
        objectness: In 0..1, or None.
        concepts: Names and probabilities, descending.
    """

    box: tuple[float, float, float, float]
    objectness: float | None
    concepts: tuple[tuple[str, float], ...]


@dataclass(frozen=True, eq=False)
class PageImage:
    """An image on the page.

    Attributes:
        key: Name of the image.
        captions: Its captions.
        pixels: RGB uint8 (H, W, 3).
        regions: Regions to show.
        count: Number of all its regions.
    """

    key: str
    captions: tuple[str, ...]
    pixels: np.ndarray
    regions: tuple[PageRegion, ...]
    count: int


def write_region_page(
    path: Path, facts: Mapping[str, str], frequent: Sequence[tuple[str, int]], images: Iterable[PageImage]
) -> None:
    """Write the page atomically.

    Args:
        path: The file.
        facts: Facts at the top of the page.
        frequent: Concepts with their number of regions, the most frequent first.
        images: Samples, iterated once, one in memory at a time.

    Raises:
        OutputError: The file cannot be written.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files(__package__) / TEMPLATE).read_text(encoding="utf-8"))
    most = max((count for _, count in frequent), default=1)
    page = template.stream(facts=facts, frequent=frequent, most=most, images=(_shown(image) for image in images))
    with whole_file(path) as part, part.open("wb") as file:
        page.dump(file, encoding="utf-8")


def _shown(image: PageImage) -> dict[str, Any]:
    """Return an image as the template takes it."""
    height, width = image.pixels.shape[:2]
    return {
        "key": image.key,
        "captions": image.captions,
        "count": image.count,
        "width": width,
        "height": height,
        "stroke": max(width, height) / 200,
        "picture": embedded(image.pixels, PICTURE_SIDE),
        "regions": [
            {
                "number": number,
                "colour": PALETTE[(number - 1) % len(PALETTE)],
                "crop": embedded(_crop(image.pixels, region.box), CROP_SIDE),
                "x": region.box[0],
                "y": region.box[1],
                "width": region.box[2] - region.box[0],
                "height": region.box[3] - region.box[1],
                "objectness": region.objectness,
                "concepts": region.concepts,
            }
            for number, region in enumerate(image.regions, 1)
        ],
    }


def _crop(pixels: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Return the pixels of a region and a margin around it."""
    left, top, right, bottom = _around(box, pixels.shape[1], pixels.shape[0])
    return pixels[top:bottom, left:right]


def _around(box: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int]:
    """Return whole pixels around a box with a margin, inside the image and not empty."""
    x1, y1, x2, y2 = box
    across, down = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
    left, top = min(max(int(x1 - across), 0), width - 1), min(max(int(y1 - down), 0), height - 1)
    return left, top, min(max(int(x2 + across) + 1, left + 1), width), min(max(int(y2 + down) + 1, top + 1), height)
