"""One HTML page to review detections: filters by class and score, nothing beside it, nothing fetched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from regionclip_cli.errors import InputError
from regionclip_cli.files import replacing
from regionclip_cli.results.drawing import PALETTE
from regionclip_cli.results.html.embedding import embedded
from regionclip_cli.results.records import Records

FILE, TEMPLATE = "review.html", "review_page.html.jinja"


def render(records: Records, folder: Path, labels: Sequence[str], max_images: int = 500, side: int = 640) -> None:
    """Write `review.html`, with the images in it as JPEG and the boxes as SVG.

    Args:
        records: The detections.
        folder: The output folder.
        labels: The class names.
        max_images: Images on the page; of more, evenly spaced ones are shown.
        side: Longer side in pixels of the images on the page.

    Raises:
        OutputError: The file cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("regionclip_cli.results.html") / TEMPLATE).read_text(encoding="utf-8"))
    counts = Counter(one["label"] for record in records for one in record["detections"])
    colours = {label: PALETTE[number % len(PALETTE)] for number, label in enumerate(labels)}
    page = template.stream(
        total=len(records),
        shown=min(len(records), max(max_images, 1)),
        detections=sum(counts.values()),
        classes=[(label, counts[label], colours[label]) for label in labels],
        images=_images(records, colours, max(max_images, 1), max(side, 1)),
    )
    with replacing(folder / FILE) as file:
        page.dump(file, encoding="utf-8", errors="replace")


def _images(records: Records, colours: dict[str, str], most: int, side: int) -> Iterator[dict[str, Any]]:
    """Yield the images on the page, one at a time."""
    total = len(records)
    count = min(total, most)
    chosen = {place * total // count for place in range(count)}
    for number, record in enumerate(records):
        if number not in chosen:
            continue
        try:
            picture = embedded(records.pixels(record), side)
        except InputError as err:
            records.skip(record, err)
            continue
        unit = max(record["width"], record["height"])
        yield {
            "name": record["image"],
            "width": record["width"],
            "height": record["height"],
            "picture": picture,
            "stroke": unit / 250,
            "size": unit / 40,
            "boxes": [
                {
                    "label": one["label"],
                    "score": one["score"],
                    "colour": colours[one["label"]],
                    "x": one["box"][0],
                    "y": one["box"][1],
                    "width": max(one["box"][2] - one["box"][0], 0),
                    "height": max(one["box"][3] - one["box"][1], 0),
                }
                for one in reversed(record["detections"])
            ],
        }
