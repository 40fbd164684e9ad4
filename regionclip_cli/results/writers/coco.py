"""COCO: a data set with scores, for annotation tools, and a result list, for COCO's own evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regionclip_cli.data.detection_sets.class_names import folded
from regionclip_cli.data.image_names import ImageNames
from regionclip_cli.data.json_stream import stream_json
from regionclip_cli.errors import InputError, UsageError, did_you_mean
from regionclip_cli.files import replacing, user_path
from regionclip_cli.results.detections import ImageRecord
from regionclip_cli.results.records import Records
from regionclip_cli.results.writers.json_list import write_list

FILE, RESULTS = "coco.json", "coco_results.json"
RESULT_KEYS = ("image_id", "category_id", "bbox", "score")


def check(labels: Sequence[str], annotations: str | None) -> None:
    """Check the options.

    Raises:
        MissingError: There is no annotation file.
        UsageError: It is not a COCO file, or a class is none of its categories.
    """
    if annotations is not None:
        AnnotationIds.read(user_path(annotations), labels)


def render(records: Records, folder: Path, labels: Sequence[str], annotations: str | None = None) -> None:
    """Write both files, one annotation in memory at a time.

    `coco.json` numbers images and categories from 1, in the order of the records and of `labels`; boxes are
    [x, y, width, height] in pixels.

    Args:
        records: The detections.
        folder: The output folder.
        labels: The class names.
        annotations: COCO file whose ids of images and categories are used, so that `COCO(annotations).loadRes` takes
            the result list; images that are not in it are skipped.

    Raises:
        OutputError: A file cannot be written.
    """
    ids = None if annotations is None else AnnotationIds.read(user_path(annotations), labels)
    numbered = _Numbered(records, ids)
    category = dict(zip(labels, range(1, len(labels) + 1), strict=True)) if ids is None else ids.categories
    with replacing(folder / FILE) as file:
        file.write(b'{"info": {"description": "Detections by regionclip"},\n"categories": ')
        file.write(json.dumps([{"id": category[label], "name": label} for label in labels]).encode())
        file.write(b',\n"images": ')
        write_list(file, _images(numbered))
        file.write(b',\n"annotations": ')
        write_list(file, _annotations(numbered, category))
        file.write(b"}\n")
    with replacing(folder / RESULTS) as file:
        write_list(file, ({key: one[key] for key in RESULT_KEYS} for one in _annotations(numbered, category)))
        file.write(b"\n")


@dataclass(frozen=True)
class AnnotationIds:
    """Ids in a COCO annotation file.

    Attributes:
        images: Ids by index of the image.
        names: Finds the index of an image.
        categories: Ids by class name.
    """

    images: Sequence[int]
    names: ImageNames
    categories: Mapping[str, int]

    @classmethod
    def read(cls, path: Path, labels: Sequence[str]) -> AnnotationIds:
        """Read the ids of images and categories.

        Raises:
            MissingError: There is no such file.
            UsageError: It is not a COCO file, or a class is none of its categories.
        """
        images: dict[str, int] = {}
        categories: dict[str, int] = {}
        for element in stream_json(path):
            if element.position is None or element.key not in ("images", "categories"):
                continue
            key, target = ("file_name", images) if element.key == "images" else ("name", categories)
            try:
                target[str(element.value[key])] = int(element.value["id"])
            except (KeyError, TypeError, ValueError, OverflowError) as err:
                raise UsageError(f"{path}: {element.key}[{element.position}] has no {key!r} and 'id'.") from err
        if not images or not categories:
            raise UsageError(f"{path} has no images or no categories.", "Give a COCO annotation file.")
        known = {folded(name): number for name, number in categories.items()}
        for label in labels:
            if folded(label) not in known:
                near = did_you_mean(label, categories)
                raise UsageError(f"The class {label!r} is not a category of {path}.", near)
        return cls(list(images.values()), ImageNames(images), {label: known[folded(label)] for label in labels})


class _Numbered:
    """Records with the id of each image; those without an id are skipped, and reported in the first pass."""

    def __init__(self, records: Records, ids: AnnotationIds | None) -> None:
        self._records, self._ids = records, ids
        self._reported = False

    def __iter__(self) -> Iterator[tuple[int, ImageRecord]]:
        if self._ids is None:
            yield from enumerate(self._records, 1)
            return
        taken: set[int] = set()
        for record in self._records:
            try:
                place = self._ids.names.find(record["image"])
                number = None if place is None else self._ids.images[place]
                reason: InputError | str = f"{record['image']} is not in the annotation file, or there twice."
            except InputError as err:
                number, reason = None, err
            if number is None or number in taken:
                if not self._reported:
                    self._records.skip(record, reason)
                continue
            taken.add(number)
            yield number, record
        self._reported = True


def _images(numbered: _Numbered) -> Iterator[dict[str, Any]]:
    for number, record in numbered:
        yield {"id": number, "file_name": record["image"], "width": record["width"], "height": record["height"]}


def _annotations(numbered: _Numbered, category: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    found = ((image_id, one) for image_id, record in numbered for one in record["detections"])
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
