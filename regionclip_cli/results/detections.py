"""What was found in one image: the one result type of this package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from supervision import Detections


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """The objects found in one image, best first.

    Attributes:
        image: Name of the image: its relative path.
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        boxes: (N, 4) float32, xyxy in pixels of the upright original.
        scores: (N,) float32.
        labels: N class names.
        ids: (N,) int64, the place of each label in the list of classes.
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

    def to_json(self) -> dict[str, Any]:
        """Return plain data: `image`, `width`, `height` and, best first, `label`, `score`, `box` of each detection.

        Boxes are [x1, y1, x2, y2] in pixels, rounded to hundredths; scores are rounded to six places.
        """
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
