"""Small pictures on the disk."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from toys import draw_shapes

NAMES = ("1.jpg", "2.png", "sub/1.jpg")


def write_photos(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Write a different picture of shapes under each name, and return the folder."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels, _, _ = draw_shapes(seed, height=48 + 8 * (seed % 3), width=64)
        Image.fromarray(pixels).save(path, quality=95)
    return folder
