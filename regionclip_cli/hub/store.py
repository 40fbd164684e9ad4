"""Model files on this machine: those in the package and those that were downloaded or added."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regionclip_cli.errors import MissingError, RegionClipError, UsageError, did_you_mean
from regionclip_cli.files import user_path
from regionclip_cli.hub.catalog import catalog
from regionclip_cli.hub.model_card import METADATA_KEY, ModelCard, read_card, read_metadata
from regionclip_cli.hub.paths import models_dir

SUFFIX = ".safetensors"
PACKAGED = Path(__file__).parent / "packaged"


@dataclass(frozen=True)
class Installed:
    """A file that `--model` or `--concepts` can name.

    Attributes:
        name: Its name.
        path: Where it is.
        kind: What it serves as; `damaged` for a file that cannot be read.
        card: What it says about itself, for models.
        size: Its size in bytes.
        packaged: Whether it came with the package.
        problem: Why it cannot be used, for damaged files.
    """

    name: str
    path: Path
    kind: Literal["detector", "proposals", "concepts", "damaged"]
    size: int
    packaged: bool
    card: ModelCard | None = None
    problem: str = ""


def resolve(name_or_path: str) -> Path:
    """Return the file that a name stands for: in the package, in the cache, or a path.

    Raises:
        MissingError: Nothing of that name is here. For a known model the hint says which file it is, how to get it and
            where it goes; for others, which names are near.
    """
    folders = [PACKAGED, models_dir()] if is_name(name_or_path) else []
    for folder in folders:
        path = folder / f"{name_or_path}{SUFFIX}"
        if path.is_file():
            return path
    given = user_path(name_or_path)
    if given.is_file():
        return given
    if name_or_path in catalog():
        entry = catalog()[name_or_path]
        raise MissingError(f"The model {name_or_path!r} is not installed.", entry.how_to_get)
    if given.is_dir() and name_or_path:
        raise UsageError(f"{given} is a folder.", "Give the model file in it.")
    if os.sep in name_or_path or given.suffix:
        raise MissingError(f"The model file {given} does not exist.", _near(name_or_path))
    raise MissingError(f"Unknown model {name_or_path!r}.", _near(name_or_path))


def installed() -> list[Installed]:
    """Return what is on this machine: the models in the package, then the others by name. Reads headers only."""
    found = []
    for folder, packaged in ((PACKAGED, True), (models_dir(), False)):
        paths = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
        found += [_describe(path, packaged) for path in paths if path.is_file() and not path.name.startswith(".")]
    return found


def is_name(text: str) -> bool:
    """Tell whether a text can be a model's name: letters, digits, `.`, `_` and `-`, not beginning with one of those."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text) is not None and not text.endswith(SUFFIX)


def place_for(name: str, *, force: bool) -> Path:
    """Return where a new model of this name goes.

    Raises:
        UsageError: The name is not valid, is the packaged model's, or is taken and `force` was not given.
    """
    if not is_name(name):
        raise UsageError(
            f"{name!r} is not a valid model name.",
            "Use letters, digits, `.`, `_` and `-`; start with a letter or digit and omit .safetensors.",
        )
    if (PACKAGED / f"{name}{SUFFIX}").exists() or (name in catalog() and catalog()[name].origin == "package"):
        raise UsageError(f"{name!r} is the name of the included model.", "Choose another name.")
    path = models_dir() / f"{name}{SUFFIX}"
    if path.exists() and not force:
        raise UsageError(f"The model {name!r} already exists: {path}.", "Use --force to overwrite it.")
    return path


def _describe(path: Path, packaged: bool) -> Installed:
    name, size = path.name.removesuffix(SUFFIX), path.stat().st_size
    try:
        metadata = read_metadata(path)
        if METADATA_KEY not in metadata and "names" in metadata:
            return Installed(name, path, "concepts", size, packaged)
        card = read_card(path)
    except RegionClipError as err:
        return Installed(name, path, "damaged", size, packaged, problem=err.message)
    return Installed(name, path, card.kind, size, packaged, card)


def _near(name: str) -> str:
    known = {*catalog(), *(item.name for item in installed())}
    return did_you_mean(name, sorted(known)) or "`regionclip models ls` lists all models."
