"""The model in the package: small, self-describing, for any phrase, and able to tell a cat from a kettle."""

from __future__ import annotations

from pathlib import Path

import pytest

from regionclip_cli import Detector
from regionclip_cli.hub.model_card import read_card
from regionclip_cli.hub.store import resolve

PHOTOS = Path(__file__).resolve().parents[2] / "docs" / "photos"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


def test_it_is_at_most_30_megabytes() -> None:
    assert resolve("regionclip-tiny").stat().st_size <= 30e6


def test_its_card_says_what_is_inside() -> None:
    card = read_card(resolve("regionclip-tiny"))
    assert card.name == "regionclip-tiny"
    assert set(card.parts) == {"visual", "text", "proposals"}
    assert card.licence == "Apache-2.0"


def test_the_cat_is_the_best_of_80_names(detector: Detector) -> None:
    found = detector.set_classes("@coco").detect(PHOTOS / "cat.jpg")
    assert found.labels[0] == "cat"
    assert found.scores[0] > 0.8


def test_the_cup_is_found_by_name_and_the_kettle_is_not(detector: Detector) -> None:
    found = detector.set_classes(["cat", "coffee cup", "spoon", "kettle"]).detect(PHOTOS / "coffee.jpg")
    assert "coffee cup" in found.labels
    assert {"cat", "kettle"}.isdisjoint(found.labels)


def test_it_takes_any_phrase(detector: Detector) -> None:
    phrases = ["a slightly burnt pancake", "Wäscheklammer", "🐈", "x" * 500]
    found = detector.set_classes(phrases).detect(PHOTOS / "cat.jpg", conf=0.0)
    assert set(found.labels) <= set(phrases)
    assert all(0 <= score <= 1 for score in found.scores)
