"""Text embeddings kept on disk: one small SQLite file that any number of processes may use at once.

A cache may never be the reason that something fails. A file that is damaged is replaced, a folder that cannot be
written is read or done without, a row whose checksum is wrong counts as absent; each costs one warning in the log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from regionclip_cli.hub.paths import text_cache_dir

FILE = "embeddings-1.sqlite3"
_TABLE = """CREATE TABLE IF NOT EXISTS embeddings (
    encoder TEXT NOT NULL, phrase TEXT NOT NULL, vector BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (encoder, phrase))"""
_AT_ONCE = 500
_PATIENCE_S = 30.0

_log = logging.getLogger(__name__)


class TextCache:
    """Embeddings by (encoder, phrase); `encoder` names the weights, the templates and the precision.

    Args:
        folder: Where the file lies; by default the cache folder of the moment of each call.
        max_bytes: When the file holds more, the oldest quarter of its rows gives way.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = 512 * 2**20) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._warned = False

    @property
    def path(self) -> Path:
        """Return where the file lies."""
        return (self._folder or text_cache_dir()) / FILE

    def get(self, encoder: str, phrases: Sequence[str]) -> dict[str, np.ndarray]:
        """Return {phrase: embedding (D,) float32} for those of `phrases` that are stored."""
        found: dict[str, np.ndarray] = {}

        def read(database: sqlite3.Connection) -> None:
            for start in range(0, len(phrases), _AT_ONCE):
                some = phrases[start : start + _AT_ONCE]
                marks = ", ".join("?" * len(some))
                query = f"SELECT phrase, vector, checksum FROM embeddings WHERE encoder = ? AND phrase IN ({marks})"
                for phrase, vector, checksum in database.execute(query, (encoder, *some)):
                    if isinstance(vector, bytes) and len(vector) % 4 == 0 and zlib.crc32(vector) == checksum:
                        found[phrase] = np.frombuffer(vector, dtype="<f4").astype(np.float32)

        self._run(read, write=False)
        return found

    def put(self, encoder: str, embeddings: Mapping[str, np.ndarray]) -> None:
        """Store {phrase: embedding (D,)}, all of them or, where the folder cannot be written, none."""
        rows = []
        for phrase, embedding in embeddings.items():
            vector = np.asarray(embedding).astype("<f4").tobytes()
            rows.append((encoder, phrase, vector, zlib.crc32(vector)))

        def store(database: sqlite3.Connection) -> None:
            with database:
                database.execute("BEGIN IMMEDIATE")
                database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?)", rows)
                self._shrink(database)

        self._run(store, write=True)

    def clear(self) -> None:
        """Forget everything that is stored."""

        def empty(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM embeddings")
            database.execute("VACUUM")

        self._run(empty, write=True)

    def _shrink(self, database: sqlite3.Connection) -> None:
        pages, free, size = (
            database.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size > self._max_bytes:
            oldest = "SELECT rowid FROM embeddings ORDER BY rowid LIMIT (SELECT (count(*) + 3) / 4 FROM embeddings)"
            database.execute(f"DELETE FROM embeddings WHERE rowid IN ({oldest})")

    def _run(self, action: Callable[[sqlite3.Connection], None], write: bool) -> None:
        """Open the file, do `action` with it and close it; whatever is wrong with the file or its folder ends here."""
        path, opened = self.path, None
        try:
            opened = _identity(path)
            if write:
                path.parent.mkdir(parents=True, exist_ok=True)
            elif opened is None:
                return
            uri = f"{path.absolute().as_uri()}?mode={'rwc' if write else 'rw'}"
            connect = sqlite3.connect(uri, uri=True, timeout=_PATIENCE_S, isolation_level=None)
            with contextlib.closing(connect) as database:
                if write:
                    database.execute(_TABLE)
                if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'embeddings'").fetchone():
                    action(database)
        except sqlite3.DatabaseError as err:
            if getattr(err, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                self._warn(f"The text cache {path} is damaged and starts anew: {err}.")
                _discard(path, opened)
            elif isinstance(err, sqlite3.OperationalError):
                self._warn(f"The text cache {path} cannot be {'written' if write else 'read'}: {err}.")
            else:
                raise
        except OSError as err:
            self._warn(f"The text cache {path} cannot be used: {err.strerror or err}.")

    def _warn(self, message: str) -> None:
        _log.log(logging.DEBUG if self._warned else logging.WARNING, message)
        self._warned = True


def _identity(path: Path) -> int | None:
    """Return what tells this file from one that later takes its name; None where there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _discard(path: Path, damaged: int | None) -> None:
    """Remove a damaged file, unless another process has put a new one in its place."""
    with contextlib.suppress(OSError):
        if _identity(path) == damaged:
            for name in (f"{path}-journal", path):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(name)
