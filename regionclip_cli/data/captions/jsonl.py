"""Captions one record a line: JSON lines with images, and plain text without.

A JSON line is `{"image": "a/1.jpg", "captions": ["...", "..."]}`. The image may also be called `file_name`, and `key`
names it otherwise than its path; a single `caption` will do. Lines that name the same image are one image with all
their captions. In plain text every line is a caption.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regionclip_cli.data.captions.base import (
    Pair,
    PairSet,
    expand,
    fingerprint,
    key_hash,
    read_image_file,
    read_part,
    require_folder,
)
from regionclip_cli.errors import InputError, MissingError, UsageError
from regionclip_cli.recipe.schema import CaptionData

NAMES = ("key", "image", "file_name")
_EXAMPLE = 'A line is {"image": "a/1.jpg", "captions": ["..."]}.'


class Line(NamedTuple):
    """One record of a file: where it starts and how long it is in bytes, and what it says."""

    start: int
    size: int
    key: str | None
    image: str | None
    captions: tuple[str, ...]


class JsonLinesPairs(PairSet):
    """Images named by JSON lines, which lie in a folder.

    The files are read once, to check every line and to learn where it starts.

    Args:
        data: The source: files, the folder of the images (left out, that of each file), a limit.

    Raises:
        MissingError: A file or the folder is not there, or none of the first images is.
        UsageError: A line is wrong, or there is none.
    """

    def __init__(self, data: CaptionData) -> None:
        self._files = expand(data.paths())
        self._folder = None if data.images is None else require_folder(data.images)
        self.fingerprint = fingerprint(self._files, "jsonl", data.images, data.limit)
        columns = (array("i"), array("q"), array("q"), array("Q"), array("Q"))
        for number, line in _limited(_files(self._files), data.limit):
            if line.key is None:
                where = f"{self._files[number]}: the record of {line.captions[0]!r}"
                raise UsageError(f"{where} names no image.", f"{_EXAMPLE} `concepts` alone needs no images.")
            facts = (number, line.start, line.size, key_hash(line.key), key_hash(line.image or line.key))
            for column, value in zip(columns, facts, strict=True):
                column.append(value)
        file, start, size, hashes, images = (np.array(column) for column in columns)
        distinct, first, group = np.unique(hashes, return_index=True, return_inverse=True)
        other = np.flatnonzero(images != images[first[group]])
        place = np.empty(len(distinct), np.int64)  # of each image in the order of first lines
        place[np.argsort(first)] = np.arange(len(distinct))
        order = np.argsort(place[group], kind="stable")
        self._file, self._start, self._size = file[order], start[order], size[order]
        self._bounds = np.append(0, np.cumsum(np.bincount(place[group], minlength=len(distinct))))
        self._hashes = hashes[np.sort(first)]
        if len(other):
            raise self._two_images(int(place[group[other[0]]]))
        self._check_images()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._hashes)

    def key(self, index: int) -> str:
        """Return what the line calls its image."""
        return str(self._line(int(self._bounds[index])).key)

    def pair(self, index: int) -> Pair:
        """Return an image with the captions of all its lines."""
        lines = [self._line(at) for at in range(self._bounds[index], self._bounds[index + 1])]
        first = lines[0]
        captions = tuple(caption for line in lines if line.key == first.key for caption in line.captions)
        read = partial(read_image_file, self._path(index, first), str(first.key))
        return Pair(str(first.key), captions, read)

    def key_hashes(self) -> np.ndarray:
        """Return (len,) uint64."""
        return self._hashes

    def _path(self, index: int, line: Line) -> Path:
        folder = self._folder or self._files[self._file[self._bounds[index]]].parent
        return folder / str(line.image or line.key)

    def _line(self, at: int) -> Line:
        path = self._files[self._file[at]]
        start, size = int(self._start[at]), int(self._size[at])
        try:
            line = _parse(read_part(path, start, size, f"byte {start}"), start, str(path))
        except UsageError as err:
            raise InputError(f"{path} has changed while it was in use.") from err
        if line is None:
            raise InputError(f"{path} has changed while it was in use.")
        return line

    def _two_images(self, index: int) -> UsageError:
        """Return what to say of a key under which lines name more than one image."""
        lines = [self._line(at) for at in range(self._bounds[index], self._bounds[index + 1])]
        first, other = list(dict.fromkeys(line.image or line.key for line in lines))[:2]
        path = self._files[self._file[self._bounds[index]]]
        return UsageError(
            f"{path}: the key {lines[0].key!r} stands for two images, {first} and {other}.",
            "Give each image a key of its own, or leave `key` out.",
        )

    def _check_images(self) -> None:
        """Find a wrong folder before the first of a million images is missed."""
        paths = [self._path(index, self._line(int(self._bounds[index]))) for index in range(min(5, len(self)))]
        if not any(path.is_file() for path in paths):
            raise MissingError(
                f"The images that {self._files[0]} names are not there: {paths[0]} is the first.",
                "`images` names their folder; left out, it is that of the caption file.",
            )


def stream_json_lines(data: CaptionData) -> Iterator[str]:
    """Yield all captions of JSON lines, with images or without.

    Raises:
        MissingError: A file is not there.
        UsageError: A line is wrong, or there is none.
    """
    for _, line in _limited(_files(expand(data.paths())), data.limit):
        yield from line.captions


def stream_text(data: CaptionData) -> Iterator[str]:
    """Yield the lines of plain text that are not empty.

    Raises:
        MissingError: A file is not there.
        UsageError: A file cannot be read, is no text, or holds nothing.
    """
    left = data.limit
    for path in expand(data.paths()):
        found = False
        for number, _, line in raw_lines(path):
            if left is not None and left <= 0:
                return
            text = _decode(line, f"{path}:{number}").strip()
            if text:
                found, left = True, None if left is None else left - 1
                yield text
        if not found:
            raise UsageError(f"The caption file {path} is empty.")


def raw_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield each line of a file with its number from 1 and the byte it starts at.

    Raises:
        UsageError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = 0
            for number, line in enumerate(file, 1):
                yield number, start, line
                start += len(line)
    except OSError as err:
        raise UsageError(f"The caption file {path} cannot be read: {err.strerror or err}.") from err


def captions_of(record: Any, where: str, names: tuple[str, ...] = ("captions", "caption")) -> tuple[str, ...]:
    """Return the captions of a record that are not empty.

    Raises:
        UsageError: There is none of the fields, or it holds something else than texts.
    """
    found = record if isinstance(record, str) else None
    if isinstance(record, dict):
        found = next((record[name] for name in names if record.get(name) is not None), None)
    if found is None:
        raise UsageError(f"{where}: there is no {' and no '.join(map(repr, names))}.", _EXAMPLE)
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{where}: the captions are not texts.", _EXAMPLE)
    return tuple(text.strip() for text in texts if text.strip())


def _files(paths: list[Path]) -> Iterator[tuple[int, Line]]:
    """Yield every record of all files, with the number of its file."""
    for index, path in enumerate(paths):
        found = False
        for number, start, raw in raw_lines(path):
            line = _parse(raw, start, f"{path}:{number}")
            if line is not None:
                found = True
                yield index, line
        if not found:
            raise UsageError(f"The caption file {path} is empty.", _EXAMPLE)


def _limited(lines: Iterator[tuple[int, Line]], limit: int | None) -> Iterator[tuple[int, Line]]:
    """Yield lines until one of them names an image beyond the first `limit`; a line without image counts as one."""
    seen: set[int] = set()
    for count, (number, line) in enumerate(lines):
        if limit is not None:
            seen.add(count if line.key is None else key_hash(line.key))
            if len(seen) > limit:
                return
        yield number, line


def _parse(raw: bytes, start: int, where: str) -> Line | None:
    """Return the record in a line; None when it is blank or has no caption."""
    text = _decode(raw, where).strip()
    if not text:
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as err:
        reason = err.msg if isinstance(err, json.JSONDecodeError) else "nested too deeply"
        raise UsageError(f"{where}: not valid JSON: {reason}.", _EXAMPLE) from err
    if not isinstance(record, dict):
        raise UsageError(f"{where}: a {type(record).__name__}, not an object.", _EXAMPLE)
    key, image, file_name = (_name(record, name, where) for name in NAMES)
    captions = captions_of(record, where)
    return Line(start, len(raw), key or image or file_name, image or file_name, captions) if captions else None


def _name(record: dict[str, Any], field: str, where: str) -> str | None:
    value = record.get(field)
    if value is None or (isinstance(value, str) and value and "\0" not in value):
        return value
    raise UsageError(f"{where}: {field!r} is {json.dumps(value)[:60]}, not a name.", _EXAMPLE)


def _decode(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise UsageError(f"{where}: not UTF-8 text.", "Save the file as UTF-8.") from err
