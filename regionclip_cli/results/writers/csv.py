"""CSV for spreadsheets and data frames: one row a detection."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from regionclip_cli.errors import UsageError
from regionclip_cli.files import Journal, replacing
from regionclip_cli.results.writers.base import RenderedWriter

COLUMNS = ("image", "width", "height", "label", "score", "x1", "y1", "x2", "y2")


class TableWriter(RenderedWriter):
    """`detections.csv`, UTF-8 with a heading. An image in which nothing was found has no row."""

    outputs: ClassVar[tuple[str, ...]] = ("detections.csv", "detections.csv.part")

    def render(self, out_dir: Path, labels: Sequence[str], journal: Journal) -> None:
        """Write the table, a row in memory at a time."""
        with replacing(out_dir / self.outputs[0]) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
            rows = csv.writer(text, lineterminator="\n")
            rows.writerow(COLUMNS)
            for record in journal.records():
                for one in record["detections"]:
                    size = (record["width"], record["height"])
                    rows.writerow((record["image"], *size, one["label"], one["score"], *one["box"]))
            text.detach()

    def records_in(self, final: Path) -> Iterable[Mapping[str, Any]]:
        """Read the table back. Images without a row are not known; looking at them again changes nothing."""
        records: dict[str, dict[str, Any]] = {}
        try:
            with final.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                for row in csv.DictReader(file):
                    size = {"width": int(row["width"]), "height": int(row["height"])}
                    record = records.setdefault(row["image"], {"image": row["image"], **size, "detections": []})
                    box = [float(row[side]) for side in COLUMNS[-4:]]
                    record["detections"].append({"label": row["label"], "score": float(row["score"]), "box": box})
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as err:
            raise UsageError(f"{final} was not written by this tool, so it cannot be added to.") from err
        return records.values()
