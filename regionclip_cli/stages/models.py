"""List, download, import, export and remove models."""

from __future__ import annotations

import hashlib
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from regionclip_cli.errors import MissingError, OutputError, UsageError, did_you_mean
from regionclip_cli.files import user_path
from regionclip_cli.hub.backbones import BACKBONES
from regionclip_cli.hub.catalog import CatalogEntry, catalog
from regionclip_cli.hub.download import fetch_from_hub, fetch_url
from regionclip_cli.hub.graphs import ONNX, GraphPart, graph_path
from regionclip_cli.hub.model_card import ModelCard, read_card
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.hub.paths import cache_dir, models_dir, text_cache_dir
from regionclip_cli.hub.store import Installed, installed, place_for, resolve
from regionclip_cli.runs.progress import Progress, Silent


@dataclass(frozen=True)
class Added:
    """An imported model.

    Attributes:
        name: Its name.
        path: Its file.
        recognised: Description of the detected format.
        backbone: Name of its backbone, if it has one.
        parts: Parts that it contains.
        parameters: Number of parameters.
        licence: Licence of the weights, if known.
        hint: What to do next, if something is missing.
    """

    name: str
    path: Path
    recognised: str
    backbone: str | None
    parts: tuple[str, ...]
    parameters: int
    licence: str
    hint: str = ""


def add(
    name: str,
    file: str,
    *,
    text_from: str | None = None,
    names: str | None = None,
    model: str | None = None,
    gelu: bool = False,
    half: bool = False,
    force: bool = False,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> Added:
    """Detect the format of a weights file, convert it and store it under a name.

    Args:
        name: Name for the model.
        file: Path or http(s) URL.
        text_from: Model that provides the text encoder, for fine-tuned detectors without one.
        names: Class list of a `concept_emb` file: `@lvis`, `@coco-65` or a file. Not needed for known files.
        model: Model whose text encoder produced a `concept_emb` file. Not needed for known files.
        gelu: The CLIP weights use GELU instead of OpenAI's QuickGELU.
        half: Store large tensors as float16.
        force: Replace a model of the same name.
        sha256: Expected checksum of the file.
        progress: Receives progress and messages.

    Raises:
        MissingError: The file or a named model does not exist, or the download failed.
        OutputError: The model cannot be written.
        UsageError: The name is taken or invalid, or the file has the wrong format or checksum.
    """
    progress = progress or Silent()
    target = place_for(name, force=force)
    entry = catalog().get(name)
    text_file = resolve(text_from) if text_from else None

    def keep(path: Path) -> Added:
        if names or (entry and entry.kind == "concepts"):
            return _keep_concepts(name, path, target, entry, names, model)
        progress.note(f"Converting {path.name}.")
        return _keep_model(name, path, target, entry, text_from=text_file, gelu=gelu, half=half)

    if not file.startswith(("http://", "https://")):
        local = user_path(file)
        _check_sum(local, sha256)
        return keep(local)
    fetched = cache_dir() / "downloads" / (name + Path(file.partition("?")[0]).suffix)
    if sha256 is None:  # without a checksum, a leftover file could be from another URL
        fetched.unlink(missing_ok=True)
    fetch_url(file, fetched, progress, sha256=sha256)
    try:
        return keep(fetched)
    finally:
        fetched.unlink(missing_ok=True)


def _keep_model(name: str, path: Path, target: Path, entry: CatalogEntry | None, **options: Any) -> Added:
    """Convert and write a model; `options` are those of `training.checkpoints.convert`."""
    from regionclip_cli.conversion.convert import convert, is_model_file

    facts: dict[str, Any] = {}
    if entry is not None and not is_model_file(path):
        facts = {"licence": entry.licence, "source": entry.source, "notes": entry.summary}
    converted = convert(path, name, facts=facts, **options)
    card = converted.card
    _check_identity(card, entry)
    write_model(target, card, converted.tensors)
    hint = ""
    if card.kind == "detector" and "text" not in card.parts:
        source = entry.text_from if entry and entry.text_from else "MODEL"
        hint = f"It has no text encoder: add it again with --text-from {source}, or use it with --concepts."
    return Added(name, target, converted.kind, card.backbone, card.parts, converted.parameters, card.licence, hint)


def _keep_concepts(
    name: str, path: Path, target: Path, entry: CatalogEntry | None, names: str | None, model: str | None
) -> Added:
    """Convert and write a bare tensor of concept embeddings."""
    from torch import Tensor

    from regionclip_cli.conversion.concept_embeddings import convert_concepts
    from regionclip_cli.conversion.weights_file import read_weights
    from regionclip_cli.language.class_names import parse_classes

    names = names or (entry.names if entry else None)
    model = model or (entry.model if entry else None)
    if not names or not model:
        raise UsageError("Concept embeddings require --names and --model.", "For example: --names @lvis --model NAME.")
    content = read_weights(path)
    if not isinstance(content, Tensor):
        raise UsageError(f"{path} is a model, not a tensor of concept embeddings.", "Omit --names.")
    labels = parse_classes(names).labels
    bank = convert_concepts(content, path, labels, model, _embed_dim(model))
    bank.save(target)
    licence = entry.licence if entry else ""
    return Added(name, target, "concept embeddings", None, (f"{len(labels)} concepts",), content.numel(), licence)


def _embed_dim(model: str) -> int:
    """Return the embedding dimension D of an installed or known model.

    Raises:
        MissingError: The model is neither installed nor known.
        UsageError: The model has no text embeddings.
    """
    entry = catalog().get(model)
    here = {item.name for item in installed()}
    if entry and entry.backbone and model not in here:
        return BACKBONES[entry.backbone].embed_dim
    from regionclip_cli.conversion.clip import card_config

    return int(card_config(read_card(resolve(model)))["embed_dim"])


def _check_identity(card: ModelCard, entry: CatalogEntry | None) -> None:
    """Reject a file stored under the catalog name of a different model."""
    if entry is not None and (card.kind, card.backbone) != (entry.kind, entry.backbone):
        raise UsageError(
            f"{card.name!r} is the name of a {entry.kind} {entry.backbone or ''}".rstrip()
            + f", but the file contains a {card.kind} {card.backbone or ''}".rstrip()
            + ".",
            "Check the file, or choose another name.",
        )


def _check_sum(path: Path, sha256: str | None) -> None:
    if sha256 is None or not path.is_file():
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():
        raise UsageError(f"{path} has the SHA-256 checksum {found}, expected {sha256}.", "Download the file again.")


__all__ = [
    "Added",
    "ModelRow",
    "Pruned",
    "add",
    "export",
    "export_onnx",
    "get",
    "list_models",
    "prune",
    "remove",
    "where",
]

State = Literal["package", "here", "get", "hand", "damaged"]


@dataclass(frozen=True)
class ModelRow:
    """A row of the list of models.

    Attributes:
        name: Its name.
        kind: detector, proposals, concepts or damaged.
        state: `package` and `here` are ready to use; `get` is downloaded with `models get`; `hand` is downloaded by the
            user and imported with `models add`; `damaged` cannot be read.
        backbone: Name of its backbone, if it has one.
        licence: Licence of the weights, if known.
        size: Size of the file or the download in bytes, if known.
        path: Its file, if installed.
        summary: One-sentence description.
    """

    name: str
    kind: str
    state: State
    backbone: str | None
    licence: str
    size: int | None
    path: Path | None
    summary: str


def list_models() -> list[ModelRow]:
    """Return the installed models and those in the catalog. Reads file headers only."""
    here = {item.name: item for item in installed()}
    known = [
        _row_here(here.pop(name), entry) if name in here else _row_known(entry) for name, entry in catalog().items()
    ]
    return [*(_row_here(item, None) for item in here.values()), *known]


def where(name: str) -> Path:
    """Return the file of a model, given by name or path.

    Raises:
        MissingError: The model is not installed; the hint says how to get it.
    """
    return resolve(name)


def get(name: str, *, half: bool = False, force: bool = False, progress: Progress | None = None) -> Added | Path:
    """Download a model of the catalog, convert it and store it.

    Returns:
        The imported model, or its file if it was already installed.

    Raises:
        MissingError: The model is unknown or must be downloaded manually, or the download failed.
        OutputError: The model cannot be written.
    """
    progress = progress or Silent()
    entry = catalog().get(name)
    if entry is None:
        hint = did_you_mean(name, [known.name for known in catalog().values() if known.origin == "hub"])
        raise MissingError(f"Unknown model {name!r}.", hint or "`regionclip models ls` lists all models.")
    here = {item.name: item.path for item in installed() if item.kind != "damaged"}
    if name in here and not (force and entry.origin == "hub"):
        return here[name]
    if entry.origin != "hub" or entry.repo is None:
        raise MissingError(f"{name!r} must be downloaded manually.", entry.how_to_get)
    place_for(name, force=True)
    progress.note(f"Downloading {name} from {entry.source} (licence: {entry.licence or 'not stated'}).")
    file = fetch_from_hub(entry.repo, entry.files, progress)
    plain_gelu = entry.open_clip is not None and entry.open_clip[1] != "openai"
    return add(name, str(file), gelu=plain_gelu, half=half, force=True, progress=progress)


def export_onnx(name: str, file: Path, *, half: bool = False, force: bool = False) -> list[Path]:
    """Write a model as ONNX graphs: `NAME.onnx` and, beside it, those of proposals, regions and text.

    In the folder of the model file, the graphs refer to the weights there instead of repeating them, and `detect` finds
    them by the name of the model.

    Returns:
        The files.

    Raises:
        MissingError: The model, or the package onnx, is not installed.
        OutputError: A file already exists or cannot be written.
        UsageError: A network cannot be exported; the message names the operator.
    """
    from regionclip_cli.conversion.onnx_export import export_graphs

    path = resolve(name)
    taken = next((each for each in (graph_path(file, part) for part in get_args(GraphPart)) if each.exists()), None)
    if taken is not None and not force:
        raise OutputError(f"{taken} already exists.", "Use --force to overwrite it.")
    beside = file.absolute() == path.with_suffix(ONNX).absolute()
    return [graph.path for graph in export_graphs(path, file, half=half, share_weights=beside)]


def export(name: str, file: Path, *, half: bool = False, force: bool = False) -> int:
    """Write the open_clip state dict of a model: image tower, text tower and logit scale.

    Returns:
        Number of tensors written.

    Raises:
        MissingError: The model is not installed, or lacks a tower.
        OutputError: The file already exists or cannot be written.
    """
    from regionclip_cli.conversion.clip import export_open_clip

    if half:
        raise UsageError("--half is only available for .onnx files.")
    path = resolve(name)
    if file.exists() and not force:
        raise OutputError(f"{file} already exists.", "Use --force to overwrite it.")
    return export_open_clip(path, file)


@dataclass(frozen=True)
class CacheFile:
    """A file in the cache folder and its size in bytes."""

    path: Path
    size: int


@dataclass(frozen=True)
class Pruned:
    """Files that were deleted (or would be), and those that could not be."""

    files: tuple[CacheFile, ...]
    failed: tuple[Path, ...]


def remove(names: Sequence[str]) -> list[CacheFile]:
    """Delete installed models. Nothing is deleted if one of the names is wrong.

    Raises:
        MissingError: A model is not installed.
        OutputError: A file cannot be deleted.
        UsageError: A model is part of the package.
    """
    here = {item.name: item for item in installed()}
    for name in names:
        if name not in here:
            removable = [item.name for item in here.values() if not item.packaged]
            hint = did_you_mean(name, removable) or "`regionclip models ls` lists the installed models."
            raise MissingError(f"The model {name!r} is not installed.", hint)
        if here[name].packaged:
            raise UsageError(f"The model {name!r} is part of the package and cannot be removed.")
    removed = []
    for item in (here[name] for name in dict.fromkeys(names)):
        try:
            item.path.unlink(missing_ok=True)
        except OSError as err:
            raise OutputError(f"{item.path} cannot be deleted: {err.strerror or err}.") from err
        removed.append(CacheFile(item.path, item.size))
    return removed


def prune(*, dry_run: bool = False, min_age_s: float = 3600) -> Pruned:
    """Delete everything in the cache folder that is created again when needed: all but the models.

    Args:
        dry_run: List the files without deleting them.
        min_age_s: Keep temporary files that were changed less than this many seconds ago; another process may be
            writing them.
    """
    files, failed = [], []
    for path in _prunable(time.time() - min_age_s):
        try:
            size = path.stat().st_size
            if not dry_run:
                path.unlink()
        except FileNotFoundError:
            continue
        except OSError:
            failed.append(path)
        else:
            files.append(CacheFile(path, size))
    return Pruned(tuple(files), tuple(failed))


def _prunable(before: float) -> Iterator[Path]:
    """Yield caches, and temporary files last changed before a time in seconds since the epoch."""
    for folder in (text_cache_dir(), cache_dir() / "indexes"):
        yield from sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    temporary = [*(cache_dir() / "downloads").rglob("*"), *models_dir().glob(".*"), *models_dir().glob("tmp*")]
    for path in sorted(temporary):
        with suppress(FileNotFoundError):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) and status.st_mtime < before:
                yield path


def _row_here(item: Installed, entry: CatalogEntry | None) -> ModelRow:
    card = item.card
    state: State = "damaged" if item.kind == "damaged" else "package" if item.packaged else "here"
    summary = item.problem or (entry.summary if entry else (card.notes if card else ""))
    licence = (card.licence if card else "") or (entry.licence if entry else "")
    backbone = card.backbone if card else None
    return ModelRow(item.name, item.kind, state, backbone, licence, item.size, item.path, summary)


def _row_known(entry: CatalogEntry) -> ModelRow:
    state: State = "get" if entry.origin == "hub" else "hand" if entry.origin == "hand" else "damaged"
    size = entry.size_mb * 1_000_000 if entry.size_mb else None
    return ModelRow(entry.name, entry.kind, state, entry.backbone, entry.licence, size, None, entry.summary)
