"""Labels as training reads them: by key, in any order, from any process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from regionclip_cli.data.captions.pairs import key_hash
from regionclip_cli.data.region_labels.manifest import LabelManifest, read_manifest
from regionclip_cli.data.region_labels.rows import REPAIR, RegionLabel, Row
from regionclip_cli.data.region_labels.shards import is_there, read_index, read_rows, shard_path
from regionclip_cli.errors import MissingError


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
        return next(read_rows(self.folder, shard, self._starts[shard], [at], self.manifest.kept))

    def rows(self) -> Iterator[Row]:
        """Yield all rows in order, one in memory at a time."""
        for shard, starts in enumerate(self._starts):
            yield from read_rows(self.folder, shard, starts, range(len(starts) - 1), self.manifest.kept)
