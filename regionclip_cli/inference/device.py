"""Where to compute, and in which floating type."""

from __future__ import annotations

import torch

from regionclip_cli.errors import UsageError

DTYPES = {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16}


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of that name; `auto` is CUDA where there is one, else Apple's MPS, else the CPU.

    Raises:
        UsageError: There is no such device, or this machine does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise UsageError(f"There is no device {name!r}.", "Choose auto, cpu, cuda, cuda:1 or mps.") from err
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"The device {name!r} is not supported.", "Choose auto, cpu, cuda, cuda:1 or mps.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"This machine has no device {name}.", "`regionclip doctor` tells what it has.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("This machine has no device mps.", "`regionclip doctor` tells what it has.")
    return device


def choose_dtype(name: str = "auto") -> torch.dtype:
    """Return the floating type of the networks; `auto` is float32 everywhere, so that results do not differ by machine.

    Raises:
        UsageError: The name is none of `auto`, `fp32`, `bf16`.
    """
    if name not in DTYPES:
        raise UsageError(f"There is no number type {name!r}.", f"Choose one of {', '.join(DTYPES)}.")
    return DTYPES[name]
