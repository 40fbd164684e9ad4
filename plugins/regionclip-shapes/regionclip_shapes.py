"""Drawn shapes with boxes as a dataset of regionclip: pictures that need no download and have no doubtful label."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from regionclip_cli.specs import DatasetSpec

COLOURS = {"red": (214, 40, 40), "green": (56, 142, 60), "blue": (30, 90, 200)}
FORMS = ("circle", "square", "triangle")
CLASSES = tuple(f"{colour} {form}" for colour in COLOURS for form in FORMS)

SHAPES = DatasetSpec(
    name="shapes",
    summary="Circles, squares and triangles in three colours, drawn as they are asked for.",
    loader="regionclip_shapes:draw",
    classes=CLASSES,
    options={"images": 100, "side": 256, "seed": 0},
)


def draw(images: int, side: int, seed: int) -> Iterator[dict[str, Any]]:
    """Draw pictures of one to four shapes that do not overlap, the same ones for the same seed.

    Args:
        images: How many.
        side: Width and height in pixels, at least 64.
        seed: Which ones.

    Yields:
        `image` (a PIL image), `boxes` (xyxy in pixels), `labels` (indices into `CLASSES`) and `captions`.
    """
    from PIL import Image, ImageDraw

    chance = random.Random(seed)
    half = side // 2
    corners = [(0, 0), (half, 0), (0, half), (half, half)]
    for _ in range(images):
        picture = Image.new("RGB", (side, side), (235, 235, 225))
        pen = ImageDraw.Draw(picture)
        boxes, labels = [], []
        for left, top in chance.sample(corners, chance.randint(1, 4)):
            size = chance.randint(half // 3, half - 8)
            x1, y1 = left + chance.randint(2, half - size - 2), top + chance.randint(2, half - size - 2)
            box = (x1, y1, x1 + size, y1 + size)
            label = chance.randrange(len(CLASSES))
            colour, form = CLASSES[label].split()
            if form == "circle":
                pen.ellipse(box, fill=COLOURS[colour])
            elif form == "square":
                pen.rectangle(box, fill=COLOURS[colour])
            else:
                pen.polygon([(x1, y1 + size), (x1 + size, y1 + size), (x1 + size // 2, y1)], fill=COLOURS[colour])
            boxes.append(box)
            labels.append(label)
        caption = " and ".join(f"a {CLASSES[label]}" for label in labels)
        yield {"image": picture, "boxes": boxes, "labels": labels, "captions": [caption]}
