"""The evaluation report: one self-contained HTML file, light or dark."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from regionclip_cli.results.html.content import ReportContent, WorstImage
from regionclip_cli.results.html.plots import confusion_plot, curve_plot
from regionclip_cli.results.html.worst_images import shown

TEMPLATE = "evaluation_page.html.jinja"


def write_report(path: Path, content: ReportContent, images: Iterable[WorstImage]) -> None:
    """Write a report atomically.

    Args:
        path: The file.
        content: Its content.
        images: The worst images, iterated once, one in memory at a time.

    Raises:
        OutputError: The file cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    from regionclip_cli.files import whole_file

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = _number
    template = environment.from_string((files(__package__) / TEMPLATE).read_text(encoding="utf-8"))
    page = template.stream(
        content=content,
        grouped=any(row.group for row in content.classes),
        named=any(row.top1 is not None for row in content.classes),
        curves=curve_plot(content.curves) if content.curves else "",
        confusion="" if content.confusion is None else confusion_plot(content.confusion),
        images=(shown(image) for image in images),
    )
    with whole_file(path) as part, part.open("wb") as file:
        page.dump(file, encoding="utf-8")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
