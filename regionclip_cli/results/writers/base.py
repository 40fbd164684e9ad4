"""What every output format has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from regionclip_cli.results.detections import ImageDetections

if TYPE_CHECKING:
    import numpy as np


class Writer(ABC):
    """Writes detections in one format: `open`, `write` once an image, then `close`, or `abort` when the run was cut.

    Subclasses must leave no half-written file under a final name at any moment (`results.files.replacing`,
    `results.journal.Journal`) and raise `OutputError` when the disk refuses.

    Attributes:
        outputs: Files and folders, below the output folder, that this format writes. A new run refuses a folder that
            holds one of them already.
    """

    outputs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def open(self, out_dir: Path, labels: Sequence[str], resume: bool) -> None:
        """Begin.

        Args:
            out_dir: Output folder; it may not exist yet.
            labels: The class names, in the order of `ImageDetections.ids`.
            resume: Keep what an earlier run wrote here and add to it.
        """

    @abstractmethod
    def write(self, detections: ImageDetections, pixels: np.ndarray | None) -> None:
        """Add one image. `pixels` is RGB uint8 (H, W, 3) when the format's spec asks for it, else None."""

    def has(self, name: str) -> bool:
        """Say whether the image called `name` is written already; asked when a run is taken up again."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Finish: everything that was written is under its final name afterwards."""

    def abort(self) -> None:  # noqa: B027 - formats that hold nothing open need not care
        """Let go without finishing. What was written stays, ready to be taken up again."""
