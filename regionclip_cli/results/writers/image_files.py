"""Image files of a training set: copies of the originals, or links to them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from regionclip_cli.errors import InputError, OutputError, UsageError
from regionclip_cli.files import is_name_too_long, replacing
from regionclip_cli.results.detections import ImageRecord
from regionclip_cli.results.records import Records

WAYS = ("copy", "link", "none")


def check_way(way: str) -> None:
    """Check how images are to be placed.

    Raises:
        UsageError: It is not one of `WAYS`.
    """
    if way not in WAYS:
        raise UsageError(f"Images of a training set are placed by {', '.join(WAYS)}, not {way!r}.")


def place_image(records: Records, record: ImageRecord, target: Path, way: str) -> bool:
    """Put the image of a record at `target`, and return whether it is there; a file that exists is kept.

    Args:
        records: Of the run; an image that cannot be read is skipped there.
        record: Of the image.
        target: The file.
        way: `copy`, `link` (hard link, or a copy on another file system), or `none` to do nothing.

    Raises:
        OutputError: The file cannot be written.
    """
    if way == "none" or os.path.exists(target):
        return True
    path = records.path(record)
    try:
        if path is None:
            _save(records, record, target)
        else:
            _copy(path, target, way)
    except InputError as err:
        records.skip(record, err)
        return False
    except OutputError as err:
        if not is_name_too_long(err):
            raise
        records.skip(record, err.message)
        return False
    return True


def _copy(path: Path, target: Path, way: str) -> None:
    try:
        source = path.open("rb")
    except OSError as err:
        raise InputError(f"{path} cannot be read: {err.strerror or type(err).__name__}.") from err
    with source:
        if way == "link":
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(os.path.realpath(path), target)
                return
            except OSError:
                pass  # another file system, or one without links
        with replacing(target) as file:
            shutil.copyfileobj(source, file, 1 << 20)


def _save(records: Records, record: ImageRecord, target: Path) -> None:
    """Write an image that came on standard input, as PNG whatever its name."""
    from PIL import Image

    pixels = records.pixels(record)
    with replacing(target) as file:
        Image.fromarray(pixels).save(file, "PNG")
