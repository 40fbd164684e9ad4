"""Names in a recipe that stand for something else: models, forms of data. Looked up without importing any of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from regionclip_cli.errors import did_you_mean
from regionclip_cli.recipe.errors import Key
from regionclip_cli.recipe.schema import Recipe

CAPTION_FORMS = ("jsonl", "coco-captions", "tsv", "webdataset", "text", "scenes")
OTHER_FORMATS = ("voc", "yolo", "cvat", "label-studio", "openimages")
DETECTION_FORMS = ("coco", "lvis", *OTHER_FORMATS, "scenes")


def unknown_names(recipe: Recipe) -> Iterator[tuple[Key, str]]:
    """Yield the keys of names that stand for nothing, each with a sentence.

    Files are not looked for: another stage, or another machine, may make them.
    """
    from regionclip_cli import plugins

    forms = plugins.names("datasets")
    for key, name in _models(recipe):
        yield from _unless_known(key, name, _known_models(), "model", "`regionclip models ls` lists them.")
    many = not hasattr(recipe.data.captions, "dataset")
    for index, source in enumerate(recipe.data.caption_sources()):
        way: Key = ("data", "captions", *([index] if many else []), "dataset")
        yield from _unless_known(way, source.dataset, (*CAPTION_FORMS, *forms), "form of captions")
    sets = {("data", "train"): recipe.data.train, ("data", "val"): recipe.data.val}
    sets |= {("evaluate", str(index)): item for index, item in enumerate(recipe.evaluate)}
    for place, data in sets.items():
        if data is not None:
            key = tuple(int(part) if part.isdecimal() else part for part in (*place, "dataset"))
            yield from _unless_known(key, data.dataset, (*DETECTION_FORMS, *forms), "form of annotations")


def _models(recipe: Recipe) -> Iterator[tuple[Key, str | None]]:
    """Yield every setting that names a model."""
    for field in ("start", "teacher", "proposals"):
        yield ("model", field), getattr(recipe.model, field)
    if recipe.finetune is not None:
        yield ("finetune", "model"), recipe.finetune.model
    for index, item in enumerate(recipe.evaluate):
        yield ("evaluate", index, "model"), item.model
        yield ("evaluate", index, "proposals_from"), item.proposals_from


def _known_models() -> list[str]:
    from regionclip_cli.hub.catalog import catalog
    from regionclip_cli.hub.paths import models_dir

    folder = models_dir()
    added = sorted(file.stem for file in folder.glob("*.safetensors")) if folder.is_dir() else []
    return [*catalog(), *added]


def _unless_known(
    key: Key, name: str | None, known: Iterable[str], what: str, where: str = ""
) -> Iterator[tuple[Key, str]]:
    names = list(known)
    if not name or name in names or "/" in name or "\\" in name or "." in name[1:]:
        return
    hint = did_you_mean(name, names) or where or f"There are {', '.join(names)}."
    yield key, f"There is no {what} called {name!r}. {hint}"
