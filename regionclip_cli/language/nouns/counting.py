"""How often captions name what: one pass over a stream, with a counter in memory and nothing else."""

from __future__ import annotations

import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice

from regionclip_cli.errors import UsageError
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
