"""LVIS's protocol a second time, slowly and in plain numpy, to hold the library's numbers to.

The rules (Gupta et al. 2019, section 4 and the published evaluation): of an image the best 300 detections of all
classes count; a class is looked at only in images where it has an object or is known to be absent; detections are
matched best first, each to the free object it overlaps most; an object outside the area range is ignored, and so is
what is matched to it; an unmatched detection is ignored if its own area is outside the range or if its class is not
fully annotated in the image. There are no crowds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}


def lvis_numbers(content: Mapping[str, Any], rows: list[dict[str, Any]], best: int = 300) -> dict[str, float]:
    """Return AP, AP50, AP75, APs, APm, APl, APr, APc, APf, AR and ARs, ARm, ARl in 0..100.

    Args:
        content: An annotation file.
        rows: Detections: image_id, category_id, bbox (x, y, width, height), score.
        best: Detections of an image that count.
    """
    kept = []
    for image in content["images"]:
        own = [row for row in rows if row["image_id"] == image["id"]]
        kept += sorted(own, key=lambda row: -row["score"])[:best]
    precision: dict[str, dict[int, np.ndarray]] = {area: {} for area in AREAS}
    recall: dict[str, dict[int, np.ndarray]] = {area: {} for area in AREAS}
    for category in content["categories"]:
        for area, limits in AREAS.items():
            measured = _class(content, kept, category["id"], limits)
            if measured is not None:
                precision[area][category["id"]], recall[area][category["id"]] = measured
    groups = {f: [c["id"] for c in content["categories"] if c["frequency"] == f] for f in "rcf"}
    whole = precision[""]
    told = {"AP": _mean(list(whole.values())), "AP50": _mean([each[0] for each in whole.values()])}
    told["AP75"] = _mean([each[5] for each in whole.values()])
    told |= {f"AP{area}": _mean(list(precision[area].values())) for area in "sml"}
    told |= {f"AP{f}": _mean([whole[number] for number in own if number in whole]) for f, own in groups.items()}
    return told | {f"AR{area}": _mean(list(values.values())) for area, values in recall.items()}


def _mean(values: list[np.ndarray]) -> float:
    return 100 * float(np.mean(np.concatenate([np.ravel(each) for each in values])))


def _class(
    content: Mapping[str, Any], rows: list[dict[str, Any]], category: int, limits: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return precision (10, 101) and recall (10,) of one class; None if it has no object in the range."""
    judged: list[tuple[float, np.ndarray, np.ndarray]] = []
    objects = 0
    for image in sorted(content["images"], key=lambda each: each["id"]):
        own = [a for a in content["annotations"] if (a["image_id"], a["category_id"]) == (image["id"], category)]
        found = [row for row in rows if (row["image_id"], row["category_id"]) == (image["id"], category)]
        if not own and category not in image["neg_category_ids"]:
            continue
        beyond = [not limits[0] <= each["area"] <= limits[1] for each in own]
        objects += beyond.count(False)
        excused = category in image["not_exhaustive_category_ids"]
        judged += _image(own, beyond, sorted(found, key=lambda row: -row["score"]), limits, excused)
    if not objects:
        return None
    judged.sort(key=lambda each: -each[0])
    precision, recall = np.zeros((len(OVERLAPS), len(RECALLS))), np.zeros(len(OVERLAPS))
    for column in range(len(OVERLAPS)):
        counted = [hit[column] for _, hit, ignored in judged if not ignored[column]]
        hits = np.cumsum(counted) if counted else np.zeros(0)
        reached, right = hits / objects, hits / np.arange(1, len(hits) + 1)
        recall[column] = reached[-1] if len(reached) else 0
        for place, wanted in enumerate(RECALLS):
            later = right[reached >= wanted]
            precision[column, place] = later.max() if len(later) else 0
    return precision, recall


def _image(
    own: list[dict[str, Any]],
    beyond: list[bool],
    found: list[dict[str, Any]],
    limits: tuple[float, float],
    excused: bool,
) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Return score, hit (10,) and ignored (10,) of each detection of a class in an image."""
    taken = np.zeros((len(OVERLAPS), len(own)), bool)
    judged = []
    for row in found:
        hit, ignored = np.zeros(len(OVERLAPS), bool), np.zeros(len(OVERLAPS), bool)
        overlaps = [_overlap(row["bbox"], each["bbox"]) for each in own]
        for column, least in enumerate(OVERLAPS):
            free = [i for i in range(len(own)) if not taken[column, i] and overlaps[i] >= least]
            # An object inside the range goes before one outside it, then the larger overlap; of equals the last.
            free.sort(key=lambda i: (not beyond[i], overlaps[i], i))
            if free:
                taken[column, free[-1]] = True
                ignored[column] = beyond[free[-1]]
                hit[column] = not ignored[column]
            else:
                area = row["bbox"][2] * row["bbox"][3]
                ignored[column] = excused or not limits[0] <= area <= limits[1]
        judged.append((row["score"], hit, ignored))
    return judged


def _overlap(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)
