"""Base of the formats whose file can only be written once everything is known."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.results.files import writing
from regionclip_cli.results.journal import Journal
from regionclip_cli.results.writers.base import Writer

if TYPE_CHECKING:
    import numpy as np


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
