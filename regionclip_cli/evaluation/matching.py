"""Which object each detection of one photo is about: for confusions, and to find the photos that went worst.

The protocols look at one class over all images; this looks at one image with all its classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from regionclip_cli.data.detection_sets import DetectionImage, DetectionSet
from regionclip_cli.errors import UsageError

OVERLAP = 0.5
"""Intersection over union from which on a detection is about an object."""

NO_SCORE, NO_BOX = "score is not a number", "box is not four numbers"
"""Why a detection is left out that no model in order makes."""


class PhotoMatch(NamedTuple):
    """How the G objects of a photo (crowds left out) were found.

    Attributes:
        labels: (G,) int64, their classes.
        called: (G,) int64, the class of the surest detection that is about the object, whatever the class; -1: none.
            Each detection is about one object.
        found: How many were found under their own name.
        score: Average precision of the photo in 0..1, all its classes in one list: 1 when every object is found under
            its name, surer than anything else. NaN for a photo without objects.
    """

    labels: np.ndarray
    called: np.ndarray
    found: int
    score: float


def match_photo(image: DetectionImage, found: Found, lvis: bool) -> PhotoMatch:
    """Match the detections of a photo to its objects, the surest first.

    Args:
        image: The objects. A detection on a crowd of its class is no mistake.
        found: The detections.
        lvis: Leave out detections of classes that are not known to be present or absent, and unmatched ones of
            classes that are not fully annotated.
    """
    objects = ~image.crowd
    labels, boxes = image.labels[objects], image.boxes[objects]
    order = np.argsort(-found.scores, kind="stable")
    if lvis:
        known = np.array([*image.neg, *image.labels.tolist()], np.int64)
        order = order[np.isin(found.labels[order], known)]
    ranked, guesses = found.boxes[order], found.labels[order]
    overlaps = overlap(ranked, boxes)
    called = np.full(len(labels), -1)
    for rank, one in _assign(np.where(overlaps >= OVERLAP, overlaps, -1.0)):
        called[one] = guesses[rank]
    same = guesses[:, None] == labels[None]
    right = np.array([rank for rank, _ in _assign(np.where(same & (overlaps >= OVERLAP), overlaps, -1.0))], np.int64)
    if not len(labels):
        return PhotoMatch(labels, called, 0, float("nan"))
    excused = _on_crowd(image, ranked, guesses)
    if lvis:
        excused |= np.isin(guesses, list(image.not_exhaustive))
    counted = ~excused
    counted[right] = True
    hit = np.zeros(len(guesses), bool)
    hit[right] = True
    precision = np.cumsum(hit) / np.maximum(np.cumsum(counted), 1)
    return PhotoMatch(labels, called, len(right), float(precision[hit].sum() / len(labels)))


def _assign(able: np.ndarray) -> list[tuple[int, int]]:
    """Give each row, the first one first, the best column that is still free; -1 is no pair. Return the pairs."""
    pairs = []
    able = able.copy()
    for rank in np.flatnonzero(able.max(axis=1, initial=-1.0) >= 0).tolist():
        best = int(able[rank].argmax())
        if able[rank, best] >= 0:
            pairs.append((rank, best))
            able[:, best] = -1.0
    return pairs


def _on_crowd(image: DetectionImage, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Say of each detection whether a crowd of its class covers half of it or more."""
    if not image.crowd.any():
        return np.zeros(len(labels), bool)
    shared = overlap(boxes, image.boxes[image.crowd], crowd=True) >= OVERLAP
    excused: np.ndarray = (shared & (labels[:, None] == image.labels[image.crowd][None])).any(axis=1)
    return excused


def overlap(a: np.ndarray, b: np.ndarray, crowd: bool = False) -> np.ndarray:
    """Return intersection over union of boxes (N, 4) and (G, 4), xyxy, as (N, G) float64.

    With `crowd` it is the share of each of the N boxes that lies in each of the G.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    shared = (np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])).clip(min=0)
    both = shared[..., 0] * shared[..., 1]
    own, other = (((each[:, 2:] - each[:, :2]).clip(min=0)).prod(axis=1) for each in (a, b))
    whole = np.broadcast_to(own[:, None], both.shape) if crowd else own[:, None] + other[None] - both
    return np.divide(both, whole, out=np.zeros_like(both), where=whole > 0)


class Found(NamedTuple):
    """What was found in one image.

    Attributes:
        boxes: (N, 4) float, xyxy in pixels.
        scores: (N,) float; higher is surer. They need not be probabilities.
        labels: (N,) int, classes of the set.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass
class Detections:
    """N detections of a set.

    Attributes:
        images: (N,) int64, places of the images in the set.
        boxes: (N, 4) xyxy in pixels.
        scores: (N,).
        labels: (N,) int64.
        left_out: How many detections were left out, by reason.
    """

    images: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    left_out: Mapping[str, int] = field(default_factory=dict)


Stream = Mapping[int, Found] | Iterable[tuple[int, np.ndarray, np.ndarray, np.ndarray]]


class Collector:
    """Takes detections image by image.

    Args:
        truth: The set that they are of.
        per_image: Keep so many of an image, the surest ones of all classes together, as LVIS does; None keeps all.
    """

    def __init__(self, truth: DetectionSet, per_image: int | None) -> None:
        self.truth, self.per_image = truth, per_image
        self.left_out: Counter[str] = Counter()
        self._parts: dict[int, Found] = {}

    def take(self, found: Stream) -> Iterator[tuple[int, Found]]:
        """Take everything, and yield the place of each image with what is kept of it.

        Raises:
            UsageError: An image is not in the set or comes twice, a label is no class of the set, or arrays do not
                fit together.
        """
        items = found.items() if isinstance(found, Mapping) else ((each[0], Found(*each[1:])) for each in found)
        for image_id, detections in items:
            place = self.truth.places_by_id.get(int(image_id), -1)
            if place < 0:
                raise UsageError(f"There are detections of the image {image_id}, which is not in {self.truth.name}.")
            if place in self._parts:
                raise UsageError(f"There are detections of the image {image_id} twice.")
            kept = self._checked(int(image_id), Found(*detections))
            self._parts[place] = kept
            yield place, kept

    def finish(self) -> Detections:
        """Return all that was taken, by place of the image."""
        places = sorted(self._parts)
        parts = [self._parts.pop(place) for place in places]
        return Detections(
            images=np.repeat(np.array(places, np.int64), [len(part.scores) for part in parts]),
            boxes=np.concatenate([part.boxes for part in parts]) if parts else np.zeros((0, 4)),
            scores=np.concatenate([part.scores for part in parts]) if parts else np.zeros(0),
            labels=np.concatenate([part.labels for part in parts]) if parts else np.zeros(0, np.int64),
            left_out=dict(self.left_out),
        )

    def _checked(self, image_id: int, found: Found) -> Found:
        """Return the detections of an image that count."""
        boxes, scores, labels = (np.asarray(each) for each in found)
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
        if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != labels.shape or scores.shape != boxes.shape[:1]:
            shapes = f"boxes {boxes.shape}, scores {scores.shape}, labels {labels.shape}"
            raise UsageError(f"The detections of the image {image_id} do not fit together: {shapes}.")
        labels = labels.astype(np.int64)
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.truth.classes)):
            wrong = int(labels[(labels < 0) | (labels >= len(self.truth.classes))][0])
            raise UsageError(
                f"A detection of the image {image_id} has the label {wrong}; {self.truth.name} has "
                f"{len(self.truth.classes)} classes, counted from 0."
            )
        sure, whole = np.isfinite(scores), np.isfinite(boxes).all(axis=1)
        self.left_out[NO_SCORE] += int((~sure).sum())
        self.left_out[NO_BOX] += int((sure & ~whole).sum())
        rows = np.flatnonzero(sure & whole)
        if self.per_image is not None and len(rows) > self.per_image:
            self.left_out[f"beyond the {self.per_image} best of an image"] += len(rows) - self.per_image
            rows = np.sort(rows[np.argsort(-scores[rows], kind="stable")[: self.per_image]])
        return Found(boxes[rows], scores[rows], labels[rows])
