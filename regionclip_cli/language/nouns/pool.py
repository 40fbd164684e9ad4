"""How often captions name what: one pass over a stream, with a counter in memory and nothing else."""

from __future__ import annotations

import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from regionclip_cli.errors import UsageError
from regionclip_cli.files import whole_file
from regionclip_cli.language.class_names import parse_classes
from regionclip_cli.language.nouns import NounParser, is_concept, make_parser

BATCH = 1000
"""Captions that are parsed together."""


@dataclass
class NounCounts:
    """What a pass found.

    Attributes:
        captions: How many captions there were.
        nouns: How often each noun came.
    """

    captions: int = 0
    nouns: Counter[str] = field(default_factory=Counter)


def count_nouns(
    captions: Iterable[str], parser: str = "hanta", workers: int = 0, progress: Callable[[int], None] | None = None
) -> NounCounts:
    """Count the nouns of captions. The result does not depend on `workers`.

    Args:
        captions: Any number of them.
        parser: `hanta` or `spacy`.
        workers: Processes that parse; 0 parses in this one.
        progress: Called with the number of captions that have just been finished.

    Raises:
        UsageError: There is no such parser, or a process ended without a word.
        MissingError: What the parser needs is not installed.
    """
    found = NounCounts()
    parsing = make_parser(parser)  # here too, so that what is missing is told before processes are started
    batches = _batches(captions)
    counted = _by_workers(batches, parser, workers) if workers else _here(batches, parsing)
    try:
        for number, nouns in counted:
            found.captions += number
            found.nouns.update(nouns)
            if progress:
                progress(number)
    except BrokenProcessPool as err:
        raise UsageError(
            f"A process that looks for nouns ended without a word after {found.captions:,} captions.",
            "Is there enough memory? workers=0 uses no further process.",
        ) from err
    return found


def _batches(captions: Iterable[str]) -> Iterator[list[str]]:
    stream = iter(captions)
    while some := list(islice(stream, BATCH)):
        yield some


def _here(batches: Iterator[list[str]], parser: NounParser) -> Iterator[tuple[int, Counter[str]]]:
    for some in batches:
        yield len(some), _count(parser, some)


def _by_workers(batches: Iterator[list[str]], parser: str, workers: int) -> Iterator[tuple[int, Counter[str]]]:
    """Yield the counts of each batch in order; a few batches are under way at any time."""
    # Not forked: a library that the caller has loaded may have threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(parser,)) as pool:
        waiting: deque[tuple[int, Future[Counter[str]]]] = deque()
        try:
            for some in batches:
                waiting.append((len(some), pool.submit(_work, some)))
                if len(waiting) > 2 * workers:
                    number, future = waiting.popleft()
                    yield number, future.result()
            while waiting:
                number, future = waiting.popleft()
                yield number, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


_PARSER: list[NounParser] = []
"""The parser of a worker process."""


def _begin(parser: str) -> None:
    _PARSER[:] = [make_parser(parser)]


def _work(captions: Sequence[str]) -> Counter[str]:
    return _count(_PARSER[0], captions)


def _count(parser: NounParser, captions: Sequence[str]) -> Counter[str]:
    return Counter(noun for nouns in parser.nouns(captions) for noun in nouns if is_concept(noun))


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
    added, dropped = resolve_add_drop(max_concepts, add, drop)
    out = {*dropped, *added}
    frequent = [name for name, count in counts.items() if count >= min_count and name not in out]
    frequent.sort(key=lambda name: (-counts[name], name))
    kept = frequent if max_concepts is None else frequent[: max_concepts - len(added)]
    if not kept and not added:
        raise _nothing_left(counts, min_count, bool(dropped))
    chosen = sorted((*kept, *added), key=lambda name: (-counts.get(name, 0), name))
    absent = tuple(name for name in dropped if name not in counts)
    return ConceptPool(tuple((name, counts.get(name, 0)) for name in chosen), absent)


def resolve_add_drop(
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
