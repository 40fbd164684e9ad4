"""Errors that a user can act on, and the exit code each of them ends the process with.

Everything that is the user's to mend (a wrong name, an unreadable file, a missing model) is a `RegionClipError`: one
sentence that says what failed and where, and a hint that says what to do. Anything else that escapes is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum, unique


@unique
class ExitCode(IntEnum):
    """What the process says to the shell when it ends."""

    OK = 0
    BUG = 1
    USAGE = 2
    SOME_FAILED = 3
    PLUGIN = 4
    MISSING = 5
    INTERRUPTED = 130


class RegionClipError(Exception):
    """A failure with a message for the user, a hint on how to go on, and an exit code.

    Args:
        message: One sentence: what failed, and where (file, line, name).
        hint: What to do about it; empty when the message already says so.
    """

    code: ExitCode = ExitCode.USAGE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class UsageError(RegionClipError):
    """The request itself is wrong: an option, a class list, a recipe, a file of another kind (exit 2)."""


class OutputError(RegionClipError):
    """Results cannot be written: no permission, a full disk, a folder in the way (exit 2)."""


class InputError(RegionClipError):
    """One input could not be read; the others are not affected (exit 3)."""

    code = ExitCode.SOME_FAILED


class PluginError(RegionClipError):
    """A plugin failed to load or broke its promise (exit 4)."""

    code = ExitCode.PLUGIN


class MissingError(RegionClipError):
    """A model, data file or optional package is not on this machine (exit 5)."""

    code = ExitCode.MISSING


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x' or 'y'?" for the known names nearest to `name`, or an empty string.

    >>> did_you_mean("ktetle", ["cat", "kettle"])
    "Did you mean 'kettle'?"
    """
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    if not near:
        return ""
    return f"Did you mean {' or '.join(repr(word) for word in near)}?"


def pluralize(number: int, things: str) -> str:
    """Return a number with what it counts, in the singular where there is one.

    Args:
        number: How many.
        things: Their name in the plural, such as `images`; only endings that English makes regularly.

    >>> pluralize(1, "images"), pluralize(1200, "boxes"), pluralize(1, "classes")
    ('1 image', '1,200 boxes', '1 class')
    """
    if number == 1:
        for plural, singular in (("ies", "y"), ("xes", "x"), ("sses", "ss"), ("s", "")):
            if things.endswith(plural):
                return f"1 {things.removesuffix(plural)}{singular}"
    return f"{number:,} {things}"
