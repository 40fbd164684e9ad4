"""One schema for flags and recipes: what a command needs to know of a settings class."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from regionclip_cli.errors import UsageError, did_you_mean

Settings = TypeVar("Settings", bound=BaseModel)


def describe(settings: type[BaseModel], field: str) -> str:
    """Return the sentence that explains a field."""
    return settings.model_fields[field].description or ""


def default(settings: type[BaseModel], field: str) -> Any:
    """Return the default of a field."""
    return settings.model_fields[field].get_default(call_default_factory=True)


def checked(settings: type[Settings], **values: Any) -> Settings:
    """Build settings from values.

    Raises:
        UsageError: A field is unknown, missing or has a wrong value. All problems are told at once.
    """
    try:
        return settings(**values)
    except ValidationError as err:
        problems = [_sentence(settings, dict(problem)) for problem in err.errors()]
        raise UsageError(" ".join(problems)) from err


def _sentence(settings: type[BaseModel], problem: dict[str, Any]) -> str:
    """Return one problem of pydantic's in our words."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section = section_at(settings, problem["loc"][:-1]) or settings
        return f"There is no setting {key!r}. {did_you_mean(str(problem['loc'][-1]), section.model_fields)}".rstrip()
    if problem["type"] == "missing":
        return f"The setting {key!r} is missing."
    reason = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return f"{key or 'settings'}: {reason}." if problem["type"] == "value_error" else f"{key}: it {reason}."


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
