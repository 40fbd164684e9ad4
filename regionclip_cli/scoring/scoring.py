"""From detections to scores."""

from __future__ import annotations

import numpy as np

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.data.splits import Split
from regionclip_cli.errors import UsageError
from regionclip_cli.scoring.collecting import Collector, Found, Stream
from regionclip_cli.scoring.matching import match_photo
from regionclip_cli.scoring.protocol import measure_curves
from regionclip_cli.scoring.scores import Scores

__all__ = ["Found", "score_detections"]

COCO_DETECTIONS, LVIS_DETECTIONS = 100, 300
"""Detections that count where nothing else is said: of an image and class, and of an image."""


def score_detections(
    truth: DetectionSet, found: Stream, *, split: Split | None = None, max_dets: int | None = None
) -> Scores:
    """Score what was found in a set by the protocol of its style.

    All images of the set count, whether something was found in them or not, and all its classes; a class without an
    object has no score, and enters no mean. Detections whose score or box is NaN or infinite are left out and counted
    in `Scores.left_out`. Scores may be of any range.

    Args:
        truth: The set.
        found: {image id: Found}, or tuples of image id, boxes (N, 4) xyxy in pixels, scores (N,) and labels (N,), one
            an image, taken one at a time.
        split: Classes to report apart; those that the set lacks are passed over.
        max_dets: Surest detections that count: with COCO of an image and class (100), with LVIS of an image (300).

    Raises:
        UsageError: The set has no image, an image or label is not of the set, an image comes twice, or arrays do not
            fit together.
    """
    if not len(truth):
        raise UsageError(f"{truth.name} has no image to score.")
    if max_dets is not None and max_dets < 1:
        raise UsageError(f"At least one detection must count, not {max_dets}.")
    lvis, count = truth.style == "lvis", len(truth.classes)
    limit = max_dets or (LVIS_DETECTIONS if lvis else COCO_DETECTIONS)
    limits = (limit,) if lvis else (*(fewer for fewer in (1, 10) if fewer < limit), limit)
    collector = Collector(truth, limit if lvis else None)
    # An object of an image that nothing was found in is missed.
    c = truth.columns
    objects = c.objects.values[~c.crowd[c.objects.values]]
    confusion = np.zeros((count, count + 1), np.int64)
    confusion[:, -1] = np.bincount(c.labels[objects], minlength=count)
    photo_found = np.zeros(len(truth), np.int64)
    photo_scores = np.full(len(truth), np.nan)
    photo_scores[c.objects.owners()[~c.crowd[c.objects.values]]] = 0.0
    for place, kept in collector.take(found):
        matched = match_photo(truth[place], kept, lvis)
        called = matched.called >= 0
        np.add.at(confusion, (matched.labels[called], matched.called[called]), 1)
        confusion[:, -1] -= np.bincount(matched.labels[called], minlength=count)
        photo_found[place], photo_scores[place] = matched.found, matched.score
    detections = collector.finish()
    return Scores(
        truth=truth,
        split=split,
        curves=measure_curves(truth, detections, limits),
        confusion=confusion,
        photo_scores=photo_scores,
        photo_found=photo_found,
        detections=np.bincount(detections.labels, minlength=count),
        left_out={reason: number for reason, number in detections.left_out.items() if number},
    )
