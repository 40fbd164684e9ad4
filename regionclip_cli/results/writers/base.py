"""Base of the formats whose file can only be written once everything is known."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionclip_cli.files import Journal, writing
from regionclip_cli.results.detections import ImageDetections

if TYPE_CHECKING:
    import numpy as np


from abc import ABC
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np


class Writer(ABC):
    """Writes detections in one format: `open`, `write` once an image, then `close`, or `abort` when the run was cut.

    Subclasses must leave no half-written file under a final name at any moment (`files.replacing`,
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


class RenderedWriter(Writer):
    """Collects detections in a journal beside the final file and renders that file when all is done.

    The journal (`<first output>.part`) keeps memory flat and an interrupted run resumable; it goes away with `close`.
    On resume after a finished run it is made again from the final file.
    """

    def open(self, out_dir: Path, labels: Sequence[str], resume: bool) -> None:
        """Open the journal."""
        self._out_dir = out_dir
        self._labels = tuple(labels)
        final, part = out_dir / self.outputs[0], out_dir / f"{self.outputs[0]}.part"
        anew = not part.exists()
        self._journal = Journal(part, resume)
        if resume and anew and final.exists():
            try:
                for record in self.records_in(final):
                    self._journal.append(record)
            except BaseException:
                self._journal.close()
                part.unlink()
                raise

    def write(self, detections: ImageDetections, pixels: np.ndarray | None) -> None:
        """Add one image to the journal."""
        self._journal.append(detections.to_json())

    def has(self, name: str) -> bool:
        """Say whether the journal has this image."""
        return name in self._journal

    def close(self) -> None:
        """Render the final files, each at once and whole, and drop the journal."""
        self._journal.close()
        self.render(self._out_dir, self._labels, self._journal)
        with writing(self._journal.path):
            self._journal.path.unlink()

    def abort(self) -> None:
        """Leave the journal for a later run."""
        self._journal.close()

    @abstractmethod
    def render(self, out_dir: Path, labels: Sequence[str], journal: Journal) -> None:
        """Write the final files from `journal.records()`, which may be read several times."""

    @abstractmethod
    def records_in(self, final: Path) -> Iterable[Mapping[str, Any]] | Iterator[Mapping[str, Any]]:
        """Yield what an earlier run put into the final file, as `ImageDetections.to_json` has it.

        Raises:
            UsageError: The file is not one of ours.
        """
