"""Indexes of large files, kept between runs: where each row of 200 GB of shards starts is found out once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from regionclip_cli.errors import OutputError
from regionclip_cli.hub.model_file import whole_file
from regionclip_cli.hub.paths import cache_dir

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
