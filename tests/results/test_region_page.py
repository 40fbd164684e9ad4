"""The page of sample regions: whole, self-contained, and what people wrote is text."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_disk import small_disk
from toys import draw_shapes

from regionclip_cli.errors import OutputError
from regionclip_cli.results.html.region_page import PageImage, PageRegion, write_region_page

VOID = {"meta", "img", "rect"}
PIXELS, BOXES, NAMES = draw_shapes(height=300, width=1200)
IMAGE = PageImage(
    key="a&b/<1>.jpg",
    captions=("<script>alert(1)</script>", "a red & a blue thing"),
    pixels=PIXELS,
    regions=tuple(
        PageRegion(tuple(box.tolist()), objectness, ((name, 0.75), ("猫", 0.2)))
        for box, objectness, name in zip(BOXES, (0.5, None), NAMES, strict=True)
    ),
    count=17,
)


class Page(HTMLParser):
    """Reads a page, and sees that every element is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


def picture(address: str | None) -> Image.Image:
    kind, _, content = str(address).partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "new" / "page.html"
    write_region_page(path, {"concepts": "<4,764>"}, [("sky", 20), ("tree", 5)], iter([IMAGE]))
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]
    return path.read_text(encoding="utf-8")


def test_regions_show_crop_and_concepts(text: str) -> None:
    page = Page(text)
    assert len(page.all("figure")) == len(page.all("rect")) == 2
    whole, *crops = (picture(attributes["src"]) for attributes in page.all("img"))
    assert whole.size == (480, 120)
    for crop, box, name in zip(crops, BOXES, NAMES, strict=True):
        across, down = box[2:] - box[:2]
        assert crop.width / crop.height == pytest.approx(across / down, rel=0.2)
        middle = np.asarray(crop)[crop.height // 2, crop.width // 2]
        assert int(middle.argmax()) == ("red", "green", "blue").index(name)
    for word in (*NAMES, "0.75", "猫", "0.20", "objectness 0.50", "2 of 17 labelled regions", "sky", "20", "<4,764>"):
        assert word in page.words
    assert page.words.count("objectness ") == 1
    shares = re.findall(r"--share: ([\d.]+)%", text)
    assert shares == ["100.0", "25.0", *["75.0", "20.0"] * 2]


def test_boxes_are_drawn_in_image_pixels(text: str) -> None:
    page = Page(text)
    assert page.all("svg")[0]["viewbox"] == "0 0 1200 300"
    for attributes, box in zip(reversed(page.all("rect")), BOXES, strict=True):
        corner = [float(str(attributes[name])) for name in ("x", "y", "width", "height")]
        np.testing.assert_allclose(corner, [*box[:2], *(box[2:] - box[:2])], atol=0.06)


def test_captions_are_escaped(text: str) -> None:
    page = Page(text)
    assert "<script>alert(1)</script>" in page.words
    assert not page.all("script")
    assert not page.all("link")
    assert "http" not in text.replace("http-equiv", "")
    assert page.all("img")[0]["alt"] == "<script>alert(1)</script>"


def test_contrast_in_light_and_dark(text: str) -> None:
    assert {"name": "color-scheme", "content": "light dark"} in Page(text).all("meta")
    light, dark = re.findall(r":root \{ (.*?) \}", text)
    for colours in (light, dark):
        found = dict(re.findall(r"--(\w+): (#\w{6})", colours))
        assert set(found) == {"ground", "card", "text", "quiet", "bar", "line"}
        for words in ("text", "quiet"):
            for ground in ("ground", "card"):
                assert contrast(found[words], found[ground]) >= 4.5  # WCAG AA


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours as WCAG 2 has it."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_region_at_the_border_has_a_crop(tmp_path: Path) -> None:
    edges = ((0.0, 0.0, 0.0, 0.0), (8.0, 6.0, 8.0, 6.0), (0.0, 0.0, 8.0, 6.0))
    regions = tuple(PageRegion(box, None, ()) for box in edges)
    image = PageImage("x", (), np.zeros((6, 8, 3), np.uint8), regions, 3)
    write_region_page(tmp_path / "page.html", {}, [], [image])
    page = Page((tmp_path / "page.html").read_text())
    assert [picture(attributes["src"]).size for attributes in page.all("img")[1:]] == [(1, 1), (1, 1), (8, 6)]


def test_a_full_disk_leaves_no_half_page(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"page\.html cannot be written"), small_disk(4000):
        write_region_page(tmp_path / "page.html", {}, [], [IMAGE])
    assert list(tmp_path.iterdir()) == []
