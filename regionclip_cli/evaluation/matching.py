"""Which detection belongs to which object of one image: for confusions, worst images and recall of proposals.

The protocols look at one class over all images; `match_image` looks at one image with all its classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from faster_coco_eval.core import mask

from regionclip_cli.data.detection_sets import DetectionImage
from regionclip_cli.evaluation.predictions import ImagePrediction

IOU = 0.5
"""Intersection over union from which on a detection matches an object."""

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""IoUs from which on a proposal covers an object; COCO's."""


def iou(boxes: np.ndarray, objects: np.ndarray, crowd: bool = False) -> np.ndarray:
    """Return the intersection over union of boxes (N, 4) and objects (G, 4), xyxy, as (N, G) float64, by COCO's code.

    With `crowd` it is the share of each box that lies in each object.
    """
    if not len(boxes) or not len(objects):
        return np.zeros((len(boxes), len(objects)))
    sizes = [np.concatenate([each[:, :2], each[:, 2:] - each[:, :2]], axis=1).astype(np.float64, order="C")
             for each in (boxes.astype(np.float64), objects.astype(np.float64))]  # fmt: skip
    return np.asarray(mask.iou(*sizes, [int(crowd)] * len(objects)))


class ImageMatch(NamedTuple):
    """How the G objects of an image (crowds left out) were detected.

    Attributes:
        labels: (G,) int64, their classes.
        called: (G,) int64, class of the highest-scoring detection that matches the object, whatever the class; -1 if
            there is none. Each detection matches one object.
        found: Objects detected under their own class.
        score: Average precision of the image in 0..1, all its classes in one list: 1 when every object is detected
            under its class, scored higher than anything else. NaN for an image without objects.
    """

    labels: np.ndarray
    called: np.ndarray
    found: int
    score: float


def match_image(image: DetectionImage, found: ImagePrediction, lvis: bool) -> ImageMatch:
    """Match the detections of an image to its objects, by falling score.

    Args:
        image: The objects. A detection on a crowd of its class is not an error.
        found: The detections; their labels are classes of the set.
        lvis: Leave out detections of classes not known to be present or absent, and unmatched ones of classes that
            are not exhaustively annotated.
    """
    objects = ~image.crowd
    labels, boxes = image.labels[objects], image.boxes[objects]
    order = np.argsort(-found.scores, kind="stable")
    if lvis:
        known = np.array([*image.neg, *image.labels.tolist()], np.int64)
        order = order[np.isin(found.labels[order], known)]
    ranked, guesses = found.boxes[order], found.labels[order]
    overlaps = iou(ranked, boxes)
    called = np.full(len(labels), -1)
    for rank, one in assign(np.where(overlaps >= IOU, overlaps, -1.0)):
        called[one] = guesses[rank]
    same = guesses[:, None] == labels[None]
    right = np.array([rank for rank, _ in assign(np.where(same & (overlaps >= IOU), overlaps, -1.0))], np.int64)
    if not len(labels):
        return ImageMatch(labels, called, 0, float("nan"))
    excused = _on_crowd(image, ranked, guesses)
    if lvis:
        excused |= np.isin(guesses, list(image.not_exhaustive))
    counted = ~excused
    counted[right] = True
    hit = np.zeros(len(guesses), bool)
    hit[right] = True
    precision = np.cumsum(hit) / np.maximum(np.cumsum(counted), 1)
    return ImageMatch(labels, called, len(right), float(precision[hit].sum() / len(labels)))


def assign(overlaps: np.ndarray) -> list[tuple[int, int]]:
    """Give each row, the first one first, the best column that is still free; -1 forbids a pair. Return the pairs."""
    pairs = []
    overlaps = overlaps.copy()
    for rank in np.flatnonzero(overlaps.max(axis=1, initial=-1.0) >= 0).tolist():
        best = int(overlaps[rank].argmax())
        if overlaps[rank, best] >= 0:
            pairs.append((rank, best))
            overlaps[:, best] = -1.0
    return pairs


def _on_crowd(image: DetectionImage, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each detection whether a crowd of its class covers half of it or more, (N,) bool."""
    if not image.crowd.any():
        return np.zeros(len(labels), bool)
    shared = iou(boxes, image.boxes[image.crowd], crowd=True) >= IOU
    excused: np.ndarray = (shared & (labels[:, None] == image.labels[image.crowd][None])).any(axis=1)
    return excused


def count_hits(objects: np.ndarray, proposals: np.ndarray, limits: Sequence[int]) -> np.ndarray:
    """Count the objects that proposals cover, assigned as by COCO: the best proposal first, each object once.

    Recall over a set is the sum of these counts over the number of objects.

    Args:
        objects: (G, 4) xyxy.
        proposals: (K, 4) xyxy, best first.
        limits: How many of the best proposals may be used.

    Returns:
        (limits, thresholds) int64.
    """
    hits = np.zeros((len(limits), len(THRESHOLDS)), np.int64)
    overlaps = iou(proposals[: max(limits)], objects)  # (K, G)
    if not overlaps.size:
        return hits
    able = np.flatnonzero(overlaps.max(axis=1) >= THRESHOLDS[0] - 1e-10)
    for column, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(objects), bool)
        for proposal in able:
            row = np.where(free, overlaps[proposal], -1.0)
            # The last of equals, as in COCO's loop.
            best = len(row) - 1 - int(row[::-1].argmax())
            if row[best] >= min(threshold, 1 - 1e-10):
                free[best] = False
                hits[:, column] += [proposal < limit for limit in limits]
                if not free.any():
                    break
    return hits
