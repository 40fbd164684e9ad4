"""Webdataset shards: tar files in which `a.jpg` and `a.txt` (or `a.json`) that stand together are a sample.

Nothing is unpacked. The headers of a shard are read once, and what is kept of a sample are its key and where its image
and its text lie, so that any sample can be read by itself.
"""

from __future__ import annotations

import json
import tarfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from regionclip_cli.data.captions.base import Index, Pair, PairSet, expand, fingerprint, kept, key_hash, read_part
from regionclip_cli.data.captions.jsonl import captions_of
from regionclip_cli.data.images import IMAGE_SUFFIXES
from regionclip_cli.errors import InputError, UsageError
from regionclip_cli.recipe.schema import CaptionData

TEXTS = (".txt", ".caption", ".json")
"""Suffixes of texts, the preferred first."""
_BLOCK = 512
_PACKED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_EXAMPLE = "A sample is an image and a text of the same name: a.jpg and a.txt, or a.json with `caption`."
_LONGEST_TEXT = 1 << 20


class Sample(NamedTuple):
    """Where one sample lies in its shard: first byte and size of its image and of its text."""

    key: str
    image: tuple[int, int]
    text: tuple[int, int]
    is_json: bool
    captions: tuple[str, ...]


class ShardPairs(PairSet):
    """The samples of shards that have an image and a caption.

    Raises:
        MissingError: A shard is not there.
        UsageError: A shard is no tar file, is packed, cut short or damaged, holds no sample, or holds a member that
            would climb out of its folder.
    """

    def __init__(self, data: CaptionData) -> None:
        self._shards = expand(data.paths(), "shard")
        self.fingerprint = fingerprint(self._shards, "webdataset", data.limit)
        self._indexes: list[Index] = []
        ends: list[int] = []
        left = data.limit
        for path in self._shards:
            index = kept(path, "webdataset 1", partial(_index, path))
            self._indexes.append(index)
            count = len(index["hashes"]) if left is None else min(left, len(index["hashes"]))
            left = None if left is None else left - count
            ends.append((ends[-1] if ends else 0) + count)
            if left == 0:
                break
        self._ends = ends

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._ends[-1]

    def key(self, index: int) -> str:
        """Return the path of the sample in its shard, up to the first dot of its name."""
        found, place = self._find(index)[1:]
        start, end = found["key_ends"][place : place + 2]
        return found["keys"][start:end].tobytes().decode("utf-8", "surrogateescape")

    def pair(self, index: int) -> Pair:
        """Return a sample."""
        path, found, place = self._find(index)
        key = self.key(index)
        at, size, text_at, text_size, is_json = (int(value) for value in found["places"][place])
        try:
            captions = _captions(read_part(path, text_at, text_size, key), bool(is_json), f"{key} in {path}")
        except UsageError as err:
            raise InputError(f"{path} has changed while it was in use.") from err
        return Pair(key, captions, partial(read_part, path, at, size, key))

    def key_hashes(self) -> np.ndarray:
        """Return (len,) uint64."""
        return np.concatenate([index["hashes"] for index in self._indexes])[: len(self)].astype(np.uint64)

    def _find(self, index: int) -> tuple[Path, Index, int]:
        shard = bisect_right(self._ends, index)
        return self._shards[shard], self._indexes[shard], index - (self._ends[shard - 1] if shard else 0)


def stream_shards(data: CaptionData) -> Iterator[str]:
    """Yield the captions of shards; images are passed over.

    Raises:
        MissingError, UsageError: As `ShardPairs`.
    """
    left = data.limit
    for path in expand(data.paths(), "shard"):
        for sample in samples(path, need_image=False):
            if left is not None and left <= 0:
                return
            left = None if left is None else left - 1
            yield from sample.captions


def samples(path: Path, need_image: bool = True) -> Iterator[Sample]:
    """Yield the samples of a shard that have a caption and, if `need_image`, an image.

    Raises:
        UsageError: As `ShardPairs`.
    """
    found = False
    try:
        with path.open("rb") as file:
            _refuse_packed(path, file.read(8))
            key = ""
            parts: dict[str, tuple[int, int]] = {}
            for member, name in _members(path, file):
                folder, slash, base = name.rpartition("/")
                own = folder + slash + base.partition(".")[0]
                if own != key:
                    sample = _sample(path, file, key, parts, need_image)
                    found = found or sample is not None
                    if sample:
                        yield sample
                    key, parts = own, {}
                suffix = "." + base.rpartition(".")[2].lower()
                kind = "image" if suffix in IMAGE_SUFFIXES else suffix
                parts.setdefault(kind, (member.offset_data, member.size))
            if sample := _sample(path, file, key, parts, need_image):
                found = True
                yield sample
    except OSError as err:
        raise UsageError(f"The shard {path} cannot be read: {err.strerror or err}.") from err
    if not found:
        raise UsageError(f"The shard {path} holds no sample with a caption.", _EXAMPLE)


def _index(path: Path) -> Index:
    """Return where the samples of a shard lie, as arrays of n samples."""
    keys, key_ends, places, hashes = bytearray(), array("q", [0]), array("q"), array("Q")
    for sample in samples(path):
        keys += sample.key.encode("utf-8", "surrogateescape")
        key_ends.append(len(keys))
        places.extend((*sample.image, *sample.text, int(sample.is_json)))
        hashes.append(key_hash(sample.key))
    return {
        "keys": np.frombuffer(bytes(keys), np.uint8),
        "key_ends": np.array(key_ends),
        "places": np.array(places).reshape(-1, 5),
        "hashes": np.array(hashes),
    }


def _members(path: Path, file: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Yield the files of a shard with their names, reading headers only."""
    length = file.seek(0, 2)
    file.seek(0)
    try:
        tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - closed with `file`
    except tarfile.TarError as err:
        raise UsageError(f"The shard {path} is not a tar file, or is cut short.", "Fetch it again.") from err
    at = 0
    while True:
        file.seek(at)
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise _cut_short(path, at)
        if not any(block):
            return
        file.seek(at)
        try:
            member = tarfile.TarInfo.fromtarfile(tar)
        except (tarfile.TarError, ValueError, ArithmeticError, LookupError) as err:
            raise UsageError(f"The shard {path} is damaged or cut short at byte {at:,}.", "Fetch it again.") from err
        if member.size < 0 or member.offset_data <= at:
            raise UsageError(f"The shard {path} is damaged at byte {at:,}.", "Fetch it again.")
        regular = member.isreg() and not member.issparse()
        at = member.offset_data + (-(-member.size // _BLOCK) * _BLOCK if member.isreg() else 0)
        if at > length:
            raise _cut_short(path, length)
        name = member.name.removeprefix("./")
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            raise UsageError(
                f"The shard {path} holds a member {member.name!r}, which would climb out of its folder.",
                "Do not use a shard from someone who writes such names.",
            )
        if regular:
            yield member, name


def _cut_short(path: Path, at: int) -> UsageError:
    return UsageError(f"The shard {path} is cut short: it ends at byte {at:,} without an end.", "Fetch it again.")


def _sample(path: Path, file: BinaryIO, key: str, parts: dict[str, tuple[int, int]], need_image: bool) -> Sample | None:
    """Return the sample that members of one key make, None when it lacks something."""
    suffix = next((suffix for suffix in TEXTS if suffix in parts), None)
    if suffix is None or (need_image and "image" not in parts):
        return None
    at, size = parts[suffix]
    if size > _LONGEST_TEXT:
        raise UsageError(f"The text of {key} in {path} has {size:,} bytes.", _EXAMPLE)
    file.seek(at)
    captions = _captions(file.read(size), suffix == ".json", f"{key} in {path}")
    if not captions:
        return None
    return Sample(key, parts.get("image", (0, 0)), (at, size), suffix == ".json", captions)


def _captions(data: bytes, is_json: bool, where: str) -> tuple[str, ...]:
    """Return the captions in a text member; a JSON object without captions is about something else."""
    try:
        text = data.decode("utf-8-sig")
        if not is_json:
            return (" ".join(text.split()),) if text.strip() else ()
        record = json.loads(text)
    except UnicodeDecodeError as err:
        raise UsageError(f"{where}: not UTF-8 text.") from err
    except (ValueError, RecursionError) as err:
        raise UsageError(f"{where}: not valid JSON.", _EXAMPLE) from err
    if isinstance(record, dict) and record.get("captions") is None and record.get("caption") is None:
        return ()
    return captions_of(record, where)


def _refuse_packed(path: Path, head: bytes) -> None:
    for magic, tool in _PACKED.items():
        if head.startswith(magic):
            raise UsageError(
                f"The shard {path} is compressed, so no sample can be read by itself.", f"Run {tool} {path}"
            )
