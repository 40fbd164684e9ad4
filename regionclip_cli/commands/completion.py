"""Shell completion of values: models, output formats, class lists, recipes and their settings.

Each function takes what has been typed of the value and returns the candidates; an empty list makes the shell complete
file names. They run on every press of the Tab key, so they import little and open no model file.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager, redirect_stdout

import typer

BASH_VARIABLE = "_REGIONCLIP_COMPLETE"
"""Environment variable in which the shell requests completion."""


@contextmanager
def bash_words(environment: MutableMapping[str, str]) -> Iterator[None]:
    """Let bash complete words that contain `@`, at which it splits the command line.

    The parts in `COMP_WORDS` are joined, so that `cat,@co` is one word again, and the candidates printed within the
    block lose what bash keeps, here `cat,@`.

    Args:
        environment: The process environment, changed in place.
    """
    if environment.get(BASH_VARIABLE) != "complete_bash" or "@" not in environment.get("COMP_WORDS", ""):
        yield
        return
    _rejoin(environment)
    words = environment["COMP_WORDS"].split(" ")
    typed = words[min(int(environment["COMP_CWORD"]), len(words) - 1)]
    kept = typed[: typed.rfind("@") + 1]
    with redirect_stdout(io.StringIO()) as output:
        yield
    sys.stdout.write("".join(line.removeprefix(kept) for line in output.getvalue().splitlines(keepends=True)))


def _rejoin(environment: MutableMapping[str, str]) -> None:
    """Join the words of `COMP_WORDS` that were split at `@`."""
    words: list[str] = []
    position = cursor = int(environment["COMP_CWORD"])
    previous = ""
    for index, word in enumerate(environment["COMP_WORDS"].split(" ")):
        joins = previous.endswith("@") or (word == "@" and previous.endswith(","))
        if joins:
            words[-1] += word
            position -= index <= cursor
        else:
            words.append(word)
        previous = word
    environment["COMP_WORDS"] = " ".join(words)
    environment["COMP_CWORD"] = str(position)


def installed_models(incomplete: str) -> list[str]:
    """Return the names of model files on this machine."""
    from regionclip_cli.hub.paths import models_dir
    from regionclip_cli.hub.store import PACKAGED, SUFFIX

    found = [
        file.name.removesuffix(SUFFIX) for folder in (PACKAGED, models_dir()) for file in folder.glob(f"*{SUFFIX}")
    ]
    return _matching(found, incomplete)


def removable_models(incomplete: str) -> list[str]:
    """Return the names of model files in the cache folder."""
    from regionclip_cli.hub.paths import models_dir
    from regionclip_cli.hub.store import SUFFIX

    return _matching((file.name.removesuffix(SUFFIX) for file in models_dir().glob(f"*{SUFFIX}")), incomplete)


def downloadable_models(incomplete: str) -> list[str]:
    """Return the names of models that `models get` can download."""
    from regionclip_cli.hub.catalog import catalog

    return _matching((entry.name for entry in catalog().values() if entry.origin == "hub"), incomplete)


def known_models(incomplete: str) -> list[str]:
    """Return the names of all models in the catalog."""
    from regionclip_cli.hub.catalog import catalog

    return _matching(catalog(), incomplete)


def formats(incomplete: str) -> list[str]:
    """Complete the last item of a comma-separated list of output formats."""
    from regionclip_cli import plugins

    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in _matching(plugins.names("writers"), last) if name not in taken]


def label_formats(incomplete: str) -> list[str]:
    """Complete the last item of a comma-separated list of label exports."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _matching(("coco", "html"), last)]


def class_lists(incomplete: str) -> list[str]:
    """Complete the last item of a list of classes, where it is empty or begins with `@`."""
    before, comma, last = incomplete.rpartition(",")
    if last and not last.startswith("@"):
        return []
    from regionclip_cli.language.vocabularies import NAMES

    return [f"{before}{comma}@{name}" for name in NAMES if f"@{name}".startswith(last)]


def splits(incomplete: str) -> list[str]:
    """Return the names of the built-in class splits."""
    from regionclip_cli.data.splits import SPLITS

    return _matching(SPLITS, incomplete)


def datasets(incomplete: str) -> list[str]:
    """Return the names of annotation formats."""
    from regionclip_cli import plugins
    from regionclip_cli.recipe.known_names import DETECTION_FORMS

    return _matching((*DETECTION_FORMS, *plugins.names("datasets")), incomplete)


def box_sources(incomplete: str) -> list[str]:
    """Return the values of `evaluate --boxes` that are not files."""
    return _matching(("ground-truth", "proposals"), incomplete)


def devices(incomplete: str) -> list[str]:
    """Return the usual device names."""
    return _matching(("auto", "cpu", "cuda", "mps"), incomplete)


def recipes(incomplete: str) -> list[str]:
    """Return the names of the included recipes."""
    from regionclip_cli.recipe.library import packaged

    return _matching(packaged(), incomplete)


def settings(incomplete: str) -> list[str]:
    """Return the keys of recipe settings; items of lists have the index 0."""
    from regionclip_cli.recipe.reference import rows

    return _matching((row.key.replace(".N.", ".0.") for row in rows()), incomplete)


def overrides(incomplete: str) -> list[str]:
    """Return the keys of recipe settings, each followed by `=`."""
    return [] if "=" in incomplete else [f"{key}=" for key in settings(incomplete)]


def recipe_then_overrides(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the arguments of `concepts`: a recipe, then overrides; with `--captions`, file names."""
    if context.params.get("captions"):
        return []
    return overrides(incomplete) if context.params.get("words") else recipes(incomplete)


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
