"""Open a weights file without running anything that is inside it.

A `.pth` is a pickle, and a pickle is a program. torch's `weights_only` reader knows tensors, numbers, strings and
containers of them and nothing else, so whatever needs more than that is refused here with a sentence.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from regionclip_cli.errors import MissingError, UsageError

Tensors = dict[str, Tensor]

_BROKEN = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
)


def read_weights(path: Path) -> Tensor | Tensors:
    """Return what a weights file holds: one bare tensor, or a flat {name: tensor} without any wrapping.

    Wrappers `{"model": ...}` and `{"state_dict": ...}` and a `module.` before every name are taken off. Tensors of zip
    files and safetensors stay on the disk until they are used.

    Raises:
        MissingError: There is no such file.
        UsageError: It is empty, damaged, a program rather than weights, or holds no tensors.
    """
    if not path.exists():
        raise MissingError(f"The file {path} does not exist.")
    if not path.is_file():
        raise UsageError(f"{path} is not a file.", "Give the path of the weights file.")
    try:
        if path.stat().st_size == 0:
            raise UsageError(f"{path} is empty.", "Download it again.")
        if path.suffix == ".safetensors":
            return _named(load_file(path), path)
        return _unwrap(_read_pickle(path), path)
    except SafetensorError as err:
        raise UsageError(f"{path} is damaged or is not a safetensors file: {err}.", "Download it again.") from err
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror or err}.") from err


def _read_pickle(path: Path) -> Any:
    in_zip = zipfile.is_zipfile(path)
    if in_zip:
        _refuse_torchscript(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=in_zip)
    except pickle.UnpicklingError as err:
        raise _refusal(path, str(err)) from err
    except _BROKEN as err:
        raise UsageError(
            f"{path} is damaged or is not a PyTorch checkpoint.", "Check its size, or download it again."
        ) from err


def _refusal(path: Path, reason: str) -> UsageError:
    """Say why a pickle was not read: it wants code, or it is garbage."""
    if path.suffix == ".pkl":
        return UsageError(
            f"{path} is a plain pickle, which can execute code when loaded, and is rejected.",
            "For detectron2 model zoo files, load the model in detectron2 and save "
            "torch.save({'model': model.state_dict()}, 'weights.pth').",
        )
    wanted = re.search(r"(?:GLOBAL|class|Unsupported global:)\s+([\w.]+\.[\w.]+)", reason)
    what = f" ({wanted.group(1)})" if wanted else ""
    return UsageError(
        f"{path} contains more than tensors{what}; loading it could execute code, and it is rejected.",
        "If you trust it, load it in the program that wrote it and save only the weights: "
        "torch.save({'model': model.state_dict()}, 'weights.pth').",
    )


def _refuse_torchscript(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _BROKEN as err:
        raise UsageError(f"{path} is damaged or is not a PyTorch checkpoint.", "Download it again.") from err
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise UsageError(
            f"{path} is a TorchScript program, like OpenAI's CLIP files, and loading it can execute code.",
            "`regionclip models get clip-rn50` downloads the same weights as plain tensors; "
            "`regionclip models ls` lists the others.",
        )


def _unwrap(content: Any, path: Path) -> Tensor | Tensors:
    if isinstance(content, Tensor):
        return content
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} contains a {type(content).__name__}, not weights.")
    for key in ("model", "state_dict"):
        inner = content.get(key)
        if isinstance(inner, Mapping):
            return _named(inner, path)
    return _named(content, path)


def _named(content: Mapping[Any, Any], path: Path) -> Tensors:
    """Return the tensors by name; other entries are not weights and are refused, none at all as well."""
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if not tensors:
        found = f"it has {', '.join(sorted(others)[:5])}" if others else "it is an empty dict"
        raise UsageError(f"{path} contains no tensors: {found}.", "Check that it is a weights file.")
    if others:
        raise UsageError(
            f"{path} mixes tensors with {len(others)} other entries ({', '.join(sorted(others)[:5])}).",
            "Save the state dict alone.",
        )
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors
