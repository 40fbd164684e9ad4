"""The detections of one image, as arrays while they are computed and as one JSON object once they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

if TYPE_CHECKING:
    from supervision import Detections


class DetectionRecord(TypedDict):
    """One detection in a stored record.

    Attributes:
        label: Class name.
        score: Six decimal places.
        box: x1, y1, x2, y2 in pixels of the upright image, two decimal places.
    """

    label: str
    score: float
    box: list[float]


class ImageRecord(TypedDict):
    """The detections of one image: a line of `detections.jsonl`, and what writers read.

    Attributes:
        image: Name of the image, a relative path with forward slashes.
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        detections: By falling score.
        path: Absolute path of the file, present only where `image` is not its path from the working folder.
    """

    image: str
    width: int
    height: int
    detections: list[DetectionRecord]
    path: NotRequired[str]


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """The objects found in one image, by falling score.

    Attributes:
        image: Name of the image, a relative path with forward slashes.
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        boxes: (N, 4) float32, xyxy in pixels of the upright image.
        scores: (N,) float32.
        labels: N class names.
        ids: (N,) int64, index of each label in the list of classes.
    """

    image: str
    width: int
    height: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...]
    ids: np.ndarray

    def __post_init__(self) -> None:
        sizes = {len(self.boxes), len(self.scores), len(self.labels), len(self.ids)}
        if len(sizes) != 1 or self.boxes.shape[1:] != (4,):
            raise ValueError(f"{self.image}: boxes {self.boxes.shape}, scores, labels and ids of {sizes} do not match")

    def __len__(self) -> int:
        """Return the number of detections N."""
        return len(self.labels)

    @classmethod
    def from_record(cls, record: ImageRecord, index: Mapping[str, int]) -> ImageDetections:
        """Return a stored record as arrays.

        Args:
            record: A line of `detections.jsonl`.
            index: The id of each class name.
        """
        found = record["detections"]
        labels = tuple(one["label"] for one in found)
        return cls(
            image=record["image"],
            width=record["width"],
            height=record["height"],
            boxes=np.array([one["box"] for one in found], np.float32).reshape(-1, 4),
            scores=np.array([one["score"] for one in found], np.float32),
            labels=labels,
            ids=np.array([index[label] for label in labels], np.int64),
        )

    def to_json(self) -> dict[str, Any]:
        """Return an `ImageRecord`: `image`, `width`, `height` and `detections` with `label`, `score`, `box`."""
        found = [
            {"label": label, "score": round(float(score), 6), "box": [round(float(x), 2) for x in box]}
            for label, score, box in zip(self.labels, self.scores, self.boxes, strict=True)
        ]
        return {"image": self.image, "width": self.width, "height": self.height, "detections": found}

    def to_supervision(self) -> Detections:
        """Return `supervision.Detections` with the labels as `data["class_name"]`, for drawing, slicing, tracking."""
        from supervision import Detections

        return Detections(
            xyxy=self.boxes.astype(np.float32).reshape(-1, 4),
            confidence=self.scores.astype(np.float32),
            class_id=self.ids.astype(int),
            data={"class_name": np.array(self.labels, dtype=str)},
        )
