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

from regionclip_cli.data.captions.pairs import key_hash
from regionclip_cli.data.region_labels.rows import REPAIR, Row, format_row, parse_row
from regionclip_cli.errors import UsageError
from regionclip_cli.hub.model_file import whole_file

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


def read_rows(folder: Path, shard: int, begins: np.ndarray, which: Sequence[int], kept: int) -> Iterator[Row]:
    """Yield rows of a shard, and read no others.

    Args:
        folder: Where it is.
        shard: Its number.
        begins: (rows + 1,) the bytes where rows begin, of its index.
        which: Numbers of rows within the shard.
        kept: Concepts k that are kept of a region.

    Raises:
        UsageError: A row is damaged, or the file cannot be read.
    """
    path = shard_path(folder, shard)
    try:
        with path.open("rb") as file:
            for at in which:
                file.seek(int(begins[at]))
                yield parse_row(file.read(int(begins[at + 1] - begins[at])), f"{path}:{at + 1}", kept)
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
    except (OSError, ValueError, EOFError):
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
