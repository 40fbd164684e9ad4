"""YOLO: a training set of images, one text file of normalised boxes per image, and `data.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import yaml

from regionclip_cli.errors import OutputError
from regionclip_cli.files import is_name_too_long, replacing
from regionclip_cli.results.detections import ImageRecord
from regionclip_cli.results.records import Records
from regionclip_cli.results.writers.image_files import check_way, place_image

FOLDER = "yolo"


def check(labels: Sequence[str], scores: bool, images: str) -> None:
    """Check the options.

    Raises:
        UsageError: `images` is not one of `image_files.WAYS`.
    """
    check_way(images)


def render(records: Records, folder: Path, labels: Sequence[str], scores: bool = False, images: str = "copy") -> None:
    """Write `yolo/data.yaml`, `yolo/images/` and `yolo/labels/`, a line `class cx cy w h` per detection in 0..1.

    Ultralytics pairs `images/a/1.jpg` with `labels/a/1.txt`; of two images that differ only in their suffix, the second
    keeps its suffix: `images/a/1.png.png` and `labels/a/1.png.txt`.

    Args:
        records: The detections.
        folder: The output folder.
        labels: The class names, numbered from 0.
        scores: Append the score to each line, as predictions of Ultralytics do; training needs lines without.
        images: How to place the images, see `image_files.place_image`.

    Raises:
        OutputError: A file cannot be written.
    """
    index = {label: number for number, label in enumerate(labels)}
    root, taken = folder / FOLDER, set[str]()
    names = {number: " ".join(label.split()) for number, label in enumerate(labels)}
    with replacing(root / "data.yaml") as file:
        content = {"train": "images", "val": "images", "names": names}
        file.write(yaml.safe_dump(content, allow_unicode=True, sort_keys=False).encode())
    for record in records:
        name = PurePosixPath(record["image"])
        if not name.suffix:
            name = name.with_name(f"{name.name}.png")
        if str(name.with_suffix("")) in taken:
            name = name.with_name(f"{name.name}{name.suffix}")
        taken.add(str(name.with_suffix("")))
        try:
            with replacing(root / "labels" / name.with_suffix(".txt")) as file:
                file.write("".join(_lines(record, index, scores)).encode())
        except OutputError as err:
            if not is_name_too_long(err):
                raise
            records.skip(record, err.message)
            continue
        place_image(records, record, root / "images" / name, images)


def _lines(record: ImageRecord, index: dict[str, int], scores: bool) -> list[str]:
    size = [record["width"], record["height"]] * 2
    lines = []
    for one in record["detections"]:
        x1, y1, x2, y2 = one["box"]
        centred = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        numbers = [f"{value / side:.6f}" for value, side in zip(centred, size, strict=True)]
        numbers += [f"{one['score']:.6f}"] if scores else []
        lines.append(f"{index[one['label']]} {' '.join(numbers)}\n")
    return lines
