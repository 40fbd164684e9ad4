"""Images with captions, found by number: what pseudo labelling and pretraining read, whatever form it lies in."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import logging
import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regionclip_cli.errors import InputError, MissingError, OutputError, UsageError, did_you_mean
from regionclip_cli.files import numbered, user_path, whole_file
from regionclip_cli.hub.paths import cache_dir


@dataclass(frozen=True)
class Pair:
    """One image and what people say about it.

    Attributes:
        key: The image's name, unique in its `PairSet`.
        captions: At least one.
        read: Returns the encoded image. Raises `InputError`, which names the key and the file.
    """

    key: str
    captions: tuple[str, ...]
    read: Callable[[], bytes]


class PairSet(ABC):
    """Images with captions in an order that never changes.

    Memory is flat: what is kept for an image is a few numbers in numpy arrays, and no Python object. A set can be
    pickled, and holds no open file, so that the workers of a data loader can share one.
    """

    fingerprint: str
    """Changes when the source does: made of the names, sizes and times of its files, without reading them."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def key(self, index: int) -> str:
        """Return the key of an image, 0 <= index < len."""

    @abstractmethod
    def pair(self, index: int) -> Pair:
        """Return an image with its captions, 0 <= index < len.

        Raises:
            InputError: The record cannot be read; the others are not affected.
        """

    @abstractmethod
    def key_hashes(self) -> np.ndarray:
        """Return (len,) uint64, `key_hash` of each key."""

    def __getitem__(self, index: int) -> Pair:
        """Return an image with its captions; a negative index counts from the end."""
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"no pair {index} in a set of {len(self)}")
        return self.pair(place)

    def __iter__(self) -> Iterator[Pair]:
        """Yield all images in order."""
        return (self.pair(index) for index in range(len(self)))


class PackedTexts:
    """Many short texts as one block of bytes and their ends: the memory of the letters and 8 bytes a text."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        block, ends = bytearray(), array("q", [0])
        for text in texts:
            block += text.encode("utf-8", "surrogatepass")
            ends.append(len(block))
        self._block, self._ends = np.frombuffer(bytes(block), np.uint8), np.array(ends, np.int64)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        """Return a text."""
        start, end = self._ends[index], self._ends[index + 1]
        return self._block[start:end].tobytes().decode("utf-8", "surrogatepass")


class JoinedPairs(PairSet):
    """Several sets one after the other, or the first images of one, with keys that are unique over all of them.

    A key that was there before gets `~2`, `~3` and so on at its end, in the order of the images.

    Args:
        parts: The sets.
        fingerprint: That of the whole.

    Raises:
        UsageError: A key that was made unique so is the key of yet another image.
    """

    def __init__(self, parts: Sequence[PairSet], fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        hashes = np.concatenate([part.key_hashes() for part in parts]) if parts else np.zeros(0, np.uint64)
        self._repeats = _count_repeats(hashes)
        if self._repeats is not None:
            again = np.flatnonzero(self._repeats)
            renamed = np.array([key_hash(self.key(int(index))) for index in again], np.uint64)
            taken = np.isin(renamed, hashes)
            if taken.any():
                key = self.key(int(again[np.flatnonzero(taken)[0]]))
                raise UsageError(
                    f"Two images have the key {key.rpartition('~')[0]!r}, and another has {key!r} already.",
                    "Give the images keys of their own.",
                )
            hashes = hashes.copy()
            hashes[again] = renamed
        self._hashes = hashes

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._hashes)

    def key(self, index: int) -> str:
        """Return the key of an image, unique in the whole."""
        part, place = self._find(index)
        key = part.key(place)
        return key if self._repeats is None or not self._repeats[index] else f"{key}~{self._repeats[index] + 1}"

    def pair(self, index: int) -> Pair:
        """Return an image with its captions."""
        part, place = self._find(index)
        pair = part.pair(place)
        return pair if self._repeats is None else Pair(self.key(index), pair.captions, pair.read)

    def key_hashes(self) -> np.ndarray:
        """Return (len,) uint64 of the unique keys."""
        return self._hashes

    def _find(self, index: int) -> tuple[PairSet, int]:
        part = bisect_right(self._ends, index)
        return self._parts[part], index - int(self._ends[part - 1] if part else 0)


def key_hash(key: str) -> int:
    """Return 64 bits of a key: equal keys have equal hashes on every machine, and different ones never in practice."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _count_repeats(hashes: np.ndarray) -> np.ndarray | None:
    """Return (n,) int64, how often each value came before; None when none did."""
    order = np.argsort(hashes, kind="stable")
    new = np.ones(len(hashes), bool)
    new[1:] = hashes[order][1:] != hashes[order][:-1]
    if new.all():
        return None
    starts = np.flatnonzero(new)
    repeats = np.empty(len(hashes), np.int64)
    repeats[order] = np.arange(len(hashes)) - np.repeat(starts, np.diff(np.append(starts, len(hashes))))
    return repeats


SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".tsv": "tsv", ".tar": "webdataset", ".txt": "text"}
"""Forms of captions that the name of a file tells."""
WHOLE = 1 << 24
"""Bytes of a file up to which all of it tells it from others."""
SAMPLES, BLOCK = 8, 1 << 16
"""Blocks that are looked at of a larger one, and their bytes."""


def expand(texts: Sequence[str], what: str = "caption file") -> list[Path]:
    """Return the files behind paths, globs (sorted) and numbered ranges such as `shards/{00000..00331}.tar`.

    Args:
        texts: What was written.
        what: What the files are, for messages.

    Raises:
        MissingError: A file is not there, or a glob matches none.
        UsageError: Nothing was written, a range runs backwards or is endless.
    """
    if not texts:
        raise UsageError(f"No {what} is named.", "Set `path`, or name files after --captions.")
    return [path for text in texts for path in _expand(text, what)]


def guess_form(text: str) -> str:
    """Return the form of a caption file: by its name and, where that leaves it open, by how it begins.

    Args:
        text: A path, glob or numbered range; of several files the first tells.

    Raises:
        MissingError: There is no such file.
        UsageError: It is of no form that is known.
    """
    path = expand([text])[0]
    suffix = path.suffix.lower()
    if path.is_dir() or suffix in SUFFIXES:
        return "tsv" if path.is_dir() else SUFFIXES[suffix]
    try:
        with path.open("rb") as file:
            head = file.read(1 << 12)
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror or err}.") from err
    line, line_end, _ = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if head[257:262] == b"ustar":
        return "webdataset"
    if b"\0" in head:
        raise UsageError(f"{path} is no file of captions.", f"Known are {', '.join(SUFFIXES)} and COCO's .json.")
    if not line.startswith((b"{", b"[")):
        return "tsv" if b"\t" in line else "text"
    try:
        record = json.loads(line)
    except ValueError:
        # A line that goes on: all of COCO's file may be one, and so may a record with very many captions.
        goes_on = not line_end and b'"caption' in line and b'"annotations"' not in line and b'"info"' not in line
        record = {"caption": ""} if goes_on else {}
    return "jsonl" if isinstance(record, dict) and {"caption", "captions"} & set(record) else "coco-captions"


def fingerprint(files: Sequence[Path], *more: object) -> str:
    """Return 16 hex digits made of the names and contents of files, and of whatever else decides what is read.

    A copy of the data, on another machine or made later, has the same ones. Of a file above `WHOLE` bytes the size and
    `SAMPLES` blocks of it stand for all, so that terabytes of shards are told apart in seconds.

    Raises:
        OSError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        size = os.stat(path).st_size
        digest.update(f"{path.name}\0{size}\n".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            if size <= WHOLE:
                digest.update(hashlib.file_digest(file, "sha256").digest())
                continue
            for sample in range(SAMPLES):
                file.seek((size - BLOCK) * sample // (SAMPLES - 1))
                digest.update(file.read(BLOCK))
    digest.update(repr(more).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def require_folder(text: str) -> Path:
    """Return a folder of images.

    Raises:
        MissingError: It is not there.
    """
    folder = user_path(text)
    if not folder.is_dir():
        raise MissingError(f"There is no folder of images {text}.", _near(folder) or "`images` names it.")
    return folder


def read_image_file(path: Path, key: str) -> bytes:
    """Return the bytes of an image file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as err:
        raise InputError(f"The image {key} cannot be read from {path}: {err.strerror or err}.") from err


def read_part(path: Path, start: int, size: int, key: str) -> bytes:
    """Return `size` bytes of a file from `start` on: an image inside a larger file.

    Raises:
        InputError: It cannot be read, or ends before.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
    except OSError as err:
        raise InputError(f"{key} cannot be read from {path}: {err.strerror or err}.") from err
    if len(data) < size:
        raise InputError(f"{key} cannot be read from {path}: the file has become shorter.")
    return data


def _expand(text: str, what: str) -> list[Path]:
    if numbered(text) != [text]:
        paths = [user_path(each) for each in numbered(text)]
        absent = [path for path in paths if not path.exists()]
        if absent:
            raise MissingError(
                f"{len(absent)} of the {len(paths)} files of {text} are not there: {absent[0]} is the first.",
                "Does the range end too late?" if len(absent) < len(paths) else "",
            )
        return paths
    path = user_path(text)
    if glob.has_magic(text) and not path.exists():
        found = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        if not found:
            raise MissingError(f"The pattern {text} matches no {what}.")
        return found
    if not path.exists():
        raise MissingError(f"There is no {what} {text}.", _near(path))
    return [path]


def _near(path: Path) -> str:
    """Return a hint with the names nearest to a missing path."""
    try:
        return did_you_mean(path.name, os.listdir(path.parent))
    except OSError:
        return f"There is no folder {path.parent} either."


WORTH_KEEPING = 64 << 20
"""Size in bytes from which on a file's index is kept; smaller files are read again as fast."""

_log = logging.getLogger(__name__)
Index = Mapping[str, np.ndarray]


def kept(path: Path, form: str, build: Callable[[], Index]) -> Index:
    """Return the index of a file: the one kept of it as it is now, else what `build` finds, which is kept then.

    Whatever is wrong with the cache costs time and nothing else.

    Args:
        path: The file.
        form: What the index is, with a version: another one is another index.
        build: Reads the file and returns named arrays of numbers.
    """
    facts = os.stat(path)
    if facts.st_size < WORTH_KEEPING:
        return build()
    identity = f"{os.path.abspath(path)}\0{facts.st_size}\0{facts.st_mtime_ns}\0{form}"
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    place = cache_dir() / "indexes" / f"{digest[:32]}.npz"
    broken = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
    with contextlib.suppress(*broken), place.open("rb") as kept_file, np.load(kept_file, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
    index = build()
    try:
        with whole_file(place) as part, part.open("wb") as out:
            np.savez(out, allow_pickle=False, **dict(index))
    except OutputError as err:
        _log.warning("The index of %s is not kept: %s", path, err)
    return index
