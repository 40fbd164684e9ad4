"""Tab-separated files as the official code reads them: images in one, texts in another, row by row.

An image row is `key<tab>base64 of the file`; a text row is `key<tab>caption`, or `key<tab>JSON` with `captions` (a
list) or `tags` (one text). Beside `x.tsv` lies `x.lineidx` with the byte offset of each row that counts, a number a
line; where it is missing, every row counts and the offsets are found by reading the file once. A source is a folder
that holds both kinds, or text files as `path` with image files as `images`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from regionclip_cli.data.captions.base import Index, Pair, PairSet, expand, fingerprint, kept, key_hash
from regionclip_cli.data.captions.jsonl import captions_of, raw_lines
from regionclip_cli.errors import InputError, MissingError, UsageError
from regionclip_cli.recipe.schema import CaptionData

IMAGE_WORDS, TEXT_WORDS = ("image", "img"), ("text", "caption")
_EXAMPLE = "An image row is key<tab>base64, a text row key<tab>caption; rows of the two files belong together."
_BLOCK = 1 << 24


class TsvPairs(PairSet):
    """Rows of image files and text files that belong together.

    Raises:
        MissingError: A file is not there.
        UsageError: The files do not belong together, or a row is wrong.
    """

    def __init__(self, data: CaptionData) -> None:
        texts, images = _both(data)
        self._texts, self._images = texts, images
        text_at, image_at, self._file = [], [], []
        hashes: list[int] = []
        for number, (text, image) in enumerate(zip(texts, images, strict=True)):
            rows = [row_offsets(path) for path in (text, image)]
            if len(rows[0]) != len(rows[1]):
                raise UsageError(
                    f"{text} has {len(rows[0])} rows and {image} has {len(rows[1])}.", f"{_EXAMPLE} Is one cut short?"
                )
            keys, with_caption = _read_texts(text, rows[0])
            for place in sorted({0, len(keys) // 2, len(keys) - 1} & set(range(len(keys)))):
                at = int(with_caption[place])
                _check_keys(text, image, at, key_hash(_row_key(image, int(rows[1][at]))) == int(keys[place]))
            text_at.append(rows[0][with_caption])
            image_at.append(rows[1][with_caption])
            self._file.append(np.full(len(with_caption), number, np.int32))
            hashes.extend(keys.tolist())
        self._text_at, self._image_at = (np.concatenate(parts)[: data.limit] for parts in (text_at, image_at))
        self._number = np.concatenate(self._file)[: data.limit]
        self._hashes = np.array(hashes, np.uint64)[: data.limit]
        del self._file
        if not len(self):
            raise UsageError(f"The caption file {texts[0]} is empty.", _EXAMPLE)
        self.fingerprint = fingerprint([*texts, *images], "tsv", data.limit)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._hashes)

    def key(self, index: int) -> str:
        """Return the key of the text row."""
        return self._text(index)[0]

    def pair(self, index: int) -> Pair:
        """Return a row of both files."""
        key, captions = self._text(index)
        image = self._images[self._number[index]]
        return Pair(key, captions, partial(_read_image, image, int(self._image_at[index]), key))

    def key_hashes(self) -> np.ndarray:
        """Return (len,) uint64."""
        return self._hashes

    def _text(self, index: int) -> tuple[str, tuple[str, ...]]:
        path, at = self._texts[self._number[index]], int(self._text_at[index])
        try:
            return _parse(_row(path, at), f"{path}, byte {at}")
        except UsageError as err:
            raise InputError(f"{path} has changed while it was in use.") from err


def stream_tsv(data: CaptionData) -> Iterator[str]:
    """Yield the captions of text files; images are not looked at.

    Raises:
        MissingError: A file is not there.
        UsageError: A row is wrong, or there is none.
    """
    left = data.limit
    for path in _text_files(data):
        found = False
        for number, row in _rows(path):
            if left is not None and left <= 0:
                return
            captions = _parse(row, f"{path}:{number}")[1]
            found = found or bool(captions)
            left = None if left is None or not captions else left - 1
            yield from captions
        if not found:
            raise UsageError(f"The caption file {path} is empty.", _EXAMPLE)


def row_offsets(path: Path) -> np.ndarray:
    """Return (rows,) int64: where each row starts, by the `.lineidx` beside the file or by reading it.

    Raises:
        UsageError: The `.lineidx` does not belong to the file.
    """
    beside = path.with_suffix(".lineidx")
    if not beside.is_file():
        return kept(path, "tsv 1", partial(_scan, path))["rows"]
    try:
        rows = np.array([int(line) for line in beside.read_text().split()], np.int64)
    except (ValueError, OverflowError) as err:
        raise UsageError(
            f"{beside} is not a list of byte offsets.", "Remove it, and the rows will be counted."
        ) from err
    if len(rows) and (rows.min() < 0 or rows.max() >= path.stat().st_size):
        raise UsageError(f"{beside} has offsets beyond the end of {path}.", "Is the .tsv cut short?")
    return rows


def _scan(path: Path) -> Index:
    """Find the rows that are not empty."""
    starts, at = [np.zeros(1, np.int64)], 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            starts.append(np.flatnonzero(np.frombuffer(block, np.uint8) == 10).astype(np.int64) + at + 1)
            at += len(block)
    rows = np.concatenate(starts)
    return {"rows": rows[np.diff(np.append(rows, at)) > 1]}


def _both(data: CaptionData) -> tuple[list[Path], list[Path]]:
    """Return text files and image files, as many of each."""
    if data.images is not None:
        texts, images = expand(data.paths()), expand([data.images], "image file")
    else:
        folders = [path for path in expand(data.paths()) if path.is_dir()]
        if not folders:
            raise UsageError(
                f"The images of {data.paths()[0]} are not named.",
                "Set `images` to the image .tsv, or `path` to a folder that holds both.",
            )
        files = [path for folder in folders for path in sorted(folder.glob("*.tsv"))]
        images = [path for path in files if _named(path, IMAGE_WORDS)]
        texts = [path for path in files if _named(path, TEXT_WORDS) and not _named(path, IMAGE_WORDS)]
        if not images or not texts:
            lacking = "image" if not images else "text"
            raise MissingError(
                f"{folders[0]} holds no {lacking} .tsv.",
                "Image files have `image` or `img` in their name, text files `text` or `caption`.",
            )
    if len(texts) != len(images):
        raise UsageError(f"There are {len(texts)} text files and {len(images)} image files; one belongs to each other.")
    return texts, images


def _text_files(data: CaptionData) -> list[Path]:
    found = []
    for path in expand(data.paths()):
        inside = (
            [each for each in sorted(path.glob("*.tsv")) if not _named(each, IMAGE_WORDS)] if path.is_dir() else [path]
        )
        if not inside:
            raise MissingError(f"{path} holds no text .tsv.", "Text files have `text` or `caption` in their name.")
        found += inside
    return found


def _named(path: Path, words: tuple[str, ...]) -> bool:
    return any(word in path.stem.lower() for word in words)


def _read_texts(path: Path, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the key hashes (n,) uint64 and the numbers (n,) of the rows that have a caption."""
    keys, places = np.zeros(len(rows), np.uint64), np.zeros(len(rows), bool)
    with path.open("rb") as file:
        for number, at in enumerate(rows.tolist()):
            if file.tell() != at:
                file.seek(at)
            key, captions = _parse(file.readline(), f"{path}, row {number + 1}")
            keys[number], places[number] = key_hash(key), bool(captions)
    return keys[places], np.flatnonzero(places)


def _rows(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield rows with their numbers: those of the `.lineidx`, else all that are not empty."""
    if path.with_suffix(".lineidx").is_file():
        with path.open("rb") as file:
            for number, at in enumerate(row_offsets(path).tolist(), 1):
                file.seek(at)
                yield number, file.readline()
        return
    yield from ((number, line) for number, _, line in raw_lines(path) if line.strip())


def _parse(row: bytes, where: str) -> tuple[str, tuple[str, ...]]:
    """Return key and captions of a text row."""
    try:
        key, tab, text = row.decode("utf-8-sig").rstrip("\r\n").partition("\t")
    except UnicodeDecodeError as err:
        raise UsageError(f"{where}: not UTF-8 text.", "Save the file as UTF-8.") from err
    if not tab or not key:
        raise UsageError(f"{where}: no key and tab.", _EXAMPLE)
    if not text.lstrip().startswith("{"):
        return key, (text.strip(),) if text.strip() else ()
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise UsageError(f"{where}: not valid JSON.", _EXAMPLE) from err
    return key, captions_of(record, where, ("captions", "caption", "tags"))


def _row(path: Path, at: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(at)
            return file.readline()
    except OSError as err:
        raise InputError(f"{path} cannot be read: {err.strerror or err}.") from err


def _row_key(path: Path, at: int) -> str:
    with path.open("rb") as file:
        file.seek(at)
        return file.readline(1 << 12).partition(b"\t")[0].decode("utf-8", "replace")


def _check_keys(text: Path, image: Path, row: int, same: bool) -> None:
    if not same:
        raise UsageError(f"Row {row + 1} of {text} and of {image} have different keys.", _EXAMPLE)


def _read_image(path: Path, at: int, key: str) -> bytes:
    """Return the image of a row."""
    name, _, data = _row(path, at).rstrip(b"\r\n").rpartition(b"\t")
    if name.split(b"\t")[0].decode("utf-8", "replace") != key:
        raise InputError(f"The image {key} is not in its row of {path}, byte {at}.")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as err:
        raise InputError(f"The image {key} in {path} is not base64, byte {at}.") from err
