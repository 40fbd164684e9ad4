from __future__ import annotations

import numpy as np
import pytest
from results.sample_detections import detections

from regionclip_cli.results import drawing
from regionclip_cli.results.drawing import PALETTE, draw

GREY = 128


def drawn(rows: list[tuple[int, float, tuple[float, ...]]], size: tuple[int, int] = (320, 240)) -> np.ndarray:
    return np.array(draw(detections("x.png", rows, size), np.full((size[1], size[0], 3), GREY, np.uint8)))


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def test_image_without_detections_is_unchanged() -> None:
    assert (drawn([]) == GREY).all()


def test_box_colour_and_position() -> None:
    picture = drawn([(0, 0.9, (100, 100, 200, 180))])
    assert picture[140, 100].tolist() == rgb(PALETTE[0])
    assert picture[180, 150].tolist() == rgb(PALETTE[0])
    assert (picture[120:160, 120:180] == GREY).all()
    label = picture[70:100, 95:200]
    assert (label == rgb(PALETTE[0])).all(-1).sum() > 200  # the label stands above the box
    assert drawn([(1, 0.9, (100, 100, 200, 180))])[140, 100].tolist() == rgb(PALETTE[1])


@pytest.mark.parametrize("box", [(0, 0, 60, 60), (290, 0, 320, 30), (0, 200, 40, 240), (280, 210, 320, 240)])
def test_label_stays_inside_the_image(box: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The label of a box in a corner covers as many pixels as one in the middle."""
    middle = (drawn([(1, 0.9, (100, 100, 101, 101))]) == rgb(PALETTE[1])).all(-1).sum()
    corner = (drawn([(1, 0.9, box)]) == rgb(PALETTE[1])).all(-1).sum()
    assert corner >= middle


def test_wide_label_shrinks_then_is_cut() -> None:
    size, _, texts = drawing._fit(["coffee cup 0.90"], 100, 30)
    assert drawing.MIN_FONT_SIZE < size < 30
    assert texts == ["coffee cup 0.90"]
    size, _, texts = drawing._fit(["coffee cup 0.90"], 40, 30)
    assert size == drawing.MIN_FONT_SIZE
    assert "coffee cup".startswith(texts[0])
    assert drawn([(1, 0.9, (0, 0, 8, 8))], (8, 8)).shape == (8, 8, 3)
    assert drawn([(1, 0.9, (0, 0, 1, 1))], (1, 1)).shape == (1, 1, 3)


def test_label_contrast() -> None:
    assert drawing._readable_on("#ffff00") == "#000000"
    assert drawing._readable_on("#000080") == "#ffffff"


def test_font_has_non_latin_letters() -> None:
    from PIL import ImageFont

    font = ImageFont.truetype(drawing._font_path(), 20)
    missing = bytes(font.getmask("\U0010fffe"))
    for letter in "éßжΩş":
        assert bytes(font.getmask(letter)) != missing
