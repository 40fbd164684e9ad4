"""From what a user names (files, folders, globs, standard input) to inputs with one stable, unique name each.

Finding is lazy: a folder of a million photos is walked while it is worked on. What the user typed, though, is checked
before anything else happens, so that a misspelt file name does not surface after an hour.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from regionclip_cli.errors import UsageError, did_you_mean
from regionclip_cli.files import user_path

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".tga", ".ico"),
    )
)
STDIN = "-"


@dataclass(frozen=True)
class ImageInput:
    """One image to look at.

    Attributes:
        name: Relative path with forward slashes, unique in a run; outputs keep it. A file inside the working folder
            is named by its path from there; any other file by its absolute path without the root. The name depends
            on nothing else, so a run that is taken up again meets the same names.
        path: Where the image is; None for standard input.
    """

    name: str
    path: Path | None


def find_inputs(inputs: Sequence[str], recursive: bool = False, exclude: Path | None = None) -> Iterator[ImageInput]:
    """Check everything the user named, then yield the images one by one, each file once.

    Folders and globs (`*`, `?`, `[...]`, `**`) are sorted and skip hidden files and files that have no image suffix;
    a file that is named outright is always yielded.

    Args:
        inputs: Files, folders, globs, or `-` for image bytes on standard input.
        recursive: Look in the sub-folders of the folders too.
        exclude: A folder never looked into: where the results of this very run go.

    Raises:
        UsageError: A path does not exist, a glob matches no image, a folder holds none. Raised at the call, before
            the first image is yielded.
    """
    if not inputs:
        raise UsageError("No image was named.", "Name image files, folders, globs, or - for standard input.")
    barred = None if exclude is None else os.path.abspath(exclude)
    for text in inputs:
        _check(text, recursive, barred)
    return _unique(inputs, recursive, barred)


def safe_name(path: Path) -> str:
    """Return the relative, forward-slash name of a file: see `ImageInput.name`. It never leaves the output folder."""
    absolute = PurePath(os.path.abspath(path))
    try:
        return absolute.relative_to(os.getcwd()).as_posix()
    except ValueError:
        drive = absolute.drive.replace(":", "").strip("\\/").replace("\\", "/")
        return "/".join(part for part in (drive, absolute.relative_to(absolute.anchor).as_posix()) if part)


def _unique(inputs: Sequence[str], recursive: bool, barred: str | None) -> Iterator[ImageInput]:
    """Yield every image once; where two files would share a name, the later one gets a number before its suffix."""
    taken: dict[str, str] = {}
    for text in inputs:
        for path in _expand(text, recursive, barred):
            where = STDIN if path is None else os.path.abspath(path)
            wanted = PurePath("stdin" if path is None else safe_name(path))
            name, number = wanted.as_posix(), 2
            while taken.get(name, where) != where:
                name = wanted.with_name(f"{wanted.stem}~{number}{wanted.suffix}").as_posix()
                number += 1
            if name not in taken:
                taken[name] = where
                yield ImageInput(name, path)


def _expand(text: str, recursive: bool, barred: str | None) -> Iterator[Path | None]:
    """Yield the paths behind one argument."""
    if text == STDIN:
        yield None
    elif os.path.isdir(text):
        yield from _walk(text, recursive, barred)
    elif _is_glob(text):
        matches = glob.glob(os.path.expanduser(text), recursive=True)
        yield from (Path(match) for match in sorted(matches) if _wanted(match, text, barred))
    else:
        yield user_path(text)


def _walk(folder: str, recursive: bool, barred: str | None) -> Iterator[Path]:
    """Yield the images of a folder, sorted by name, its sub-folders in their place. Linked folders are not followed.

    A sub-folder that cannot be listed is yielded itself: reading it fails like any other bad image, and costs no more.
    """
    if os.path.abspath(folder) == barred:
        return
    try:
        with os.scandir(folder) as listing:
            entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda e: e.name)
    except OSError:
        yield Path(folder)
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if recursive:
                yield from _walk(entry.path, recursive, barred)
        elif PurePath(entry.name).suffix.lower() in IMAGE_SUFFIXES and not entry.is_dir():
            yield Path(entry.path)


def _is_glob(text: str) -> bool:
    return glob.has_magic(text) and not os.path.exists(text)


def _wanted(match: str, pattern: str, barred: str | None) -> bool:
    """Say whether a match of a glob is an image: by its suffix, or because the pattern asks for that suffix."""
    if os.path.isdir(match) or (barred and os.path.abspath(match).startswith(barred + os.sep)):
        return False
    suffix = PurePath(match).suffix.lower()
    return suffix in IMAGE_SUFFIXES or (suffix != "" and pattern.lower().endswith(suffix))


def _check(text: str, recursive: bool, barred: str | None) -> None:
    """Refuse one argument that leads to no image."""
    if text == STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError(
                "Nothing is piped into standard input.", "For example: cat photo.jpg | regionclip detect -"
            )
        return
    path = user_path(text)
    if path.is_dir():
        try:
            os.listdir(path)
        except OSError as err:
            raise UsageError(f"The folder {text} cannot be read: {err.strerror}.") from err
        if next(_walk(str(path), recursive, barred), None) is None:
            deeper = not recursive and next(_walk(str(path), True, barred), None) is not None
            raise UsageError(
                f"The folder {text} holds no image.", "Add -r to look in its sub-folders too." if deeper else ""
            )
    elif _is_glob(text):
        if next(_expand(text, recursive, barred), None) is None:
            raise UsageError(f"The pattern {text} matches no image.", "`**` matches any number of folders.")
    elif not path.exists():
        raise UsageError(f"There is no file or folder {text}.", _near(path))


def _near(path: Path) -> str:
    """Return a hint with the names nearest to a missing path in the deepest folder of it that exists."""
    missing, folder = path.name, path.parent
    while not folder.is_dir() and folder != folder.parent:
        missing, folder = folder.name, folder.parent
    try:
        return did_you_mean(missing, os.listdir(folder))
    except OSError:
        return ""
