"""The class lists that travel with the package: `@coco`, its open-vocabulary parts, and `@lvis`.

The files beside this one hold the names as COCO and LVIS write them; see the README there for sources and licences.

LVIS names are made for files (`bow_(weapon)`), so they become words in two ways:

* a *label*, which people read, loses the qualifier in brackets wherever the bare name stays unique among the 1,203
  (`bus_(vehicle)` is shown as `bus`), and keeps it where it does not (`bow (weapon)`, `bow (decorative ribbons)`);
* a *phrase*, which the text encoder reads, always keeps the qualifier, because it is what tells a bat that flies from
  one that hits. One that opens with a preposition simply follows (`saddle on an animal`); any other stays in brackets
  (`bat (animal)`), since plain words would change the meaning: `fish (food)` is not "fish food".
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import resources

NAMES = ("coco", "coco-base", "coco-novel", "coco-65", "lvis")

# The parts of the COCO split that each name takes; "rest" are the 15 classes outside the split.
_COCO_PARTS = {
    "coco": ("base", "novel", "rest"),
    "coco-base": ("base",),
    "coco-novel": ("novel",),
    "coco-65": ("base", "novel"),
}
_QUALIFIER = re.compile(r"\s*\((?P<words>[^)]*)\)")
_PREPOSITION = re.compile(r"(for|on|at|part of|tool for) ")
_MISSPELT = {"stero equipment": "stereo equipment"}


@functools.cache
def classes(name: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return (label, phrases) for each class of a built-in list, in the order of the data set's ids.

    Args:
        name: One of `NAMES`, without the `@`.

    Raises:
        KeyError: There is no list of that name.
    """
    if name == "lvis":
        return _lvis()
    parts = _COCO_PARTS[name]
    return tuple((label, (label,)) for _, part, label in _rows("coco") if part in parts)


@functools.cache
def lvis_frequencies() -> tuple[str, ...]:
    """Return the frequency group of each LVIS class in label order: r (rare), c (common) or f (frequent)."""
    return tuple(frequency for _, frequency, _ in _rows("lvis"))


@functools.cache
def lvis_labels() -> Mapping[str, str]:
    """Return the label of each LVIS class by its name as LVIS writes it: {"bus_(vehicle)": "bus", ...}."""
    return {row[2].partition("|")[0]: label for row, (label, _) in zip(_rows("lvis"), _lvis(), strict=True)}


def _lvis() -> tuple[tuple[str, tuple[str, ...]], ...]:
    names = [_lvis_names(cell) for _, _, cell in _rows("lvis")]
    bare = [_QUALIFIER.sub("", first) for first, *_ in names]
    times = Counter(label.casefold() for label in bare)
    labels = [label if times[label.casefold()] == 1 else own[0] for label, own in zip(bare, names, strict=True)]
    return tuple(
        (label, distinct(_QUALIFIER.sub(_rephrase, name) for name in own))
        for label, own in zip(labels, names, strict=True)
    )


def _lvis_names(cell: str) -> list[str]:
    """Return the names of one LVIS row as words; a bracket followed by more words ends one name and opens the next."""
    return [name.strip() for part in cell.replace("_", " ").split("|") for name in re.split(r"(?<=\)) +", part)]


def distinct(words: Iterable[str]) -> tuple[str, ...]:
    """Return the words without those that differ from an earlier one in capitals alone."""
    first: dict[str, str] = {}
    for word in words:
        first.setdefault(word.casefold(), word)
    return tuple(first.values())


def _rephrase(match: re.Match[str]) -> str:
    """Turn the qualifier of a name into words that follow it."""
    words = _MISSPELT.get(match["words"], match["words"])
    return f" {words}" if _PREPOSITION.match(words) else f" ({words})"


def _rows(name: str) -> list[list[str]]:
    """Return the cells of each row of `name`.tsv, comments left out."""
    text = (resources.files(__package__) / f"{name}.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
