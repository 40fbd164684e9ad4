"""Shards: written to `.part` files and renamed when whole; found to be whole or not without reading them.

A shard's index is an array of (hash of the key, byte where the row begins, whether the image failed), a row an image,
and a last entry that holds the size of the shard. It is written before the shard takes its name, so every shard that
has its name has an index; one that was lost is made again by reading.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from regionclip_cli.data.captions.base import key_hash
from regionclip_cli.data.region_labels.format import (
    REPAIR,
    LabelManifest,
    RegionLabel,
    Row,
    format_row,
    parse_row,
    read_manifest,
)
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.files import whole_file

ENTRY = np.dtype([("hash", "<u8"), ("start", "<i8"), ("failed", "?")])


def shard_path(folder: Path, shard: int) -> Path:
    """Return where a shard is kept."""
    return folder / f"labels-{shard:05d}.jsonl"


def index_path(folder: Path, shard: int) -> Path:
    """Return where the index of a shard is kept."""
    return folder / f"labels-{shard:05d}.index.npy"


class ShardWriter:
    """Takes the rows of one shard in order; made by `writing_shard`."""

    def __init__(self, part: Path) -> None:
        self._file = part.open("wb")
        self._entries: list[tuple[int, int, bool]] = []
        self._size = 0

    def add(self, row: Row) -> None:
        """Write a row.

        Raises:
            OSError: The disk refuses; `writing_shard` makes a sentence of it.
        """
        line = format_row(row)
        self._entries.append((key_hash(row.key), self._size, row.label is None))
        self._file.write(line)
        self._size += len(line)

    def close(self) -> np.ndarray:
        """End the file and return its index."""
        self._file.close()
        return np.array([*self._entries, (0, self._size, False)], ENTRY)

    def abandon(self) -> None:
        """Let go of the file, whatever state it is in."""
        with contextlib.suppress(OSError):
            self._file.close()


@contextlib.contextmanager
def writing_shard(folder: Path, shard: int) -> Iterator[ShardWriter]:
    """Yield a writer; shard and index take their names when the block ends well, else nothing is left of them.

    Raises:
        OutputError: The disk refuses.
    """
    with whole_file(shard_path(folder, shard)) as part:
        writer = ShardWriter(part)
        try:
            yield writer
            index = writer.close()
        finally:
            writer.abandon()
        with whole_file(index_path(folder, shard)) as index_part, index_part.open("wb") as file:
            np.save(file, index)


def remove_parts(folder: Path, shard: int) -> None:
    """Remove what killed runs left of a shard that was not whole yet."""
    for path in (shard_path(folder, shard), index_path(folder, shard)):
        for part in folder.glob(f".{path.name}.*.part"):
            with contextlib.suppress(OSError):
                part.unlink()


def is_there(folder: Path, shard: int) -> bool:
    """Say whether a shard has its name, be it whole or damaged since."""
    return shard_path(folder, shard).exists()


def read_rows(
    folder: Path, shard: int, begins: np.ndarray, which: Sequence[int], kept: int, names: int | None = None
) -> Iterator[Row]:
    """Yield rows of a shard, and read no others.

    Args:
        folder: Where it is.
        shard: Its number.
        begins: (rows + 1,) the bytes where rows begin, of its index.
        which: Numbers of rows within the shard.
        kept: Concepts k that are kept of a region.
        names: Number C of concepts, where ids are to be checked.

    Raises:
        UsageError: A row is damaged, or the file cannot be read.
    """
    path = shard_path(folder, shard)
    try:
        with path.open("rb") as file:
            for at in which:
                file.seek(int(begins[at]))
                yield parse_row(file.read(int(begins[at + 1] - begins[at])), f"{path}:{at + 1}", kept, names)
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror or err}.", REPAIR) from err


def is_whole(folder: Path, shard: int, rows: int) -> bool:
    """Say whether a shard is there with all its rows."""
    try:
        read_index(folder, shard, rows)
    except UsageError:
        return False
    return True


def read_index(folder: Path, shard: int, rows: int) -> np.ndarray:
    """Return the index (rows + 1,) of a shard, see `ENTRY`; only its size is compared with the shard.

    Raises:
        UsageError: The shard is missing, cut short, or not of so many rows.
    """
    path = shard_path(folder, shard)
    try:
        size = path.stat().st_size
    except OSError as err:
        raise UsageError(f"The shard {path} is not there.", REPAIR) from err
    index = _load(index_path(folder, shard))
    if index is None or index[-1]["start"] != size:
        index = _made_by_reading(path)
    if len(index) - 1 != rows:
        raise UsageError(f"The shard {path} is cut short: it has {len(index) - 1} of {rows} rows.", REPAIR)
    return index


def _load(path: Path) -> np.ndarray | None:
    """Return an index file's array, or None when it is missing or damaged."""
    try:
        with path.open("rb") as file:
            index = np.load(file, allow_pickle=False)
    except Exception:  # noqa: BLE001 - numpy evaluates the header of the file: a damaged one may raise anything
        return None
    return index if isinstance(index, np.ndarray) and index.dtype == ENTRY and len(index) else None


def _made_by_reading(path: Path) -> np.ndarray:
    """Return the index of a shard that lost its own; a last row without its end does not count."""
    entries: list[tuple[int, int, bool]] = []
    size = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                entries.append((key_hash(row["key"]), size, "error" in row))
            except (ValueError, KeyError, TypeError, AttributeError) as err:
                raise UsageError(f"Row {len(entries) + 1} of the shard {path} is damaged: {err}.", REPAIR) from err
            size += len(line)
    return np.array([*entries, (0, size, False)], ENTRY)


class RegionLabels:
    """The labels of a folder. Memory holds 24 bytes an image and no label; a copy may be sent to other processes.

    Args:
        folder: Where they are.
        manifest: What they are of.
        indexes: Of every shard, as `read_index` returns them.
    """

    def __init__(self, folder: Path, manifest: LabelManifest, indexes: list[np.ndarray]) -> None:
        self.folder = folder
        self.manifest = manifest
        self._starts = [np.ascontiguousarray(index["start"]) for index in indexes]
        hashes = np.concatenate([index["hash"][:-1] for index in indexes]) if indexes else np.zeros(0, "<u8")
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    @classmethod
    def open(cls, folder: str | Path) -> RegionLabels:
        """Open the labels of a folder, all shards of which must be whole.

        Raises:
            MissingError: There are no labels, or not all of them yet.
            UsageError: A shard is cut short.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        missing = [shard for shard in range(manifest.shards) if not is_there(folder, shard)]
        if missing:
            raise MissingError(
                f"{len(missing)} of {manifest.shards} shards are not in {folder} yet, the first is "
                f"{shard_path(folder, missing[0]).name}.",
                REPAIR,
            )
        sizes = [len(manifest.rows_of(shard)) for shard in range(manifest.shards)]
        return cls(folder, manifest, [read_index(folder, shard, rows) for shard, rows in enumerate(sizes)])

    def __len__(self) -> int:
        """Return the number of images, unreadable ones included."""
        return self.manifest.images

    def get(self, key: str) -> RegionLabel | None:
        """Return the regions of an image, or None where the key is unknown or the image could not be read.

        Raises:
            UsageError: Its row is damaged.
        """
        wanted = np.uint64(key_hash(key))
        place = int(np.searchsorted(self._hashes, wanted))
        while place < len(self._hashes) and self._hashes[place] == wanted:
            row = self.row(int(self._order[place]))
            if row.key == key:
                return row.label
            place += 1
        return None

    def row(self, number: int) -> Row:
        """Return the row of an image by its number, in the order of the captions.

        Raises:
            UsageError: It is damaged.
        """
        shard, at = divmod(number, self.manifest.shard_size)
        return next(
            read_rows(self.folder, shard, self._starts[shard], [at], self.manifest.kept, len(self.manifest.names))
        )

    def rows(self) -> Iterator[Row]:
        """Yield all rows in order, one in memory at a time."""
        for shard, starts in enumerate(self._starts):
            yield from read_rows(
                self.folder, shard, starts, range(len(starts) - 1), self.manifest.kept, len(self.manifest.names)
            )
