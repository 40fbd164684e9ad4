"""What a model predicted for each image, as arrays and as one JSON line per image.

The path of a detection to its average precision: the model's `InstanceData`, an `ImagePrediction`, a line of
`predictions.jsonl`, an `ImagePrediction` again, the flat arrays of `coco_eval.Detections`, and the lists that
faster-coco-eval takes.

Lines hold as many digits as a float32 has, so that nothing is lost in the file. A run can be resumed, and several
processes write one file each: whichever finds that the files hold every image may score them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from regionclip_cli.data.detection_sets import DetectionImage
from regionclip_cli.errors import UsageError
from regionclip_cli.files import Journal
from regionclip_cli.runs.sharding import Share

STEM = "predictions"
MATCH_KEYS = ("truths", "guesses", "ranks", "hits")


@dataclass(frozen=True, eq=False)
class ImagePrediction:
    """What a model predicted for one image with N detections and, where their boxes were given, R annotated objects.

    Attributes:
        image: Id of the image.
        boxes: (N, 4) float32, xyxy in pixels of the upright image, by falling score.
        scores: (N,) float32.
        labels: (N,) int64, indices into the names of the task.
        truths: (R,) int64, classes of the objects; None where boxes were not those of the annotations.
        guesses: (R,) int64, most probable name of each object.
        ranks: (R,) int64, how many names were more probable than the right one; 0 is right.
        hits: (limits, thresholds) int64, objects covered by the best proposals; None where none were computed.
        seconds: Time for the image after it was decoded.
        error: Why there is no prediction, or "".
    """

    image: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    truths: np.ndarray | None = None
    guesses: np.ndarray | None = None
    ranks: np.ndarray | None = None
    hits: np.ndarray | None = None
    seconds: float | None = None
    error: str = ""

    @classmethod
    def empty(cls, image: int, **others: Any) -> ImagePrediction:
        """Return a prediction without detections."""
        return cls(image, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), **others)

    def select(self, rows: np.ndarray, labels: np.ndarray | None = None) -> ImagePrediction:
        """Return some of the detections, chosen by mask (N,) or index, with other labels (N,) if given."""
        labels = self.labels if labels is None else labels
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=labels[rows])

    def to_json(self, name: str) -> dict[str, Any]:
        """Return the line of the image called `name`."""
        if self.error:
            return {"image": name, "id": self.image, "error": self.error}
        content: dict[str, Any] = {
            "image": name,
            "id": self.image,
            "boxes": [_floats(box) for box in self.boxes],
            "scores": _floats(self.scores),
            "names": self.labels.tolist(),
        }
        for key in MATCH_KEYS:
            if (value := getattr(self, key)) is not None:
                content[key] = value.tolist()
        if self.seconds is not None:
            content["seconds"] = round(self.seconds, 6)
        return content

    @classmethod
    def from_json(cls, content: Any) -> ImagePrediction:
        """Return the prediction in a line.

        Raises:
            ValueError, KeyError, TypeError: It is not one of ours.
        """
        if "error" in content:
            return cls.empty(content["id"], error=str(content["error"]))
        matches: dict[str, Any] = {
            key: np.array(content[key], np.int64) for key in MATCH_KEYS if content.get(key) is not None
        }
        return cls(
            image=content["id"],
            boxes=np.array(content["boxes"], np.float32).reshape(-1, 4),
            scores=np.array(content["scores"], np.float32),
            labels=np.array(content["names"], np.int64),
            seconds=content.get("seconds"),
            **matches,
        )


class PredictionStore:
    """The predictions of one evaluation: the file of this process, and those of other processes beside it.

    Args:
        folder: Where the files are.
        share: Of this process.
        resume: Continue the file of this process.

    Raises:
        UsageError: This process's file exists and `resume` is not set.
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: Path, share: Share | None = None, resume: bool = False) -> None:
        share = share or Share()
        self.folder = folder
        own = f"{STEM}-{share.index + 1}of{share.count}.jsonl" if share.count > 1 else f"{STEM}.jsonl"
        path = folder / own
        if not resume and path.exists() and path.stat().st_size:
            raise UsageError(
                f"{path} already holds the predictions of another run.",
                "Add --resume to continue that run, or choose another folder with --out.",
            )
        self._journal = Journal(path, resume=resume)
        self._alone = share.count == 1 and len(list(folder.glob(f"{STEM}*.jsonl"))) == 1
        self.finished: set[int] = set()
        self._failed: set[int] = set()
        self._refresh()

    def write(self, image: DetectionImage, prediction: ImagePrediction) -> None:
        """Append the prediction of one image; it is on the disk when this returns. A failure is retried on resume."""
        self._journal.append(prediction.to_json(image.name))
        (self._failed if prediction.error else self.finished).add(prediction.image)

    def close(self) -> None:
        """Close the file."""
        self._journal.close()

    def images(self) -> set[int]:
        """Return the ids of all images that succeeded or failed, in this process or another."""
        if not self._alone:
            self._refresh()
        return self.finished | self._failed

    def read(self) -> Iterator[ImagePrediction]:
        """Yield the prediction of each image once, whichever process wrote it."""
        yield from read_predictions(self.folder)

    def _refresh(self) -> None:
        """Read which images the files of all processes hold by now."""
        for prediction in self.read():
            (self._failed if prediction.error else self.finished).add(prediction.image)


def read_predictions(folder: Path) -> Iterator[ImagePrediction]:
    """Yield the prediction of each image in the files of a folder; a success is preferred to a failure."""
    done: set[int] = set()
    failed: dict[int, ImagePrediction] = {}
    for path in sorted(folder.glob(f"{STEM}*.jsonl")):
        with path.open("rb") as file:
            for text in file:
                try:
                    prediction = ImagePrediction.from_json(json.loads(text))
                except (ValueError, KeyError, TypeError):
                    continue  # the rest of a line that a crash has cut
                if prediction.image in done:
                    continue
                if prediction.error:
                    failed[prediction.image] = prediction
                else:
                    done.add(prediction.image)
                    yield prediction
    yield from (prediction for image, prediction in failed.items() if image not in done)


def _floats(values: np.ndarray) -> list[float | None]:
    """Return float32 numbers as the shortest decimals that mean the same float32; None, read as NaN, if not finite."""
    return [float(text) if math.isfinite(float(text)) else None for text in values.astype(np.float32).astype(str)]
