"""COCO: a data set with scores, for annotation tools, and a result list, for COCO's own evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, BinaryIO

from regionclip_cli.files import replacing
from regionclip_cli.results.records import Records

FILE, RESULTS = "coco.json", "coco_results.json"
RESULT_KEYS = ("image_id", "category_id", "bbox", "score")


def render(records: Records, folder: Path, labels: Sequence[str]) -> None:
    """Write both files, one annotation in memory at a time.

    `coco.json` numbers images and categories from 1, in the order of the records and of `labels`; boxes are
    [x, y, width, height] in pixels.

    Raises:
        OutputError: A file cannot be written.
    """
    categories = [{"id": index, "name": label} for index, label in enumerate(labels, 1)]
    with replacing(folder / FILE) as file:
        file.write(b'{"info": {"description": "Detections by regionclip"},\n"categories": ')
        file.write(json.dumps(categories).encode())
        file.write(b',\n"images": ')
        _write_list(file, _images(records))
        file.write(b',\n"annotations": ')
        _write_list(file, _annotations(records, labels))
        file.write(b"}\n")
    with replacing(folder / RESULTS) as file:
        _write_list(file, ({key: one[key] for key in RESULT_KEYS} for one in _annotations(records, labels)))
        file.write(b"\n")


def _images(records: Records) -> Iterator[dict[str, Any]]:
    for number, record in enumerate(records, 1):
        yield {"id": number, "file_name": record["image"], "width": record["width"], "height": record["height"]}


def _annotations(records: Records, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    category = {label: number for number, label in enumerate(labels, 1)}
    found = ((image_id, one) for image_id, record in enumerate(records, 1) for one in record["detections"])
    for number, (image_id, one) in enumerate(found, 1):
        x1, y1, x2, y2 = one["box"]
        width, height = round(x2 - x1, 2), round(y2 - y1, 2)
        yield {
            "id": number,
            "image_id": image_id,
            "category_id": category[one["label"]],
            "bbox": [x1, y1, width, height],
            "area": round(width * height, 2),
            "iscrowd": 0,
            "score": one["score"],
        }


def _write_list(file: BinaryIO, items: Iterable[Any]) -> None:
    """Write a JSON list, one item per line."""
    file.write(b"[")
    for separator, item in zip(chain([b"\n"], repeat(b",\n")), items, strict=False):
        file.write(separator + json.dumps(item).encode())
    file.write(b"]")
