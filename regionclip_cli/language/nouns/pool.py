"""From counted nouns to the concept pool: the count cut, and what the user wants in or out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from regionclip_cli.errors import UsageError
from regionclip_cli.hub.model_file import whole_file
from regionclip_cli.language.names import parse_classes

PAPER_POOL, PAPER_MIN_COUNT = 4764, 100
"""Concepts of the paper's pool from COCO's captions, and the count from which on a noun is one."""


@dataclass(frozen=True)
class ConceptPool:
    """Concepts with their counts, the most frequent first, equal counts by the alphabet.

    Attributes:
        counted: Concept and count.
        not_found: What was to be left out and is no noun of the captions.
    """

    counted: tuple[tuple[str, int], ...]
    not_found: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the concepts."""
        return tuple(name for name, _ in self.counted)

    def text(self) -> str:
        """Return `noun,count` a line, the form of the official noun lists."""
        return "".join(f"{name},{count}\n" for name, count in self.counted)

    def write(self, path: Path) -> None:
        """Write the list.

        Raises:
            OutputError: The disk refuses.
        """
        with whole_file(path) as part:
            part.write_text(self.text(), encoding="utf-8")


def choose_concepts(
    counts: Mapping[str, int],
    min_count: int,
    max_concepts: int | None = None,
    add: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> ConceptPool:
    """Choose the concepts among counted nouns.

    Args:
        counts: How often each noun came.
        min_count: Nouns that came less often are left out.
        max_concepts: Only so many are kept, added ones among them.
        add: Concepts to have in any case: names, `@coco`, `@lvis`, class files.
        drop: Concepts to leave out, in the same forms.

    Raises:
        UsageError: Nothing is left; more is to be added than may be kept; a concept is to be added and left out.
    """
    added, dropped = wishes(max_concepts, add, drop)
    out = {*dropped, *added}
    frequent = [name for name, count in counts.items() if count >= min_count and name not in out]
    frequent.sort(key=lambda name: (-counts[name], name))
    kept = frequent if max_concepts is None else frequent[: max_concepts - len(added)]
    if not kept and not added:
        raise _nothing_left(counts, min_count, bool(dropped))
    chosen = sorted((*kept, *added), key=lambda name: (-counts.get(name, 0), name))
    absent = tuple(name for name in dropped if name not in counts)
    return ConceptPool(tuple((name, counts.get(name, 0)) for name in chosen), absent)


def wishes(
    max_concepts: int | None, add: Sequence[str], drop: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what is to be added and what is to be left out, see `choose_concepts`; no caption is needed for that.

    Raises:
        UsageError: More is to be added than may be kept; a concept is to be added and left out.
    """
    added, dropped = wanted(add), wanted(drop)
    both = [name for name in added if name in set(dropped)]
    if both:
        raise UsageError(f"The concept {both[0]!r} is to be added and to be left out.")
    if max_concepts is not None and len(added) > max_concepts:
        raise UsageError(f"{len(added)} concepts are to be added, and only {max_concepts} may be kept.")
    return added, dropped


def wanted(names: Sequence[str]) -> tuple[str, ...]:
    """Return concepts that a user named, in lower case: names as they are, lists such as `@coco` and files opened up.

    Raises:
        UsageError: A list is unknown, a file cannot be read, or a name has a comma, which the noun list cannot hold.
    """
    if not names:
        return ()
    found = tuple(dict.fromkeys(label.lower() for label in parse_classes(list(names)).labels))
    broken = next((name for name in found if "," in name), None)
    if broken is not None:
        raise UsageError(f"The concept {broken!r} has a comma, and the list of nouns has one after each name.")
    return found


def _nothing_left(counts: Mapping[str, int], min_count: int, dropped: bool) -> UsageError:
    if not counts:
        return UsageError("The captions name nothing: no noun was found.", "Are they in English?")
    most = min(counts, key=lambda name: (-counts[name], name))
    if counts[most] >= min_count and dropped:
        return UsageError("No concept is left: all frequent nouns are to be dropped.")
    times = "once" if counts[most] == 1 else f"{counts[most]:,} times"
    return UsageError(
        f"No noun comes {min_count:,} times or more: the most frequent, {most!r}, comes {times}.",
        f"Lower min_count to {counts[most]} or less.",
    )
