"""The report is one file that says what it was given and needs nothing beside it."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from toys import draw_shapes

from regionclip_cli.results.html.content import ClassRow, Confusion, Curve, Marked, ReportContent, WorstImage
from regionclip_cli.results.html.evaluation_page import write_report
from regionclip_cli.results.html.plots import confusion_plot, curve_plot


def content(**others: object) -> ReportContent:
    rows = (
        ClassRow(name="kettle <b>", group="novel", objects=3, AP=12.34, AP50=20.0, taken_for={"cup": 2, "pot": 1}),
        ClassRow(name="unseen", group="base", objects=0, taken_for={}),
    )
    curve = Curve("all classes", np.linspace(0, 1, 5), np.array([1, 0.8, 0.4, 0.1, 0]))
    fields = {
        **{"title": "toy on shapes", "facts": {"set": "5 images"}, "headings": ["group", "AP"]},
        **{"results": [["all", "12.3"]], "classes": rows, "curves": (curve,)},
        **{"confusion": Confusion(("kettle",), ("cup", "pot"), np.array([[2, 1]])), "images_note": "The worst."},
    }
    return ReportContent(**{**fields, **others})


def photo(name: str = "a.jpg", size: tuple[int, int] = (300, 900)) -> WorstImage:
    pixels, boxes, _ = draw_shapes(3, *size)
    right = np.array([True, False])
    return WorstImage(
        name,
        "1 of 2 found.",
        pixels,
        Marked(boxes, ("red", "blue"), right),
        Marked(boxes, ("red 0.9", "cup 0.5"), right),
    )


class Page(HTMLParser):
    """Collects the addresses that a page asks for, its pictures and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for key, value in attrs if key in ("src", "href", "xlink:href") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_report_is_self_contained(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "report.html"
    write_report(path, content(), [photo(), WorstImage("b.jpg", "Gone.", None, photo().truth, photo().found)])
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    outside = [address for address in page.addresses if not address.startswith(("data:image/jpeg;base64,", "#"))]
    assert outside == []
    assert not re.search(r"url\((?!#)", text)
    for word in (
        "toy on shapes",
        "5 images",
        "12.3",
        "kettle <b>",
        "novel",
        "cup 2, pot 1",
        "The worst.",
        "b.jpg",
        "Gone.",
    ):
        assert word in page.text
    assert "kettle <b>" not in text
    pictures = [address for address in page.addresses if address.startswith("data:")]
    assert len(pictures) == 2


def test_box_colours(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, content(), [photo()])
    first = Page(path.read_text(encoding="utf-8")).addresses
    data = next(address for address in first if address.startswith("data:")).partition(",")[2]
    picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    assert max(picture.size) == 560
    boxes = photo().truth.boxes * (picture.width / 900)

    def greenest(box: np.ndarray) -> tuple[int, int]:
        """Return by how much green outdoes red, and red green, at most, across the left edge of a box."""
        x, y = int(box[0]), int((box[1] + box[3]) / 2)
        red, green, _ = np.asarray(picture).astype(int)[y, x - 3 : x + 4].T
        return (green - red).max(), (red - green).max()

    good, bad = greenest(boxes[0]), greenest(boxes[1])
    assert good[0] > 30 > bad[0]
    assert bad[1] > 60


def test_report_without_optional_sections(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    rows = (ClassRow(name="cup", objects=2, AP=50.0, AP50=60.0, top1=50.0, taken_for={}),)
    write_report(path, content(classes=rows, curves=(), confusion=None), [])
    page = Page(path.read_text(encoding="utf-8"))
    assert "top-1" in page.text
    assert "None." in page.text
    for word in ("Precision and recall", "Confusions", "group<"):
        assert word not in page.text


@pytest.mark.parametrize("rows", [1, 12])
def test_plots_are_valid_svg(rows: int) -> None:
    counts = np.arange(rows * 16).reshape(rows, 16)
    names = tuple(f"class {number}" for number in range(16))
    for svg in (confusion_plot(Confusion(names[:rows], names, counts)), curve_plot(content().curves)):
        assert svg.startswith("<svg")
        ElementTree.fromstring(svg)


def test_interrupted_report_leaves_no_file(tmp_path: Path) -> None:
    def photos() -> object:
        yield photo()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path / "report.html", content(), photos())
    assert list(tmp_path.iterdir()) == []
