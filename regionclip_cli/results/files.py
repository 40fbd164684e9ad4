"""Files that are either whole or not there, and errors of the disk as one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from regionclip_cli.errors import OutputError

PART = ".regionclip.part"
"""What a file is called, in its own folder, until it is whole."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn any trouble of the disk inside the block into an `OutputError` about `path`."""
    try:
        yield
    except OSError as err:
        reason = err.strerror or str(err) or type(err).__name__
        raise OutputError(f"{path} cannot be written: {reason}.", "Choose another folder with --out.") from err


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the name `path`, at once and whole, when the block ends well; else nothing is left.

    Raises:
        OutputError: The disk refuses.
    """
    part = path.with_name(PART)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise


def check_folder(folder: Path) -> None:
    """See that results can go to `folder`, without making it.

    Raises:
        OutputError: A file is in the way, or the folder (or the nearest one above that exists) cannot be written.
    """
    nearest = Path(os.path.abspath(folder))
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        raise OutputError(f"Results cannot go to {folder}: {nearest} is a file.", "Choose another folder with --out.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(
            f"Results cannot go to {folder}: no permission to write in {nearest}.", "Choose another --out."
        )
