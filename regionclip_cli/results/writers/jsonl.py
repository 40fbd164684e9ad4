"""One JSON object an image, appended as soon as the image is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from regionclip_cli.files import Journal
from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.results.writers.base import Writer

if TYPE_CHECKING:
    import numpy as np


class JsonlWriter(Writer):
    """`detections.jsonl`: {"image", "width", "height", "detections": [{"label", "score", "box"}]} a line."""

    outputs: ClassVar[tuple[str, ...]] = ("detections.jsonl",)

    def open(self, out_dir: Path, labels: Sequence[str], resume: bool) -> None:
        """Open the file; on resume a torn last line is cut and all others stay."""
        self._journal = Journal(out_dir / self.outputs[0], resume)

    def write(self, detections: ImageDetections, pixels: np.ndarray | None) -> None:
        """Append one line."""
        self._journal.append(detections.to_json())

    def has(self, name: str) -> bool:
        """Say whether there is a line for this image."""
        return name in self._journal

    def close(self) -> None:
        """Close the file."""
        self._journal.close()

    def abort(self) -> None:
        """Close the file: it is whole after every line."""
        self._journal.close()
