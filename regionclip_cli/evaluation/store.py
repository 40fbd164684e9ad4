"""What is kept of every image while a set is measured: one line of JSON, so that a run can be cut off and shared out.

Numbers are written with as many digits as a float32 has, so that nothing is lost on the way through the file. Several
processes write a file each and need no word between them: whoever finds that the files hold every image may score.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regionclip_cli.data.detection_sets import DetectionImage
from regionclip_cli.errors import UsageError
from regionclip_cli.files import Journal
from regionclip_cli.runs.sharding import Share

STEM = "predictions"


@dataclass(frozen=True, eq=False)
class Line:
    """What is kept of one image; letters and units as in `predictor.Prediction`.

    Attributes:
        image: Id of the image.
        boxes: (N, 4) float32.
        scores: (N,) float32.
        names: (N,) int64, indices of names.
        truths, guesses, ranks: (R,) int64, see `seeing.Named`; None where no boxes were given.
        hits: (limits, thresholds) int64: objects that the best proposals cover; None where none were found.
        seconds: Time it took.
        error: Why there is nothing, or "".
    """

    image: int
    boxes: np.ndarray
    scores: np.ndarray
    names: np.ndarray
    truths: np.ndarray | None = None
    guesses: np.ndarray | None = None
    ranks: np.ndarray | None = None
    hits: np.ndarray | None = None
    seconds: float | None = None
    error: str = ""


class Predictions:
    """The predictions of one measurement: the file of this process, and what others have written beside it.

    Args:
        folder: Where the files are.
        share: Of this process.
        resume: Go on with the file of this process.

    Raises:
        UsageError: This process's file is there and `resume` was not asked for.
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: Path, share: Share | None = None, resume: bool = False) -> None:
        share = share or Share()
        self.folder = folder
        own = f"{STEM}-{share.index + 1}of{share.count}.jsonl" if share.count > 1 else f"{STEM}.jsonl"
        path = folder / own
        if not resume and path.exists() and path.stat().st_size:
            raise UsageError(
                f"{path} holds the predictions of another run already.",
                "Add --resume to go on with that run, or choose another folder with --out.",
            )
        self._journal = Journal(path, resume=resume)
        self._alone = share.count == 1 and len(list(folder.glob(f"{STEM}*.jsonl"))) == 1
        self.finished: set[int] = set()
        self._failed: set[int] = set()
        self._learn()

    def write(self, image: DetectionImage, line: Line) -> None:
        """Keep one image, on the disk before this returns."""
        content: dict[str, Any] = {
            "image": image.name,
            "id": line.image,
            "boxes": [_floats(box) for box in line.boxes],
            "scores": _floats(line.scores),
            "names": line.names.tolist(),
        }
        for key in ("truths", "guesses", "ranks", "hits"):
            value = getattr(line, key)
            if value is not None:
                content[key] = value.tolist()
        if line.seconds is not None:
            content["seconds"] = round(line.seconds, 6)
        self._journal.append(content)
        self.finished.add(line.image)

    def fail(self, image: DetectionImage, sentence: str) -> None:
        """Note that an image could not be looked at; another run will try again."""
        self._journal.append({"image": image.name, "id": image.id, "error": sentence})
        self._failed.add(image.id)

    def close(self) -> None:
        """Let go of the file."""
        self._journal.close()

    def images(self) -> set[int]:
        """Return the ids of all images that went well or failed, in this process or another."""
        if not self._alone:
            self._learn()
        return self.finished | self._failed

    def lines(self) -> Iterator[Line]:
        """Yield what is kept of each image, one at a time and each image once, whichever process wrote it."""
        yield from read_lines(self.folder)

    def _learn(self) -> None:
        """Read what the files of all processes hold by now."""
        for line in self.lines():
            (self._failed if line.error else self.finished).add(line.image)


def read_lines(folder: Path) -> Iterator[Line]:
    """Yield what the files of a folder keep of each image; one that went well is preferred to one that failed."""
    files = sorted(folder.glob(f"{STEM}*.jsonl"))
    done: set[int] = set()
    failed: dict[int, Line] = {}
    for path in files:
        with path.open("rb") as file:
            for text in file:
                line = _parse(text)
                if line is None or line.image in done:
                    continue
                if line.error:
                    failed[line.image] = line
                else:
                    done.add(line.image)
                    yield line
    yield from (line for image, line in failed.items() if image not in done)


def _parse(text: bytes) -> Line | None:
    """Return a line, or None for the rest of one that a crash has cut."""
    try:
        content = json.loads(text)
        if "error" in content:
            return Line(content["id"], *_no_detections(), error=str(content["error"]))
        return Line(
            image=content["id"],
            boxes=np.array(content["boxes"], np.float32).reshape(-1, 4),
            scores=np.array(content["scores"], np.float32),
            names=np.array(content["names"], np.int64),
            truths=_whole(content.get("truths")),
            guesses=_whole(content.get("guesses")),
            ranks=_whole(content.get("ranks")),
            hits=_whole(content.get("hits")),
            seconds=content.get("seconds"),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _whole(values: list[Any] | None) -> np.ndarray | None:
    return None if values is None else np.array(values, np.int64)


def _no_detections() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)


def _floats(values: np.ndarray) -> list[float | None]:
    """Return float32 numbers as the shortest decimals that mean the same float32; None, read as NaN, for no number."""
    return [float(text) if math.isfinite(float(text)) else None for text in values.astype(np.float32).astype(str)]
