"""How many known objects the best proposals of one image cover, whatever their class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from regionclip_cli.scoring.matching import overlap

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Overlaps from which on a proposal covers an object; COCO's."""


def cover(objects: np.ndarray, proposals: np.ndarray, limits: Sequence[int]) -> np.ndarray:
    """Count the objects that are covered, as COCO's protocol assigns them: the best proposal first, each object once.

    Images do not meet in this count, so that recall over a set is the sum of the counts over the number of objects.

    Args:
        objects: (G, 4) xyxy, float.
        proposals: (K, 4) xyxy, best first.
        limits: How many of the best proposals may be used.

    Returns:
        (limits, thresholds) int64.
    """
    hits = np.zeros((len(limits), len(THRESHOLDS)), np.int64)
    overlaps = overlap(proposals[: max(limits)], objects)  # (K, G)
    if not overlaps.size:
        return hits
    able = np.flatnonzero(overlaps.max(axis=1) >= THRESHOLDS[0] - 1e-10)
    for column, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(objects), bool)
        for proposal in able:
            row = np.where(free, overlaps[proposal], -1.0)
            # The last of equals, as COCO's loop has it.
            best = len(row) - 1 - int(row[::-1].argmax())
            if row[best] >= min(threshold, 1 - 1e-10):
                free[best] = False
                hits[:, column] += [proposal < limit for limit in limits]
                if not free.any():
                    break
    return hits
