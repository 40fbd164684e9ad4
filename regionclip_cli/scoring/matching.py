"""Which object each detection of one photo is about: for confusions, and to find the photos that went worst.

The protocols look at one class over all images; this looks at one image with all its classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from regionclip_cli.data.detection_sets import DetectionImage
from regionclip_cli.scoring.collecting import Found

OVERLAP = 0.5
"""Intersection over union from which on a detection is about an object."""


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
