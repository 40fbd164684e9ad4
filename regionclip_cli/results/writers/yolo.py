"""YOLO: one text file of normalised boxes per image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from regionclip_cli.errors import OutputError
from regionclip_cli.files import is_name_too_long, replacing
from regionclip_cli.results.records import Records


def render(records: Records, folder: Path, labels: Sequence[str]) -> None:
    """Write `labels/<image without suffix>.txt`, a line `class cx cy w h score` per detection, in 0..1 of the image.

    `classes.txt` lists the class names, line 0 first. `labels.jsonl` names the label file of each image: of two images
    that differ only in their suffix, the second keeps its suffix in the name of its file.

    Raises:
        OutputError: A file cannot be written.
    """
    index = {label: number for number, label in enumerate(labels)}
    with replacing(folder / "classes.txt") as file:
        file.write("".join(f"{' '.join(label.split())}\n" for label in labels).encode())
    taken: set[str] = set()
    with replacing(folder / "labels.jsonl") as listing:
        for record in records:
            name = PurePosixPath(record["image"])
            target = str(name.with_suffix(".txt"))
            if target in taken:
                target = f"{name}.txt"
            taken.add(target)
            size = [record["width"], record["height"]] * 2
            lines = []
            for one in record["detections"]:
                x1, y1, x2, y2 = one["box"]
                centred = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
                numbers = " ".join(f"{value / side:.6f}" for value, side in zip(centred, size, strict=True))
                lines.append(f"{index[one['label']]} {numbers} {one['score']:.6f}\n")
            try:
                with replacing(folder / "labels" / target) as file:
                    file.write("".join(lines).encode())
            except OutputError as err:
                if not is_name_too_long(err):
                    raise
                records.skip(record, err.message)
                continue
            listing.write(json.dumps({"image": record["image"], "labels": target}).encode() + b"\n")
