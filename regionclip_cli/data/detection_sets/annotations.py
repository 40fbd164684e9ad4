"""COCO's and LVIS's annotation files, read one entry at a time and checked entry by entry."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from regionclip_cli.data.detection_sets.validation import Problems, Wrong, entry, is_number, numbers, shown, text, whole
from regionclip_cli.data.json_stream import stream_json
from regionclip_cli.errors import UsageError

PARTS = ("images", "annotations", "categories")
Style = Literal["coco", "lvis"]


@dataclass
class Raw:
    """What a file holds, in columns that grow; ids are those of the file, and not yet looked up.

    Attributes:
        image_ids: Id of each image.
        names: File name of each image.
        sizes: Width and height of each image, one after the other.
        bad_images: Ids of images that were left out.
        categories: Name and frequency by category id.
        bad_categories: Ids of categories that were left out.
        ids, owners, category_ids, crowd: One number an annotation.
        xywh: Four numbers an annotation.
        area: One number an annotation.
        spans: Byte offsets of the start and the end of each annotation in the file.
        indices: The place of each annotation in the file's list, for messages.
        absent: neg_category_ids, as pairs of image id and category id.
        partial: not_exhaustive_category_ids, likewise.
        describe: Returns what messages call an annotation, by its value in `indices`.
    """

    image_ids: array[int] = field(default_factory=lambda: array("q"))
    names: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    bad_images: set[int] = field(default_factory=set)
    categories: dict[int, tuple[str, str]] = field(default_factory=dict)
    bad_categories: set[int] = field(default_factory=set)
    ids: array[int] = field(default_factory=lambda: array("q"))
    owners: array[int] = field(default_factory=lambda: array("q"))
    category_ids: array[int] = field(default_factory=lambda: array("q"))
    crowd: array[int] = field(default_factory=lambda: array("b"))
    xywh: array[float] = field(default_factory=lambda: array("d"))
    area: array[float] = field(default_factory=lambda: array("d"))
    spans: array[int] = field(default_factory=lambda: array("q"))
    indices: array[int] = field(default_factory=lambda: array("q"))
    absent: array[int] = field(default_factory=lambda: array("q"))
    partial: array[int] = field(default_factory=lambda: array("q"))
    describe: Callable[[int], str] = "annotations[{}]".format


def read_annotations(path: Path, style: Style, problems: Problems) -> Raw:
    """Read a file; entries that are wrong in themselves are noted and left out.

    Raises:
        MissingError: There is no such file.
        UsageError: It is not JSON, is cut off, lacks a part, or is LVIS's where COCO's was promised.
    """
    raw, seen = Raw(), set()
    known_images: set[int] = set()
    names: dict[str, int] = {}
    for key, index, value, start, end in stream_json(path):
        seen.add(key)
        if key not in PARTS:
            continue
        if index is None and value != []:
            raise UsageError(f"{path}: {key!r} is {shown(value)}, not a list.")
        if index is None:
            continue
        try:
            if key == "annotations":
                _annotation(raw, index, entry(value), start, end)
            elif key == "images":
                _image(raw, entry(value), style, known_images, path)
            else:
                _category(raw, entry(value), names)
        except Wrong as err:
            problems.add(f"{key}[{index}] {err}.")
    lacking = [part for part in PARTS if part not in seen]
    if lacking:
        raise UsageError(
            f"{path} has no {lacking[0]!r}, so it is no annotation file of COCO or LVIS.",
            "It needs the lists images, annotations and categories.",
        )
    return raw


def _image(raw: Raw, record: Mapping[str, Any], style: Style, known: set[int], path: Path) -> None:
    """Take one image."""
    number = whole(record, "id")
    if number in known:
        raise Wrong(f"has the id {number} of an earlier image")
    known.add(number)
    if style == "coco" and "neg_category_ids" in record:
        raise UsageError(
            f"{path} is an LVIS file: its images have neg_category_ids, which COCO's protocol would not respect.",
            "Say so: --dataset lvis, or `dataset: lvis` in a recipe.",
        )
    try:
        name = file_name(record)
        sides = [whole(record, "width"), whole(record, "height")]
        if min(sides) <= 0:
            raise Wrong(f"has the size {sides[0]} x {sides[1]}")
        lists = (
            [_ids(record, key) for key in ("neg_category_ids", "not_exhaustive_category_ids")]
            if style == "lvis"
            else []
        )
    except Wrong as err:
        raw.bad_images.add(number)
        raise Wrong(f"(id {number}) {err}") from err
    raw.image_ids.append(number)
    raw.names.append(name)
    raw.sizes.extend(sides)
    for pairs, ids in zip((raw.absent, raw.partial), lists, strict=False):
        for category in ids:
            pairs.extend((number, category))


def file_name(record: Mapping[str, Any]) -> str:
    """Return the file name of an image; LVIS gives an address whose last two parts are folder and file.

    Raises:
        Wrong: There is neither, or it is no text.
    """
    if "file_name" not in record and isinstance(record.get("coco_url"), str):
        parts = PurePosixPath(urlsplit(record["coco_url"]).path).parts
        if len(parts) > 1:
            return "/".join(part for part in parts[-2:] if part != "/")
    return text(record, "file_name").replace("\\", "/")


def _ids(record: Mapping[str, Any], key: str) -> list[int]:
    """Return a list of category ids."""
    value = record.get(key)
    if isinstance(value, list) and all(type(each) is int for each in value):
        return value
    raise Wrong(f"has no {key!r}" if key not in record else f"has the {key} {shown(value)}, not a list of ids")


def _category(raw: Raw, record: Mapping[str, Any], names: dict[str, int]) -> None:
    """Take one category."""
    number = whole(record, "id")
    if number in raw.categories:
        raise Wrong(f"has the id {number} of an earlier category")
    try:
        name = text(record, "name").strip()
        if name.casefold() in names:
            raise Wrong(f"has the name {name!r} of category {names[name.casefold()]} again")
        frequency = record.get("frequency", "")
        if frequency not in ("", "r", "c", "f"):
            raise Wrong(f"has the frequency {shown(frequency)}, not r, c or f")
    except Wrong as err:
        raw.bad_categories.add(number)
        raise Wrong(f"(id {number}) {err}") from err
    names[name.casefold()] = number
    raw.categories[number] = (name, frequency)


def _annotation(raw: Raw, index: int, record: Mapping[str, Any], start: int, end: int) -> None:
    """Take one annotation."""
    number = whole(record, "id")
    try:
        owner, category = whole(record, "image_id"), whole(record, "category_id")
        box = numbers(record, "bbox", 4, "four numbers [x, y, width, height]")
        if box[2] <= 0 or box[3] <= 0:
            raise Wrong(f"has the bbox {shown(record['bbox'])}, whose area is not above zero")
        crowd = record.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise Wrong(f"has the iscrowd {shown(crowd)}, not 0 or 1")
        area = record.get("area", box[2] * box[3])
        if not is_number(area) or area <= 0:
            raise Wrong(f"has the area {shown(area)}, which is not above zero")
    except Wrong as err:
        raise Wrong(f"(id {number}) {err}") from err
    raw.ids.append(number)
    raw.owners.append(owner)
    raw.category_ids.append(category)
    raw.crowd.append(int(crowd))
    raw.xywh.extend(box)
    raw.area.append(area)
    raw.spans.extend((start, end))
    raw.indices.append(index)


def read_segmentations(path: Path, spans: np.ndarray) -> list[Any]:
    """Return the segmentation of annotations by their byte offsets (N, 2); None for one without.

    Raises:
        UsageError: The file is not what it was when it was opened.
    """
    found = []
    try:
        with path.open("rb") as file:
            for start, end in spans.tolist():
                file.seek(start)
                found.append(json.loads(file.read(end - start)).get("segmentation"))
    except (OSError, ValueError, AttributeError) as err:
        raise UsageError(f"The annotation file {path} has changed or gone since it was opened.") from err
    return found
