from __future__ import annotations

from collections import Counter

import pytest

from regionclip_cli.language import vocabularies
from regionclip_cli.language.class_names import parse_classes


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("coco", 80, "person", "toothbrush"),
        ("coco-base", 48, "person", "toothbrush"),
        ("coco-novel", 17, "airplane", "scissors"),
        ("coco-65", 65, "person", "toothbrush"),
        ("lvis", 1203, "aerosol can", "zucchini"),
    ],
)
def test_lists_are_whole_and_in_order(name: str, count: int, first: str, last: str) -> None:
    found = parse_classes(f"@{name}")
    assert len(found) == len({label.casefold() for label in found.labels}) == count
    assert (found.labels[0], found.labels[-1]) == (first, last)
    assert all(phrases and all(phrases) for phrases in found.phrases)


def test_the_split_divides_coco() -> None:
    base, novel = (set(parse_classes(f"@coco-{part}").labels) for part in ("base", "novel"))
    everything, both = parse_classes("@coco").labels, parse_classes("@coco-65").labels
    assert not base & novel
    assert base | novel == set(both)
    assert [label for label in everything if label in base | novel] == list(both)
    assert {"cat", "dog", "umbrella", "sink"} <= novel
    assert "stop sign" not in both


def test_lvis_frequencies() -> None:
    assert Counter(vocabularies.lvis_frequencies()) == {"f": 405, "c": 461, "r": 337}


@pytest.mark.parametrize(
    ("label", "phrases"),
    [
        ("aerosol can", ("aerosol can", "spray can")),
        ("bus", ("bus (vehicle)", "autobus", "charabanc", "double-decker", "motorbus", "motorcoach")),
        ("bow (weapon)", ("bow (weapon)",)),
        ("bow (decorative ribbons)", ("bow (decorative ribbons)",)),
        ("fish", ("fish",)),
        ("fish (food)", ("fish (food)",)),
        ("pan (for cooking)", ("pan for cooking", "cooking pan")),
        ("saddle", ("saddle on an animal",)),
        ("railcar", ("railcar part of a train", "railway car part of a train", "railroad car part of a train")),
        ("monitor", ("monitor (computer equipment)", "computer monitor")),
        ("speaker", ("speaker (stereo equipment)",)),
        ("windshield wiper", ("windshield wiper", "windscreen wiper", "wiper for windshield/screen")),
    ],
)
def test_lvis_names_become_words(label: str, phrases: tuple[str, ...]) -> None:
    found = dict(vocabularies.classes("lvis"))
    assert found[label] == phrases


def test_no_underscore_is_left() -> None:
    words = [word for label, phrases in vocabularies.classes("lvis") for word in (label, *phrases)]
    assert not [word for word in words if "_" in word or "  " in word or word != word.strip()]


def test_lists_can_be_joined() -> None:
    found = parse_classes("@lvis,@coco,kettle")
    assert len({label.casefold() for label in found.labels}) == len(found)
    assert found.labels[:1203] == parse_classes("@lvis").labels
    assert "kettle" in found.labels[:1203]
