"""The images with boxes and labels drawn on them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from regionclip_cli.errors import InputError, OutputError
from regionclip_cli.files import is_name_too_long, replacing
from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.results.drawing import draw
from regionclip_cli.results.records import Records

FOLDER = "images"
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
"""Suffixes that a drawn image keeps, and Pillow's name of the format."""


def render(records: Records, folder: Path, labels: Sequence[str]) -> None:
    """Write `images/<image>` in the image's own format, or as JPEG (`.jpg` added) where that is not a common one.

    Files that an earlier call has written are kept: a record never changes. An image that cannot be read again is
    skipped.

    Raises:
        OutputError: A file cannot be written.
    """
    index = {label: number for number, label in enumerate(labels)}
    for record in records:
        target = folder / FOLDER / drawn_name(record["image"])
        if os.path.exists(target):
            continue
        try:
            pixels = records.pixels(record)
        except InputError as err:
            records.skip(record, err)
            continue
        image = draw(ImageDetections.from_record(record, index), pixels)
        try:
            with replacing(target) as file:
                image.save(file, FORMATS[target.suffix.lower()], quality=92, compress_level=3)
        except OutputError as err:
            if not is_name_too_long(err):
                raise
            records.skip(record, err.message)


def drawn_name(name: str) -> str:
    """Return the relative path of the drawn image; no two images share one.

    >>> [drawn_name(name) for name in ("a/1.png", "a/1.tif", "a/1.tif.jpg", "a/1")]
    ['a/1.png', 'a/1.tif.jpg', 'a/1.tif.jpg.jpg', 'a/1.jpg.jpg']
    """
    path = PurePosixPath(name)
    if path.suffix.lower() in FORMATS and not path.with_suffix("").suffix:
        return name
    return f"{name}.jpg" if path.suffix or name == "stdin" else f"{name}.jpg.jpg"
