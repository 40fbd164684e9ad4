"""Every setting of a recipe with its type, default and sentence: what `recipes explain` prints and the docs show."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from regionclip_cli.errors import UsageError, did_you_mean
from regionclip_cli.recipe.fields import sections_in
from regionclip_cli.recipe.schema import Recipe

SIGNS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class Row:
    """One setting.

    Attributes:
        key: As an override spells it; `N` stands for the number of a list's item.
        kind: What may be written.
        default: What holds when nothing is written, as YAML; empty where something must be.
        sentence: What it is for.
    """

    key: str
    kind: str
    default: str
    sentence: str


def rows(section: str = "") -> list[Row]:
    """Return the settings of a section (`pretrain`, `data.captions`), of all (""), or the one setting of that key.

    Raises:
        UsageError: There is no such section or setting.
    """
    found = list(_rows(Recipe, "", Recipe))
    if not section:
        return found
    wanted = [row for row in found if _plain(row.key) == section or _plain(row.key).startswith(f"{section}.")]
    if not wanted:
        known = sorted({_plain(row.key) for row in found})
        hint = did_you_mean(section, known) or f"The sections are {', '.join(heads())}."
        raise UsageError(f"There is no section or setting {section!r} in a recipe.", hint)
    return wanted


def heads() -> list[str]:
    """Return the sections right below the top."""
    return [name for name, info in Recipe.model_fields.items() if next(sections_in(info.annotation), None)]


def purpose(section: str) -> str:
    """Return what the class of a section right below the top says about itself."""
    found = next(sections_in(Recipe.model_fields[section].annotation), None)
    return (found.__doc__ or "").strip().partition("\n")[0] if found else ""


def _rows(settings: type[BaseModel], above: str, root: Any) -> Iterator[Row]:
    for name, info in settings.model_fields.items():
        key = f"{above}{name}"
        below = next(sections_in(info.annotation), None)
        yield Row(key, _kind(info.annotation, info), _default(info, below), info.description or "")
        if below is not None:
            many = any(typing.get_origin(part) is tuple for part in _members(info.annotation))
            single = any(part is below for part in _members(info.annotation))
            yield from _rows(below, f"{key}.N." if many and not single else f"{key}.", root)


def _default(info: FieldInfo, below: type[BaseModel] | None) -> str:
    if info.is_required():
        return ""
    value = info.get_default(call_default_factory=True)
    if below is not None and isinstance(value, BaseModel):
        return "{}"
    return json.dumps(value)


def _kind(annotation: Any, info: FieldInfo | None = None) -> str:
    """Return what may be written for a type, in words."""
    parts = [part for part in _members(annotation) if part is not type(None)]
    words = [_word(part) for part in parts]
    limits = _limits(info.metadata if info else ())
    nothing = " or null" if len(parts) < len(_members(annotation)) else ""
    return " or ".join(dict.fromkeys(words)) + limits + nothing


def _word(part: Any) -> str:
    origin = typing.get_origin(part)
    if origin is typing.Literal:
        return ", ".join(str(choice) for choice in typing.get_args(part))
    if origin is typing.Annotated:
        inner, *metadata = typing.get_args(part)
        bounds = [bound for item in metadata for bound in (getattr(item, "metadata", None) or [item])]
        return _word(inner) + _limits(bounds)
    if origin is tuple:
        return f"list of {_kind(typing.get_args(part)[0])}"
    if origin is dict or (isinstance(part, type) and issubclass(part, BaseModel)):
        return "section"
    return WORDS.get(part, "anything")


def _limits(metadata: typing.Iterable[Any]) -> str:
    found = {sign: getattr(item, sign) for item in metadata for sign in SIGNS if hasattr(item, sign)}
    if {"ge", "le"} <= set(found):
        low, high = found.pop("ge"), found.pop("le")
        return f", {low:g} to {high:g}" if low != high else f", {low:g}"
    return "".join(f", {SIGNS[sign]} {limit:g}" for sign, limit in found.items())


def _members(annotation: Any) -> tuple[Any, ...]:
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def _plain(key: str) -> str:
    return key.replace(".N.", ".")
