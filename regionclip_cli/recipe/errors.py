"""What is wrong in a recipe, where, and how all of it is told at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from regionclip_cli.errors import UsageError, did_you_mean
from regionclip_cli.recipe.fields import owners, section_at
from regionclip_cli.recipe.schema import RENAMED

Key = tuple[str | int, ...]
"""Way to a setting: names of sections and numbers in lists, such as ("evaluate", 0, "boxes")."""


@dataclass(frozen=True)
class Place:
    """Where a value was written.

    Attributes:
        source: The file, as a person would name it, or the override in words.
        line: Line in that file, from 1; None for an override.
        folder: What a path that begins with ./ or ../ is relative to.
    """

    source: str
    line: int | None
    folder: Path

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        place: Where it was written.
        key: Which setting; empty when it is about the file.
        what: What is wrong and what to do, as sentences.
    """

    place: Place
    key: Key
    what: str

    def __str__(self) -> str:
        key = f"{spell(self.key)}: " if self.key else ""
        return f"{self.place}: {key}{self.what}"


@dataclass
class Problems:
    """Collects what is wrong, so that all of it can be told at once."""

    found: list[Problem] = field(default_factory=list)

    def add(self, place: Place, key: Key, what: str) -> None:
        """Note one problem."""
        self.found.append(Problem(place, key, what))

    def about(self, key: Key) -> bool:
        """Say whether something is known to be wrong with this setting, or with one it stands in."""
        return any(key[: len(problem.key)] == problem.key for problem in self.found if problem.key)

    def raise_any(self) -> None:
        """Raise what was found, if anything was.

        Raises:
            RecipeError: With every problem, in the order of the lines.
        """
        if self.found:
            order = {source: number for number, source in enumerate(p.place.source for p in reversed(self.found))}
            raise RecipeError(sorted(self.found, key=lambda p: (-order[p.place.source], p.place.line or 0)))


class RecipeError(UsageError):
    """A recipe cannot be used (exit 2); `problems` holds each reason, and the message is one line a reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def spell(key: Key) -> str:
    """Return the way to a setting as an override spells it.

    >>> spell(("evaluate", 0, "boxes"))
    'evaluate.0.boxes'
    """
    return ".".join(str(part) for part in key)


KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a section of `key: value` lines",
    "model_type": "a section of `key: value` lines",
    "model_attributes_type": "a section of `key: value` lines",
}
"""What should have been there, by pydantic's type of error."""


def explain(
    settings: type[BaseModel], errors: Sequence[Mapping[str, Any]], values: Any, also: Sequence[str] = ()
) -> Iterator[tuple[Key, str]]:
    """Yield the key of each thing that is wrong, and a sentence about it.

    Args:
        settings: The class that refused the values.
        errors: What pydantic's `ValidationError.errors()` returned.
        values: The values, in mappings and lists.
        also: Further keys that may stand at the top.
    """
    wrong: dict[Key, list[Mapping[str, Any]]] = {}
    for error in errors:
        wrong.setdefault(_way(error["loc"], values), []).append(error)
    for key, found in wrong.items():
        kinds = list(dict.fromkeys(KINDS[error["type"]] for error in found if error["type"] in KINDS))
        others = [error for error in found if error["type"] not in KINDS]
        if others:
            yield key, " ".join(dict.fromkeys(_sentence(settings, key, error, also) for error in others))
        elif not any(other[: len(key)] == key for other in wrong if len(other) > len(key)):
            # With deeper errors below it, this is only the form that the value was not meant to have.
            yield key, f"It should be {' or '.join(kinds)}, not {_show(found[0]['input'])}.{_quotes(kinds, found[0])}"


def _way(loc: Sequence[str | int], values: Any) -> Key:
    """Return the key behind pydantic's, which also names the members of unions that it tried."""
    key: list[str | int] = []
    here = values
    for position, part in enumerate(loc):
        if _holds(here, part):
            here = here[part]
        elif isinstance(here, Mapping) and position == len(loc) - 1 and not _is_type_name(part):
            here = None  # a setting that is missing
        else:
            continue
        key.append(part)
    return tuple(key)


def _holds(values: Any, part: str | int) -> bool:
    if isinstance(values, Mapping):
        return part in values
    return isinstance(values, list | tuple) and isinstance(part, int) and part < len(values)


def _is_type_name(part: str | int) -> bool:
    """Say whether pydantic made this word for a member of a union: `str`, `CaptionData`, `tuple[str, ...]`."""
    return isinstance(part, str) and (part in ("str", "int", "float", "bool") or "[" in part or part[:1].isupper())


def _sentence(settings: type[BaseModel], key: Key, error: Mapping[str, Any], also: Sequence[str]) -> str:
    if error["type"] == "extra_forbidden":
        return f"There is no such setting.{_near(settings, key, also)}"
    if error["type"] == "missing":
        return "This setting is missing."
    reason = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    if error["type"] == "literal_error":
        choices = [word.strip("'") for word in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        near = did_you_mean(error["input"], choices) if isinstance(error["input"], str) else ""
        return f"It {reason}, not {_show(error['input'])}. {near}".rstrip()
    if error["type"] == "value_error":
        return f"{reason[:1].upper()}{reason[1:]}."
    return f"It {reason}, not {_show(error['input'])}." if reason.startswith("should") else f"{reason}."


def _near(settings: type[BaseModel], key: Key, also: Sequence[str]) -> str:
    """Return what an unknown key may have been meant for: a near name here, or the same name elsewhere."""
    name = str(key[-1])
    section = section_at(settings, key[:-1])
    if section is None:
        return ""
    here = list(section.model_fields) + (list(also) if len(key) == 1 else [])
    renamed = RENAMED.get(name)
    hint = f"Did you mean {renamed}?" if len(key) > 1 and renamed in here else did_you_mean(name, here)
    elsewhere = [f"{owner}.{name}" for owner in owners(settings, name)]
    if not hint and name in settings.model_fields:
        elsewhere.insert(0, f"{name} at the top")
    if not hint and elsewhere:
        hint = f"There is {' and '.join(elsewhere[:3])}."
    return f" {hint}" if hint else f" The settings here are {', '.join(here)}."


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _quotes(kinds: Sequence[str], error: Mapping[str, Any]) -> str:
    if "text" in kinds and isinstance(error["input"], int | float):
        return " Put it in quotes."
    return ""
