"""Parquet for data frames: one row per detection."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from regionclip_cli.files import replacing
from regionclip_cli.results.records import Records

FILE = "detections.parquet"
ROWS = 65_536
"""Rows in memory, and of a row group."""


def render(records: Records, folder: Path, labels: Sequence[str]) -> None:
    """Write `detections.parquet`: image, width, height, label, score, x1, y1, x2, y2; the class names as metadata.

    An image without detections has no row. Needs pyarrow.

    Raises:
        OutputError: The file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole, real = pa.int32(), pa.float64()
    columns = {"image": pa.string(), "width": whole, "height": whole, "label": pa.string(), "score": real}
    columns |= dict.fromkeys(("x1", "y1", "x2", "y2"), real)
    schema = pa.schema(list(columns.items()), metadata={"labels": json.dumps(list(labels))})
    rows = _rows(records)
    with replacing(folder / FILE) as file, pq.ParquetWriter(file, schema) as table:
        while part := list(islice(rows, ROWS)):
            arrays = [
                pa.array(values, kind) for values, kind in zip(zip(*part, strict=True), columns.values(), strict=True)
            ]
            table.write_batch(pa.record_batch(arrays, schema=schema))


def _rows(records: Records) -> Iterator[tuple[Any, ...]]:
    for record in records:
        name = record["image"].encode("utf-8", "replace").decode()
        for one in record["detections"]:
            yield (name, record["width"], record["height"], one["label"], one["score"], *one["box"])
