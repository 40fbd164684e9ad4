"""Counting nouns in one pass, here or in other processes."""

from __future__ import annotations

import multiprocessing
import tracemalloc
from collections.abc import Iterator, Sequence

import pytest

from regionclip_cli.errors import UsageError
from regionclip_cli.language.nouns import pool
from regionclip_cli.language.nouns.pool import count_nouns

CAPTIONS = ["a dog on a couch", "two dogs and a cat", "they eat it", "a tennis racket", "3 of them"] * 7


def test_counts() -> None:
    done: list[int] = []
    found = count_nouns(CAPTIONS, progress=done.append)
    assert found.captions == sum(done) == 35
    assert found.nouns == {"dog": 14, "couch": 7, "cat": 7, "tennis racket": 7}


def test_workers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "BATCH", 4)
    done: list[int] = []
    found = count_nouns(iter(CAPTIONS), workers=2, progress=done.append)
    assert found == count_nouns(CAPTIONS)
    assert done == [4] * 8 + [3]


def test_a_worker_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "BATCH", 5)

    def deadly() -> Iterator[str]:
        for number, caption in enumerate(CAPTIONS):
            if number == 20:
                for process in multiprocessing.active_children():
                    process.kill()
            yield caption

    with pytest.raises(UsageError, match=r"ended without a word after \d+ captions\. Is there enough memory"):
        count_nouns(deadly(), workers=1)


def test_memory_does_not_grow_with_the_captions() -> None:
    class Parser:
        def nouns(self, captions: Sequence[str]) -> list[list[str]]:
            return [["dog"] for _ in captions]

    def stream(count: int) -> Iterator[str]:
        return (f"a dog number {number} " + "and more words " * 20 for number in range(count))

    peaks = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "make_parser", lambda name: Parser())
        for count in (2000, 20_000):
            tracemalloc.start()
            assert count_nouns(stream(count)).nouns == {"dog": count}
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
