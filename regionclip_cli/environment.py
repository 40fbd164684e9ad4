"""Facts about the machine and the installed packages, collected without importing any of them.

`regionclip doctor` shows them, and run folders record them for reproducibility.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from regionclip_cli.errors import MissingError

NEEDED = (
    "torch",
    "torchvision",
    "mmdet",
    "mmengine",
    "onnxruntime",
    "open_clip_torch",
    "timm",
    "numpy",
    "pillow",
    "safetensors",
    "huggingface-hub",
    "supervision",
    "pycocotools",
    "pydantic",
    "typer",
    "rich",
)
"""Required distributions whose version can affect results."""
MMCV = ("mmcv", "mmcv-lite")
"""Either provides the module `mmcv`; only the first has compiled operators."""


@dataclass(frozen=True)
class Machine:
    """The computer and its Python.

    Attributes:
        python: Version of the interpreter.
        executable: Path of the interpreter.
        platform: Operating system and processor.
        cores: CPU cores available to this process.
        memory_gib: Main memory in GiB, None if unknown.
    """

    python: str
    executable: str
    platform: str
    cores: int
    memory_gib: float | None


def machine() -> Machine:
    """Return facts about the computer and the interpreter."""
    return Machine(
        python=platform.python_version(),
        executable=sys.executable,
        platform=platform.platform(),
        cores=_cores(),
        memory_gib=_memory_gib(),
    )


def versions() -> dict[str, str | None]:
    """Return the installed versions of this package and its dependencies, None if missing.

    Of mmcv and mmcv-lite only the installed one is listed, or `mmcv-lite` with None if neither is.
    """
    mmcv = [name for name in MMCV if _version(name)] or [MMCV[-1]]
    return {name: _version(name) for name in ("regionclip-cli", *NEEDED, *mmcv)}


def missing() -> list[str]:
    """Return the required distributions that are not installed."""
    return [name for name, text in versions().items() if text is None and name != "regionclip-cli"]


def facts() -> dict[str, Any]:
    """Return machine and versions as one JSON-ready mapping, for run files."""
    return {"machine": asdict(machine()), "versions": versions()}


def folder_size(folder: Path) -> int:
    """Return the total size of the files below `folder` in bytes; 0 if it does not exist."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # deleted by another process
                continue
    return total


def spell_bytes(size: int) -> str:
    """Format a size with a unit.

    >>> spell_bytes(999), spell_bytes(27_400_000)
    ('999 B', '27.4 MB')
    """
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # not available on this system
        return None


def package_folder(name: str) -> Path:
    """Return the folder of an installed package, without importing it.

    Raises:
        MissingError: It is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise MissingError(f"The package {name} is not installed.", "Reinstall regionclip-cli.")
    return Path(spec.submodule_search_locations[0])
