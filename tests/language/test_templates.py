from __future__ import annotations

import pytest

from regionclip_cli.errors import UsageError
from regionclip_cli.language.templates import SETS, content_hash, fill, templates


@pytest.mark.parametrize(("name", "count"), [("plain", 1), ("few", 4), ("clip-80", 80), ("clip-81", 81)])
def test_every_set_has_its_sentences(name: str, count: int) -> None:
    found = templates(name)
    assert len(found) == len(set(found)) == count
    assert all(sentence.count("{}") == 1 for sentence in found)


def test_the_official_set_opens_with_the_bare_phrase() -> None:
    assert templates("clip-81") == ("{}.", *templates("clip-80"))
    assert templates("clip-80")[0] == "a bad photo of a {}."


def test_an_unknown_set_is_told_with_near_ones() -> None:
    with pytest.raises(UsageError, match="clip-81"):
        templates("clip81")


@pytest.mark.parametrize(
    ("phrase", "sentence"),
    [
        ("cat", "a cat."),
        ("salt, pepper", "a salt pepper."),
        ("black+white", "a black white."),
        ("{} {0} %s", "a {} {0} %s."),
    ],
)
def test_fill(phrase: str, sentence: str) -> None:
    assert fill("a {}.", phrase) == sentence


def test_hashes_tell_sets_apart() -> None:
    assert len({content_hash(name) for name in SETS}) == len(SETS)
