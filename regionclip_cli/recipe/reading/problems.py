"""What is wrong in a recipe, where, and how all of it is told at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from regionclip_cli.errors import UsageError

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
