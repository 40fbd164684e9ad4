"""What is wrong with an annotation file, entry by entry, and whether to go on without those entries."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regionclip_cli.errors import UsageError

KEPT = 100
"""Sentences that are kept; further problems are counted."""


class Problems:
    """The problems found so far.

    Args:
        source: The file or data set, for messages.
    """

    def __init__(self, source: Path | str) -> None:
        self.source = source
        self.count = 0
        self._sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Note one problem: a sentence that names the entry."""
        self.count += 1
        if len(self._sentences) < KEPT:
            self._sentences.append(sentence)

    def sentences(self) -> tuple[str, ...]:
        """Return the sentences in the order in which the problems were found, and how many more there are."""
        more = self.count - len(self._sentences)
        return (*self._sentences, f"And {more:,} more.") if more else tuple(self._sentences)

    def settle(self, lenient: bool) -> None:
        """Let the problems pass, or refuse the file.

        Raises:
            UsageError: There are problems and `lenient` is not set.
        """
        if self.count and not lenient:
            more = f" {self.count - 1:,} more entries are wrong." if self.count > 1 else ""
            raise UsageError(
                f"{self.source}: {self._sentences[0]}{more}",
                "Mend the file, or go on without such entries: --lenient, or `lenient: true` in a recipe.",
            )


class Wrong(Exception):
    """One entry is not as it should be; the text says how."""


def entry(value: Any) -> Mapping[str, Any]:
    """Return a value that is an object.

    Raises:
        Wrong: It is something else.
    """
    if not isinstance(value, dict):
        raise Wrong(f"is {shown(value)}, not an object")
    return value


def whole(record: Mapping[str, Any], key: str) -> int:
    """Return a whole number of an entry.

    Raises:
        Wrong: It is absent, or something else.
    """
    value = record.get(key)
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if key not in record:
        raise Wrong(f"has no {key!r}")
    raise Wrong(f"has the {key} {shown(value)}, not a whole number")


def text(record: Mapping[str, Any], key: str) -> str:
    """Return a text of an entry that is not empty.

    Raises:
        Wrong: It is absent, empty, or something else.
    """
    value = record.get(key)
    if isinstance(value, str) and value.strip():
        return value
    if key not in record:
        raise Wrong(f"has no {key!r}")
    raise Wrong(f"has the {key} {shown(value)}, not a text")


def numbers(record: Mapping[str, Any], key: str, count: int, form: str) -> list[float]:
    """Return `count` finite numbers of an entry.

    Raises:
        Wrong: They are absent, too many, too few, not numbers, or NaN or infinite.
    """
    value = record.get(key)
    if isinstance(value, list) and len(value) == count and all(map(is_number, value)):
        return [float(x) for x in value]
    if key not in record:
        raise Wrong(f"has no {key!r}")
    raise Wrong(f"has the {key} {shown(value)}, not {form}")


def is_number(value: Any) -> bool:
    """Say whether a value of JSON is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def shown(value: Any) -> str:
    """Return a value as JSON, cut to a length that fits into a sentence."""
    written = json.dumps(value, ensure_ascii=False)
    return written if len(written) <= 60 else f"{written[:57]}..."
