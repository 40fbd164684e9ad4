"""Precision and recall of a whole set by the protocols of COCO and LVIS, computed by faster-coco-eval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.errors import UsageError
from regionclip_cli.evaluation.predictions import ImagePrediction

BOXES = 100_000
"""Boxes scored at once, unless one class alone has more."""
PAIRS = 400_000
"""Pairs of image and class scored at once."""
AREAS = ("all", "small", "medium", "large")


NO_SCORE, NO_BOX = "score is not a number", "box is not four numbers"
"""Why a detection is left out that no healthy model makes."""


class Detections:
    """N detections of a set, collected image by image.

    Args:
        truth: The set.
        per_image: Highest-scoring detections to keep of an image, all classes together, as LVIS does; None keeps all.

    Attributes:
        left_out: How many detections were left out, by reason.
    """

    def __init__(self, truth: DetectionSet, per_image: int | None) -> None:
        self.truth, self.per_image = truth, per_image
        self.left_out: Counter[str] = Counter()
        self._parts: dict[int, ImagePrediction] = {}

    def add(self, found: ImagePrediction) -> tuple[int, ImagePrediction]:
        """Add one image; return its index in the set and what is kept of it. Labels are classes of the set.

        Raises:
            UsageError: The image is not in the set or was added before, a label is not a class of the set, or the
                arrays do not fit together.
        """
        place = self.truth.places_by_id.get(int(found.image), -1)
        if place < 0:
            raise UsageError(f"There are detections of image {found.image}, which is not in {self.truth.name}.")
        if place in self._parts:
            raise UsageError(f"Image {found.image} has two sets of detections.")
        self._parts[place] = kept = self._checked(found)
        return place, kept

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return all detections by image: indices (N,) of images in the set, boxes (N, 4), scores (N,), labels (N,)."""
        places = sorted(self._parts)
        parts = [self._parts[place] for place in places]
        return (
            np.repeat(np.array(places, np.int64), [len(part.scores) for part in parts]),
            np.concatenate([part.boxes for part in parts]) if parts else np.zeros((0, 4)),
            np.concatenate([part.scores for part in parts]) if parts else np.zeros(0),
            np.concatenate([part.labels for part in parts]) if parts else np.zeros(0, np.int64),
        )

    def _checked(self, found: ImagePrediction) -> ImagePrediction:
        """Return the detections of an image that count."""
        boxes, scores, labels = (np.asarray(each) for each in (found.boxes, found.scores, found.labels))
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
        if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != labels.shape or scores.shape != boxes.shape[:1]:
            shapes = f"boxes {boxes.shape}, scores {scores.shape}, labels {labels.shape}"
            raise UsageError(f"The detections of image {found.image} do not fit together: {shapes}.")
        labels = labels.astype(np.int64)
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.truth.classes)):
            wrong = int(labels[(labels < 0) | (labels >= len(self.truth.classes))][0])
            raise UsageError(
                f"A detection of image {found.image} has the label {wrong}; {self.truth.name} has "
                f"{len(self.truth.classes)} classes, counted from 0."
            )
        scored, boxed = np.isfinite(scores), np.isfinite(boxes).all(axis=1)
        self.left_out[NO_SCORE] += int((~scored).sum())
        self.left_out[NO_BOX] += int((scored & ~boxed).sum())
        rows = np.flatnonzero(scored & boxed)
        if self.per_image is not None and len(rows) > self.per_image:
            self.left_out[f"beyond the {self.per_image} best of an image"] += len(rows) - self.per_image
            rows = np.sort(rows[np.argsort(-scores[rows], kind="stable")[: self.per_image]])
        return ImagePrediction(found.image, boxes[rows], scores[rows], labels[rows])


@dataclass(frozen=True, eq=False)
class Curves:
    """Precision and recall of a protocol: T IoU thresholds, P recalls, C classes, A areas, M limits of detections.

    Entries of a class without objects (of an area) are -1.

    Attributes:
        overlaps: (T,) 0.5, 0.55 ... 0.95.
        recalls: (P,) 0, 0.01 ... 1.
        areas: Names of the areas.
        limits: (M,) detections that count per image and class (COCO) or per image (LVIS).
        precision: (T, P, C, A) at the last limit: the best precision at that recall or a higher one.
        recall: (T, C, A, M) the share of objects that is detected.
    """

    overlaps: np.ndarray
    recalls: np.ndarray
    areas: tuple[str, ...]
    limits: tuple[int, ...]
    precision: np.ndarray
    recall: np.ndarray


def measure_curves(truth: DetectionSet, found: Detections, limits: tuple[int, ...]) -> Curves:
    """Match detections to objects and return precision and recall.

    Args:
        truth: The annotated set. LVIS sets are scored by LVIS's rules: detections of a class count only in images where
            it is known to be present or absent, and unmatched ones are ignored where it is not exhaustively annotated.
        found: The detections.
        limits: Detections per image and class that count, ascending.
    """
    overlaps, recalls = np.linspace(0.5, 0.95, 10), np.linspace(0.0, 1.0, 101)
    count = len(truth.classes)
    precision = np.full((len(overlaps), len(recalls), count, len(AREAS)), -1.0)
    recall = np.full((len(overlaps), count, len(AREAS), len(limits)), -1.0)
    rows = _Rows(truth, found)
    for classes in rows.portions():
        judge = COCOeval_faster(
            COCO(rows.truth_of(classes)), COCO(rows.found_of(classes)), "bbox", lvis_style=truth.style == "lvis"
        )
        judge.params.imgIds = rows.images_of(classes).tolist()
        judge.params.maxDets = list(limits)
        judge.evaluate()
        judge.accumulate()
        precision[:, :, classes] = judge.eval["precision"][..., -1]
        recall[:, classes] = judge.eval["recall"]
    return Curves(overlaps, recalls, AREAS, limits, precision, recall)


class _Rows:
    """Objects and detections in the order of their classes."""

    def __init__(self, truth: DetectionSet, found: Detections) -> None:
        columns = truth.columns
        self.set, self.columns = truth, columns
        self.found_images, self.found_boxes, self.found_scores, self.found_labels = found.arrays()
        owners, rows = columns.objects.owners(), columns.objects.values
        # Equal scores are ranked by image id, so images are numbered in the order of their ids, from 1.
        self.places = np.argsort(columns.ids, kind="stable")
        self.numbers = np.empty(len(truth), np.int64)
        self.numbers[self.places] = np.arange(1, len(truth) + 1)
        order = np.argsort(columns.labels[rows], kind="stable")
        self.objects, self.object_images = rows[order], self.numbers[owners[order]]
        self.detections = np.argsort(self.found_labels, kind="stable")
        steps = np.arange(len(truth.classes) + 1)
        self.object_starts = np.searchsorted(columns.labels[self.objects], steps)
        self.detection_starts = np.searchsorted(self.found_labels[self.detections], steps)

    def portions(self) -> Iterator[range]:
        """Yield ranges of classes to score at once; those without objects are skipped."""
        start, boxes = 0, 0
        for label in range(len(self.set.classes)):
            own = int(np.diff(self.object_starts)[label] + np.diff(self.detection_starts)[label])
            if label > start and (boxes + own > BOXES or (label + 1 - start) * len(self.set) > PAIRS):
                yield from self._kept(start, label)
                start, boxes = label, 0
            boxes += own
        yield from self._kept(start, len(self.set.classes))

    def _kept(self, start: int, end: int) -> Iterator[range]:
        if self.object_starts[end] > self.object_starts[start]:
            yield range(start, end)

    def images_of(self, classes: range) -> np.ndarray:
        """Return the ids of the images that have an object or a detection of some classes."""
        chosen = self.detections[self._detections(classes)]
        seen = [self.object_images[self._objects(classes)], self.numbers[self.found_images[chosen]]]
        return np.unique(np.concatenate(seen))

    def truth_of(self, classes: range) -> dict[str, Any]:
        """Return the objects of some classes in COCO format. Ids start at 1: the library uses 0 for no match."""
        c, rows = self.columns, self._objects(classes)
        objects = self.objects[rows]
        lists = (
            self.object_images[rows],
            c.labels[objects] + 1,
            c.xywh[objects],
            c.area[objects],
            c.crowd[objects],
        )
        annotations = [
            {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": int(crowd)}
            for number, (image, label, box, area, crowd) in enumerate(
                zip(*map(np.ndarray.tolist, lists), strict=True), 1
            )
        ]
        return {**self._frame(classes), "annotations": annotations}

    def found_of(self, classes: range) -> dict[str, Any]:
        """Return the detections of some classes in COCO format."""
        chosen = self.detections[self._detections(classes)]
        boxes = self.found_boxes[chosen].astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        lists = (
            self.numbers[self.found_images[chosen]],
            self.found_labels[chosen] + 1,
            boxes,
            self.found_scores[chosen].astype(np.float64),
        )
        annotations = [
            {
                **{"id": number, "image_id": image, "category_id": label, "bbox": box},
                **{"score": score, "area": box[2] * box[3], "iscrowd": 0},
            }
            for number, (image, label, box, score) in enumerate(zip(*map(np.ndarray.tolist, lists), strict=True), 1)
        ]
        return {**self._frame(classes), "annotations": annotations}

    def _frame(self, classes: range) -> dict[str, Any]:
        """Return images and categories."""
        images = []
        for number in self.images_of(classes).tolist():
            told: dict[str, Any] = {"id": number, "width": 0, "height": 0}
            if self.set.style == "lvis":
                told["neg_category_ids"] = (self.columns.neg[self.places[number - 1]] + 1).tolist()
                told["not_exhaustive_category_ids"] = (
                    self.columns.not_exhaustive[self.places[number - 1]] + 1
                ).tolist()
            images.append(told)
        # The library requires a frequency; `Scores` computes the groups from the classes.
        return {"images": images, "categories": [{"id": label + 1, "frequency": "f"} for label in classes]}

    def _objects(self, classes: range) -> slice:
        return slice(self.object_starts[classes.start], self.object_starts[classes.stop])

    def _detections(self, classes: range) -> slice:
        return slice(self.detection_starts[classes.start], self.detection_starts[classes.stop])


COCO_DETECTIONS, LVIS_DETECTIONS = 100, 300
"""Detections that count by default: per image and class, and per image."""
