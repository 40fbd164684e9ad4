"""What a run found, small enough to keep however many images it saw."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from regionclip_cli.results.detections import ImageDetections

FEW_IMAGES = 6
"""Up to so many images are listed one by one."""

FEW_ROWS = 8
"""So many detections are listed of an image."""


@dataclass
class Found:
    """How often a class was found, in how many images, and its best score."""

    count: int = 0
    images: int = 0
    best: float = 0.0


@dataclass
class Tally:
    """Counts by class, and the detections of the first few images.

    Attributes:
        images: How many were added.
        classes: By class name.
        first: Detections of the first images; empty once there are more than a few.
    """

    images: int = 0
    classes: dict[str, Found] = field(default_factory=dict)
    first: list[ImageDetections] = field(default_factory=list)

    @property
    def detections(self) -> int:
        """Return how many objects were found."""
        return sum(found.count for found in self.classes.values())

    def add(self, detections: ImageDetections) -> None:
        """Count one image."""
        self.images += 1
        for label, score in zip(detections.labels, detections.scores, strict=True):
            found = self.classes.setdefault(label, Found())
            found.count += 1
            found.best = max(found.best, float(score))
        for label in set(detections.labels):
            self.classes[label].images += 1
        self.first = [*self.first, detections] if self.images <= FEW_IMAGES else []

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Return headings and rows: what is in each image when there are few, else how often each class was found."""
        if self.images > FEW_IMAGES:
            order = sorted(self.classes.items(), key=lambda item: (-item[1].count, item[0]))
            rows = [[label, found.count, found.images, f"{found.best:.2f}"] for label, found in order]
            return ["object", "found", "in images", "best score"], rows
        rows = []
        for image in self.first:
            name = image.image
            for label, score, box in list(zip(image.labels, image.scores, image.boxes, strict=True))[:FEW_ROWS]:
                rows.append([name, label, f"{score:.2f}", " ".join(str(round(float(x))) for x in box)])
                name = ""
            if not len(image):
                rows.append([name, "nothing", "", ""])
            elif len(image) > FEW_ROWS:
                rows.append(["", f"and {len(image) - FEW_ROWS} more", "", ""])
        return ["image", "object", "score", "box (x1 y1 x2 y2)"], rows
