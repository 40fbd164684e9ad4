"""CSV for spreadsheets and data frames: one row per detection."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from regionclip_cli.files import replacing
from regionclip_cli.results.records import Records

FILE = "detections.csv"
COLUMNS = ("image", "width", "height", "label", "score", "x1", "y1", "x2", "y2")


def render(records: Records, folder: Path, labels: Sequence[str]) -> None:
    """Write `detections.csv`, UTF-8 with a header. An image without detections has no row.

    Raises:
        OutputError: The file cannot be written.
    """
    with replacing(folder / FILE) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(COLUMNS)
        for record in records:
            for one in record["detections"]:
                size = (record["width"], record["height"])
                rows.writerow((record["image"], *size, one["label"], one["score"], *one["box"]))
        text.detach()
