"""The pictures with boxes and labels drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from regionclip_cli.files import replacing, writing
from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.results.drawing import draw
from regionclip_cli.results.writers.base import Writer

KINDS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
"""Suffixes that a labelled picture keeps, and Pillow's name of the format."""


class ImagesWriter(Writer):
    """`images/<image>`: the picture in its own format, or as JPEG (`.jpg` added) where that is not a common one."""

    outputs: ClassVar[tuple[str, ...]] = ("images",)

    def open(self, out_dir: Path, labels: Sequence[str], resume: bool) -> None:
        """Make the folder."""
        self._folder = out_dir / "images"
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, detections: ImageDetections, pixels: np.ndarray | None) -> None:
        """Draw and save one picture."""
        if pixels is None:
            raise ValueError(f"{detections.image}: a picture cannot be drawn without its pixels")
        target = self._folder / picture_name(detections.image)
        picture = draw(detections, pixels)
        kind = KINDS[target.suffix.lower()]
        with replacing(target) as file:
            picture.save(file, kind, quality=92, compress_level=3)

    def has(self, name: str) -> bool:
        """Say whether the picture is there."""
        return (self._folder / picture_name(name)).exists()

    def close(self) -> None:
        """Do nothing: every picture is whole."""


def picture_name(name: str) -> str:
    """Return the relative path of the labelled picture of an image: `a/1.png`, and `a/1.tif.jpg` for `a/1.tif`.

    No two images share one: `a/1.tif.jpg` itself becomes `a/1.tif.jpg.jpg`.
    """
    core = PurePosixPath(name)
    while core.suffix.lower() in KINDS:
        core = core.with_suffix("")
    kept = PurePosixPath(name).suffix.lower() in KINDS and not core.suffix
    return name if kept else f"{name}.jpg"
