"""YOLO: a text file of normalised boxes an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from regionclip_cli.files import Journal, replacing
from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.results.writers.base import Writer

if TYPE_CHECKING:
    import numpy as np


class YoloWriter(Writer):
    """`labels/<image without suffix>.txt`, a line `class cx cy w h score` a detection, in 0..1 of the image's size.

    `classes.txt` holds the class names, line 0 first. `labels.jsonl` tells which file belongs to which image: of two
    images that differ in the suffix alone, the second keeps its suffix in the name of its file.
    """

    outputs: ClassVar[tuple[str, ...]] = ("labels", "classes.txt", "labels.jsonl")

    def open(self, out_dir: Path, labels: Sequence[str], resume: bool) -> None:
        """Write the class list and open the index."""
        self._out_dir = out_dir
        self._index = Journal(out_dir / "labels.jsonl", resume)
        self._taken = {record.get("labels") for record in self._index.records()}
        with replacing(out_dir / "classes.txt") as file:
            file.write("".join(f"{' '.join(label.split())}\n" for label in labels).encode())

    def write(self, detections: ImageDetections, pixels: np.ndarray | None) -> None:
        """Write the label file of one image, then its line in the index."""
        name = PurePosixPath(detections.image)
        target = str(name.with_suffix(".txt"))
        if target in self._taken:
            target = f"{name}.txt"
        size = [detections.width, detections.height] * 2
        lines = []
        for index, score, (x1, y1, x2, y2) in zip(detections.ids, detections.scores, detections.boxes, strict=True):
            middle = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
            numbers = " ".join(f"{float(value) / side:.6f}" for value, side in zip(middle, size, strict=True))
            lines.append(f"{int(index)} {numbers} {float(score):.6f}\n")
        with replacing(self._out_dir / "labels" / target) as file:
            file.write("".join(lines).encode())
        self._taken.add(target)
        self._index.append({"image": detections.image, "labels": target})

    def has(self, name: str) -> bool:
        """Say whether the index has this image."""
        return name in self._index

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def abort(self) -> None:
        """Close the index: every label file is whole."""
        self._index.close()
