"""Base and novel classes, built in and from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from regionclip_cli.data.splits import SPLITS, read_split
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.language import vocabularies

COCO = tuple(label for label, _ in vocabularies.classes("coco"))
LVIS = tuple(label for label, _ in vocabularies.classes("lvis"))


def test_open_vocabulary_coco_is_the_papers() -> None:
    split = read_split("coco-48-17", COCO)
    assert (len(split.base), len(split.novel)) == (48, 17)
    assert split.novel == (
        *("airplane", "bus", "cat", "dog", "cow", "elephant", "umbrella", "tie", "snowboard", "skateboard", "cup"),
        *("knife", "cake", "couch", "keyboard", "sink", "scissors"),
    )
    assert split.all(COCO) == tuple(label for label, _ in vocabularies.classes("coco-65"))
    assert split.groups == {}


def test_open_vocabulary_lvis_has_rare_classes_as_novel() -> None:
    split = read_split("lvis-rare", LVIS)
    assert (len(split.base), len(split.novel)) == (866, 337)
    assert {key: len(names) for key, names in split.groups.items()} == {"r": 337, "c": 461, "f": 405}
    assert split.novel == split.groups["r"]
    assert set(split.base) == {*split.groups["c"], *split.groups["f"]}
    assert split.all(LVIS) == LVIS


def test_a_built_in_split_takes_what_the_set_has_in_its_own_words() -> None:
    split = read_split("coco-48-17", ("Zebra", "cat", "traffic light", "kettle"))
    assert (split.base, split.novel) == (("Zebra",), ("cat",))
    assert read_split("coco-48-17", ("person",)).novel == ()


def test_a_built_in_split_of_another_set_is_refused() -> None:
    with pytest.raises(UsageError, match="none of the 2 classes"):
        read_split("coco-48-17", ("kettle", "teapot"))


def test_an_unknown_split_has_near_names() -> None:
    with pytest.raises(UsageError, match=r"no split 'coco-4817'") as caught:
        read_split("coco-4817", COCO)
    assert caught.value.hint == "Did you mean 'coco-48-17'?"
    with pytest.raises(UsageError) as caught:
        read_split("zzz", COCO)
    assert all(name in caught.value.hint for name in SPLITS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine.yaml", "base: [Dog, 'zebra']\nnovel: cat\ngroups: {pets: [dog, cat]}"),
        ("mine.json", '{"base": ["zebra", "dog"], "novel": ["cat"], "groups": {"pets": ["cat", "dog"]}}'),
    ],
)
def test_a_split_may_be_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    split = read_split(tmp_path / name, COCO)
    assert (split.base, split.novel, split.groups) == (("dog", "zebra"), ("cat",), {"pets": ("cat", "dog")})


def test_a_split_file_may_use_lists(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text('base: "@coco-base"\nnovel: ["@coco-novel"]')
    assert read_split(str(tmp_path / "mine.yml"), COCO) == read_split("coco-48-17", COCO)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: [katt]\nnovel: []", "base: the set has no class 'katt'"),
        ("base: [cat]\nnovel: [Cat]", "'cat' in base and in novel"),
        ("base: [cat, cat]\nnovel: []\ngroups: 3", "`groups` is no mapping"),
        ("base: []\nnovel: []", "names no class"),
        ("base: [cat]", "no lists `base` and `novel`"),
        ("[cat]", "no lists `base` and `novel`"),
        ("base: {cat: 1}\nnovel: []", "`base` is no list of names"),
        ("base: [cat]\nnovel: [3]", "`novel` is no list of names"),
        ("base: [cat]\nnovel: []\nnovle: []", "unknown key 'novle'"),
        ("base: [cat\nnovel: []", "cannot be read"),
    ],
)
def test_a_split_file_that_is_wrong_is_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_split(tmp_path / "mine.yaml", COCO)
    assert words in caught.value.message
    assert "mine.yaml" in caught.value.message


def test_a_missing_split_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no split file"):
        read_split(tmp_path / "none.yaml", COCO)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        read_split(tmp_path / "folder.json", COCO)
