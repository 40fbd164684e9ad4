"""Which classes a detector has learnt from boxes (base) and which it knows by name only (novel).

RegionCLIP section 4.1: on COCO 48 base and 17 novel classes (the split of OVR-CNN; 15 classes are in neither), on LVIS
the 866 frequent and common classes against the 337 rare ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regionclip_cli.data.detection_sets.class_names import folded, match_classes, perhaps, respelt
from regionclip_cli.errors import MissingError, UsageError, did_you_mean
from regionclip_cli.files import user_path
from regionclip_cli.language import vocabularies
from regionclip_cli.language.class_names import parse_classes

SPLITS: Mapping[str, str] = {
    "coco-48-17": "COCO: 48 base and 17 novel classes; 15 are in neither.",
    "lvis-rare": "LVIS v1: 866 frequent and common classes are base, 337 rare ones novel.",
}
"""The splits in the package, each with a sentence."""

_FORM = "A split file is YAML or JSON with two lists: {base: [cat, car], novel: [kettle]}."


@dataclass(frozen=True)
class Split:
    """Base and novel classes, in the words and the order of the set that they are part of.

    Attributes:
        base: Classes that a detector learns from boxes.
        novel: Classes that it is only told by name.
        groups: More groups to report, by name; LVIS has r, c and f.
    """

    base: tuple[str, ...]
    novel: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def all(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Return base and novel classes together, in the order of the set's classes."""
        members = {*self.base, *self.novel}
        return tuple(name for name in classes if name in members)


def read_split(name_or_file: str | Path, classes: Sequence[str]) -> Split:
    """Return a split of the classes of a set.

    A split in the package takes the part of it that the set has, so that `coco-48-17` also fits a file that was cut
    to the base classes. A file must name classes of the set.

    Args:
        name_or_file: A name of `SPLITS`, or a YAML or JSON file with `base` and `novel`: lists of names, or what
            `--classes` takes (`@coco-base`). `groups: {name: [...]}` may follow.
        classes: The classes of the set.

    Raises:
        MissingError: There is no such file.
        UsageError: The name or a class is unknown (the hint tells the nearest ones), a class is both base and novel,
            the set has none of the classes, or the file is of another form.
    """
    if str(name_or_file) in SPLITS:
        return _built_in(str(name_or_file), classes)
    path = user_path(name_or_file)
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        near = did_you_mean(str(name_or_file), SPLITS) or f"There are {', '.join(SPLITS)}, and files (.yaml, .json)."
        raise UsageError(f"There is no split {str(name_or_file)!r}.", near)
    content = _read(path)
    parts = {key: _names(path, key, content.get(key), classes) for key in ("base", "novel")}
    if not parts["base"] and not parts["novel"]:
        raise UsageError(f"The split {path} names no class.", _FORM)
    both = [name for name in parts["base"] if name in parts["novel"]]
    if both:
        raise UsageError(f"The split {path} has {both[0]!r} in base and in novel.", "Take it out of one of them.")
    groups = content.get("groups", {})
    if not isinstance(groups, dict):
        raise UsageError(f"The split {path}: `groups` is no mapping of names to lists.", _FORM)
    return Split(**parts, groups={str(key): _names(path, str(key), names, classes) for key, names in groups.items()})


def split_labels(name: str) -> tuple[str, ...]:
    """Return all classes of a split in the package, base and novel, whichever of them a set has."""
    known = tuple(label for label, _ in vocabularies.classes(name.partition("-")[0]))
    return _built_in(name, known).all(known)


def left_out_of(split: str, classes: Sequence[str], where: str) -> str:
    """Return a sentence on the classes of a split in the package that a set lacks; empty where it has all of them.

    A set may have been cut to some of them, and a misspelt class looks the same: names that are near are told.

    Args:
        split: A name of `SPLITS`; of a file there is nothing to tell, since it must name classes of the set.
        classes: The classes of the set.
        where: What the sentence calls the set.
    """
    if split not in SPLITS:
        return ""
    wanted, known = split_labels(split), {folded(name) for name in classes}
    lacking = [name for name in wanted if folded(name) not in known]
    if not lacking:
        return ""
    others = {folded(label) for label, _ in vocabularies.classes(split.partition("-")[0])}
    own = [name for name in classes if folded(name) not in others]  # names that COCO or LVIS do not know
    some = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
    return (
        f"{where} has {len(wanted) - len(lacking):,} of the {len(wanted):,} classes of {split}; left out: {some}."
        + perhaps(respelt(lacking, own))
    )


def _built_in(name: str, classes: Sequence[str]) -> Split:
    """Return a split of the package."""
    groups: dict[str, tuple[str, ...]] = {}
    if name == "coco-48-17":
        base = _kept([label for label, _ in vocabularies.classes("coco-base")], classes)
        novel = _kept([label for label, _ in vocabularies.classes("coco-novel")], classes)
    else:
        told: dict[str, list[str]] = {group: [] for group in "rcf"}
        for (label, _), group in zip(vocabularies.classes("lvis"), vocabularies.lvis_frequencies(), strict=True):
            told[group].append(label)
        groups = {group: _kept(labels, classes) for group, labels in told.items()}
        base, novel = _kept([*told["c"], *told["f"]], classes), groups["r"]
    if not base and not novel:
        raise UsageError(
            f"The split {name} has none of the {len(classes)} classes ({', '.join(classes[:3])}, ...).",
            "Choose another split, or write one into a file. " + _FORM,
        )
    return Split(base, novel, groups)


def _kept(labels: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that are among the labels."""
    members = {folded(label) for label in labels}
    return tuple(name for name in classes if folded(name) in members)


def _read(path: Path) -> dict[str, Any]:
    """Return the mapping in a split file."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except FileNotFoundError as err:
        raise MissingError(f"There is no split file {path}.", f"Splits in the package: {', '.join(SPLITS)}.") from err
    except OSError as err:
        raise UsageError(f"The split file {path} cannot be read: {err.strerror}.") from err
    except (ValueError, RecursionError, yaml.YAMLError) as err:
        raise UsageError(f"The split file {path} cannot be read: {' '.join(str(err).split())}.", _FORM) from err
    if not isinstance(content, dict) or "base" not in content or "novel" not in content:
        raise UsageError(f"The split file {path} has no lists `base` and `novel`.", _FORM)
    unknown = sorted(str(key) for key in content if key not in ("base", "novel", "groups"))
    if unknown:
        near = did_you_mean(unknown[0], ("base", "novel", "groups")) or _FORM
        raise UsageError(f"The split file {path} has an unknown key {unknown[0]!r}.", near)
    return content


def _names(path: Path, key: str, value: Any, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that one list of a split file means, in the set's order."""
    if value in (None, []):
        return ()
    if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        raise UsageError(f"The split file {path}: `{key}` is no list of names.", _FORM)
    try:
        places = match_classes(parse_classes(value).labels, classes, "the set")
    except UsageError as err:
        raise UsageError(f"The split file {path}, {key}: {err.message}", err.hint) from err
    return tuple(classes[place] for place in sorted(places))
