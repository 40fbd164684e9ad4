"""What the settings look like from outside: which section is where, and which keys it has."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the settings classes that a type is made of: `tuple[CaptionData, ...] | None` has one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from sections_in(part)


def section_at(settings: type[BaseModel], key: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the settings class that stands at a key below `settings`, None when there is none.

    Numbers in the key, which count the items of lists, are passed over.
    """
    here: type[BaseModel] | None = settings
    for part in key:
        if isinstance(part, int):
            continue
        if here is None or part not in here.model_fields:
            return None
        here = next(sections_in(here.model_fields[part].annotation), None)
    return here


def owners(settings: type[BaseModel], field: str) -> list[str]:
    """Return the keys of the sections right below `settings` that have a setting of this name."""
    found = []
    for name, info in settings.model_fields.items():
        below = next(sections_in(info.annotation), None)
        if below is not None and field in below.model_fields:
            found.append(name)
    return found
