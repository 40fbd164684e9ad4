"""Images with captions, found by number: what pseudo labelling and pretraining read, whatever form it lies in."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from regionclip_cli.errors import UsageError


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
