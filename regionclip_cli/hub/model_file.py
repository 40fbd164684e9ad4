"""Writes model files, whole or not at all, and the same bytes for the same contents."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regionclip_cli.errors import OutputError
from regionclip_cli.files import whole_file
from regionclip_cli.hub.model_card import ModelCard


def write_model(path: Path, card: ModelCard, tensors: Mapping[str, Any]) -> Path:
    """Write a model file under its final name only once all of it is on the disk.

    Args:
        path: Where it goes; missing folders are made, an older file is replaced in one step.
        card: The description that the file carries.
        tensors: {name: torch tensor}; names as in `hub.model_card`. Views and shared storage are written as copies.

    Raises:
        OutputError: The folder cannot be written or the disk is full; nothing is left behind.
    """
    ready, storages = {}, set()
    for name, tensor in tensors.items():
        copied = tensor.detach().cpu().contiguous()
        pointer = copied.untyped_storage().data_ptr()
        ready[name] = copied.clone() if pointer in storages else copied
        storages.add(pointer)
    write_tensors(path, ready, card.metadata())
    return path


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with sorted metadata: `save_file` orders them differently each time.

    Raises:
        OutputError: The folder cannot be written or the disk is full; nothing is left behind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with whole_file(path) as part:
        try:
            save_file(dict(tensors), part, metadata=dict(metadata))
        except SafetensorError as err:
            raise OutputError(f"Cannot write {path}: {err}.", "Check the free disk space.") from err
        with part.open("r+b") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(length))
            ordered = header | {"__metadata__": dict(sorted(metadata.items()))}
            text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
            file.seek(8)
            file.write(text.ljust(length))  # the format pads headers with spaces
