"""Numbers with what they count."""

from __future__ import annotations

import pytest

from regionclip_cli.errors import pluralize


@pytest.mark.parametrize(
    ("number", "things", "said"),
    [
        (1, "images", "1 image"),
        (1, "boxes", "1 box"),
        (1, "classes", "1 class"),
        (1, "phrases", "1 phrase"),
        (1, "entries", "1 entry"),
        (0, "steps", "0 steps"),
        (1200, "images", "1,200 images"),
    ],
)
def test_one_thing_is_singular(number: int, things: str, said: str) -> None:
    assert pluralize(number, things) == said
