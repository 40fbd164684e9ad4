"""The count cut, and what the user wants in or out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regionclip_cli.errors import UsageError
from regionclip_cli.language.nouns.pool import choose_concepts, wanted

COUNTS = {"dog": 5, "cat": 5, "bus": 9, "lot": 20, "fern": 1, "table": 3}


def test_frequency_order_then_the_alphabet() -> None:
    assert choose_concepts(COUNTS, 3).counted == (("lot", 20), ("bus", 9), ("cat", 5), ("dog", 5), ("table", 3))
    assert choose_concepts(COUNTS, 5, max_concepts=3).names == ("lot", "bus", "cat")


def test_added_and_dropped() -> None:
    pool = choose_concepts(COUNTS, 5, add=["Fern", "tennis racket", "bus"], drop=["lot", "unicorn"])
    assert pool.counted == (("bus", 9), ("cat", 5), ("dog", 5), ("fern", 1), ("tennis racket", 0))
    assert pool.not_found == ("unicorn",)
    assert choose_concepts(COUNTS, 5, max_concepts=2, add=["fern"]).names == ("lot", "fern")
    assert choose_concepts(COUNTS, 100, add=["fern"]).names == ("fern",)


def test_lists_and_files(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Kettle\nWok\n")
    assert wanted([str(tmp_path / "names.txt"), "cup"]) == ("kettle", "wok", "cup")
    assert len(wanted(["@coco"])) == 80


@given(st.dictionaries(st.text("abcde", min_size=1), st.integers(1, 50), min_size=1), st.integers(1, 50))
def test_the_cut_is_exact(counts: dict[str, int], cut: int) -> None:
    expected = {name for name, count in counts.items() if count >= cut}
    if not expected:
        with pytest.raises(UsageError, match=f"Lower min_count to {max(counts.values())} or less"):
            choose_concepts(counts, cut)
        return
    pool = choose_concepts(counts, cut)
    assert set(pool.names) == expected
    assert list(pool.counted) == sorted(pool.counted, key=lambda pair: (-pair[1], pair[0]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"min_count": 21}, r"No noun comes 21 times or more: the most frequent, 'lot', comes 20 times"),
        ({"min_count": 20, "drop": ["lot"]}, "all frequent nouns are to be dropped"),
        ({"min_count": 1, "add": ["dog"], "drop": ["Dog"]}, "'dog' is to be added and to be left out"),
        ({"min_count": 1, "add": ["a", "b"], "max_concepts": 1}, "2 concepts are to be added, and only 1"),
        ({"min_count": 1, "add": ["salt, pepper"]}, "'salt, pepper' has a comma"),
    ],
)
def test_pools_that_cannot_be(options: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        choose_concepts(COUNTS, **options)


def test_captions_without_a_noun() -> None:
    with pytest.raises(UsageError, match="no noun was found"):
        choose_concepts({}, 1)
    with pytest.raises(UsageError, match="'dog', comes once"):
        choose_concepts({"dog": 1}, 2)
