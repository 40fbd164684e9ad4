from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from regionclip_cli.data.images import ImageInput
from regionclip_cli.errors import InputError
from regionclip_cli.inference.prefetch import prefetch

SOURCES = [ImageInput(str(index), Path(str(index))) for index in range(20)]


def test_everything_comes_in_order_and_errors_cost_only_themselves() -> None:
    def read(source: ImageInput) -> str:
        if source.name == "3":
            raise InputError("3 is bad.")
        return source.name * 2

    results = [result for _, result in prefetch(SOURCES, read, ahead=4)]
    assert isinstance(results[3], InputError)
    del results[3]
    assert results == [source.name * 2 for source in SOURCES if source.name != "3"]


def test_no_more_is_read_than_asked_for() -> None:
    asked: list[str] = []

    def sources() -> Iterator[ImageInput]:
        for source in SOURCES:
            asked.append(source.name)
            yield source

    reading = prefetch(sources(), lambda source: source.name, ahead=3)
    next(reading)
    assert len(asked) == 3
    next(reading)
    assert len(asked) == 4
    reading.close()
    assert len(asked) == 4


def test_a_bug_comes_out_where_it_happened() -> None:
    def read(source: ImageInput) -> str:
        if source.name == "2":
            raise ZeroDivisionError
        return source.name

    seen = []
    reading = prefetch(SOURCES, read, ahead=4)
    seen.append(next(reading)[1])
    seen.append(next(reading)[1])
    with pytest.raises(ZeroDivisionError):
        next(reading)
    assert seen == ["0", "1"]


def test_standard_input_is_read_by_the_caller() -> None:
    threads = []

    def read(source: ImageInput) -> str:
        threads.append(threading.current_thread())
        return source.name

    list(prefetch([ImageInput("stdin", None), SOURCES[0]], read, ahead=2))
    assert threading.main_thread() in threads
    assert len(set(threads)) == 2
