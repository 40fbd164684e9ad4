"""COCO: a whole data set with scores, for annotation tools, and a result list, for COCO's own evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

from regionclip_cli.errors import UsageError
from regionclip_cli.files import replacing
from regionclip_cli.results.writers.base import RenderedWriter


class Records(Protocol):
    """Detections of images, as `ImageDetections.to_json` has them, that may be read several times: a journal's."""

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield one image after the other."""


class CocoWriter(RenderedWriter):
    """`coco.json`: images, categories (1.. in class order), annotations with score; `coco_results.json`: the list."""

    outputs: ClassVar[tuple[str, ...]] = ("coco.json", "coco_results.json", "coco.json.part")

    def render(self, out_dir: Path, labels: Sequence[str], journal: Records) -> None:
        """Write both files, one annotation in memory at a time."""
        categories = [{"id": index, "name": label} for index, label in enumerate(labels, 1)]
        with replacing(out_dir / "coco.json") as file:
            file.write(b'{"info": {"description": "Detections by regionclip"},\n"categories": ')
            file.write(json.dumps(categories).encode())
            file.write(b',\n"images": ')
            _write_list(file, _images(journal))
            file.write(b',\n"annotations": ')
            _write_list(file, _annotations(journal, labels))
            file.write(b"}\n")
        keys = ("image_id", "category_id", "bbox", "score")
        with replacing(out_dir / "coco_results.json") as file:
            _write_list(file, ({key: one[key] for key in keys} for one in _annotations(journal, labels)))
            file.write(b"\n")

    def records_in(self, final: Path) -> Iterable[Mapping[str, Any]]:
        """Read `coco.json` back."""
        try:
            content = json.loads(final.read_bytes())
            names = {category["id"]: category["name"] for category in content["categories"]}
            records = {
                image["id"]: {
                    **{"image": image["file_name"], "width": image["width"], "height": image["height"]},
                    "detections": [],
                }
                for image in content["images"]
            }
            for one in content["annotations"]:
                x, y, width, height = one["bbox"]
                box = [x, y, round(x + width, 2), round(y + height, 2)]
                detection = {"label": names[one["category_id"]], "score": one["score"], "box": box}
                records[one["image_id"]]["detections"].append(detection)
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise UsageError(f"{final} was not written by this tool, so it cannot be added to.") from err
        return records.values()


def _images(journal: Records) -> Iterator[dict[str, Any]]:
    """Yield COCO's images, numbered from 1 in order of arrival."""
    for number, record in enumerate(journal.records(), 1):
        yield {"id": number, "file_name": record["image"], "width": record["width"], "height": record["height"]}


def _annotations(journal: Records, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield COCO's annotations, boxes as [x, y, width, height] in pixels."""
    category = {label: number for number, label in enumerate(labels, 1)}
    found = ((image_id, one) for image_id, record in enumerate(journal.records(), 1) for one in record["detections"])
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
    """Write a JSON list, an item a line."""
    file.write(b"[")
    for mark, item in zip(chain([b"\n"], _forever(b",\n")), items, strict=False):
        file.write(mark + json.dumps(item).encode())
    file.write(b"]")


def _forever(mark: bytes) -> Iterator[bytes]:
    while True:
        yield mark
