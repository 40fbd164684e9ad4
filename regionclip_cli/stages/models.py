"""Models: list what there is, fetch, add and export weights, and say where a file is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regionclip_cli.errors import MissingError, OutputError, did_you_mean
from regionclip_cli.hub.catalog import CatalogEntry, catalog
from regionclip_cli.hub.download import fetch_from_hub
from regionclip_cli.hub.store import Installed, installed, place_for, resolve
from regionclip_cli.stages.adding_models import Added, add
from regionclip_cli.stages.progress import Progress, Silent

__all__ = ["Added", "ModelRow", "add", "export", "get", "list_models", "where"]

State = Literal["package", "here", "get", "hand", "damaged"]


@dataclass(frozen=True)
class ModelRow:
    """One line of the list of models.

    Attributes:
        name: What `--model` calls it.
        kind: detector, proposals, concepts or damaged.
        state: `package` and `here` can be used now; `get` is fetched by `models get`; `hand` by a person and then
            `models add`; `damaged` cannot be read.
        backbone: Name of its backbone, where it has one.
        licence: Licence of the weights, where it is known.
        size: Bytes on this machine, or of the download where that is known.
        path: Where it is, if it is here.
        summary: One sentence.
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
    """Return the models on this machine and those that the catalog knows. Reads file headers only."""
    here = {item.name: item for item in installed()}
    known = [
        _row_here(here.pop(name), entry) if name in here else _row_known(entry) for name, entry in catalog().items()
    ]
    return [*(_row_here(item, None) for item in here.values()), *known]


def where(name: str) -> Path:
    """Return the file of a model: a name or a path.

    Raises:
        MissingError: It is not on this machine; the hint says how to get it.
    """
    return resolve(name)


def get(name: str, *, half: bool = False, force: bool = False, progress: Progress | None = None) -> Added | Path:
    """Fetch a model that the catalog knows, convert it and keep it.

    Returns:
        What was added; or the file, if it was here already.

    Raises:
        MissingError: Unknown, to be fetched by hand, or the network does not give it.
        OutputError: It cannot be kept.
    """
    progress = progress or Silent()
    entry = catalog().get(name)
    if entry is None:
        hint = did_you_mean(name, [known.name for known in catalog().values() if known.origin == "hub"])
        raise MissingError(f"No model called {name!r} is known.", hint or "`regionclip models ls` lists what there is.")
    here = {item.name: item.path for item in installed() if item.kind != "damaged"}
    if name in here and not (force and entry.origin == "hub"):
        return here[name]
    if entry.origin != "hub" or entry.repo is None:
        raise MissingError(f"{name!r} cannot be fetched by a program.", entry.how_to_get)
    place_for(name, force=True)
    progress.note(f"Fetching {name} from {entry.source} (licence: {entry.licence or 'not stated'}).")
    file = fetch_from_hub(entry.repo, entry.files, progress)
    plain_gelu = entry.open_clip is not None and entry.open_clip[1] != "openai"
    return add(name, str(file), gelu=plain_gelu, half=half, force=True, progress=progress)


def export(name: str, file: Path, *, force: bool = False) -> int:
    """Write the open_clip state dict of a model: image tower, text tower and logit scale.

    Returns:
        How many tensors were written.

    Raises:
        MissingError: The model is not here, or lacks a tower.
        OutputError: The file is there already, or cannot be written.
    """
    from regionclip_cli.training.checkpoints import export_open_clip

    path = resolve(name)
    if file.exists() and not force:
        raise OutputError(f"{file} is there already.", "--force replaces it.")
    return export_open_clip(path, file)


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
