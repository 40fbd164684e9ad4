"""The one writer of model files: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regionclip_cli.errors import OutputError
from regionclip_cli.hub.model_card import ModelCard


def write_model(path: Path, card: ModelCard, tensors: Mapping[str, Any]) -> Path:
    """Write a model file under its final name only once all of it is on the disk.

    Args:
        path: Where it goes; missing folders are made, an older file is replaced in one step.
        card: What the file says about itself.
        tensors: {name: torch tensor}; names as in `hub.model_card`. Views and shared storage are written as copies.

    Raises:
        OutputError: The folder cannot be written or the disk is full; nothing is left behind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ready, storages = {}, set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        ready[name] = own.clone() if place in storages else own
        storages.add(place)
    with whole_file(path) as part:
        try:
            save_file(ready, part, metadata=card.metadata())
        except SafetensorError as err:
            raise OutputError(f"{path} cannot be written: {err}.", "Is there enough space on the disk?") from err
    return path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a `.part` path to write to; move it to `path` when the block ends well, remove it otherwise.

    Raises:
        OutputError: For anything the operating system refuses, with what it said.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # safetensors makes files that only their owner may read
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as err:
        hint = "Free some space and try again." if err.errno == errno.ENOSPC else ""
        raise OutputError(f"{path} cannot be written: {err.strerror or err}.", hint) from err
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
