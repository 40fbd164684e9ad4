"""Proposals, scores and detections in NumPy: the same results as `vision.proposals.nms` and `vision.postprocess`."""

from __future__ import annotations

import numpy as np

from regionclip_cli.recipe.scoring import Scoring


def select_proposals(
    boxes: np.ndarray,
    logits: np.ndarray,
    levels: np.ndarray,
    size: tuple[int, int],
    *,
    nms_iou: float,
    pre_nms: int,
    max_proposals: int,
    across_levels: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the proposals of one image, best first: boxes (K, 4) clipped to it and logits (K,).

    Args:
        boxes: (N, 4) xyxy in network pixels.
        logits: (N,) objectness before the sigmoid.
        levels: (L,) number of boxes of each feature level, in order.
        size: Height and width of the image in network pixels.
        nms_iou: Overlap above which the lesser of two boxes is dropped.
        pre_nms: Boxes of each level that take part.
        max_proposals: Boxes to return at most.
        across_levels: Whether boxes of different levels suppress one another.
    """
    chosen, level_of = [], []
    start = 0
    for number, count in enumerate(levels.tolist()):
        scores = logits[start : start + count]
        best = np.argsort(-scores, kind="stable")[:pre_nms]
        chosen.append(best + start)
        level_of.append(np.full(len(best), 0 if across_levels else number))
        start += count
    index, group = np.concatenate(chosen), np.concatenate(level_of)
    found, scores = clip(boxes[index], *size), logits[index]
    sound = (found[:, 2:] > found[:, :2]).all(1) & np.isfinite(found).all(1) & np.isfinite(scores)
    found, scores, group = found[sound], scores[sound], group[sound]
    order = np.argsort(-scores, kind="stable")
    found, scores, group = found[order], scores[order], group[order]
    kept = greedy_nms(found, group, nms_iou, max_proposals)
    return found[kept], scores[kept]


def greedy_nms(boxes: np.ndarray, group: np.ndarray, iou: float, most: int) -> np.ndarray:
    """Return the rows (M,) int64 that non-maximum suppression keeps.

    Args:
        boxes: (N, 4) xyxy, best first.
        group: (N,); only boxes of one group suppress one another.
        iou: Overlap above which the lesser of two boxes is dropped.
        most: Number of rows to return at most.
    """
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    at = 0
    while at < len(boxes) and len(kept) < most:
        if not alive[at]:
            at += 1
            continue
        kept.append(at)
        others = at + 1 + np.flatnonzero(alive[at + 1 :] & (group[at + 1 :] == group[at]))
        alive[others[overlaps(boxes[at], boxes[others]) > iou]] = False
        at += 1
    return np.array(kept, np.int64)


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the IoU (N,) of a box (4,) with boxes (N, 4); 0 where both have no area."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def clip(boxes: np.ndarray, height: float, width: float) -> np.ndarray:
    """Return boxes (R, 4) xyxy clipped to an image of that many pixels."""
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))


def decode_deltas(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Return boxes (R, 4) refined by the box head's deltas (R, 4), in units of (0.1, 0.1, 0.2, 0.2) box sizes."""
    largest = abs(np.log(16 / 1000))
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    centres = centres + sizes * deltas[:, :2] * np.float32(0.1)
    halves = sizes * np.exp(np.clip(deltas[:, 2:] * np.float32(0.2), -largest, largest)) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits (R, N) over N."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def normalised(rows: np.ndarray) -> np.ndarray:
    """Return rows (N, D) of length 1; rows of zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-values))."""
    return np.exp(-np.logaddexp(0, -values))


def score(probabilities: np.ndarray, logits: np.ndarray | None, scoring: Scoring) -> np.ndarray:
    """Return the scores (K, C) of class probabilities (K, C) and objectness logits (K,), fused and calibrated."""
    if logits is None:
        return probabilities
    if scoring.fusion != "none":
        objectness = sigmoid(logits) if scoring.fusion == "sigmoid" else np.clip(logits, 0, None)
        probabilities = np.sqrt(probabilities * objectness[:, None])
    if scoring.calibration is not None:
        slope, offset = scoring.calibration
        inside = np.clip(probabilities, 1e-6, 1 - 1e-6)
        probabilities = sigmoid(slope * np.log(inside / (1 - inside)) + offset)
    return probabilities.astype(np.float32)


def select_detections(boxes: np.ndarray, scores: np.ndarray, how: Scoring) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes (N, 4), scores (N,) and classes (N,) of the detections to report, best first.

    Args:
        boxes: (K, 4) xyxy, shared by all classes.
        scores: (K, C); a NaN or infinite score drops its pair, such a coordinate its box.
        how: Score threshold, suppression and number of detections.
    """
    usable = np.isfinite(scores) & (scores > how.conf) & np.isfinite(boxes).all(1, keepdims=True)
    if how.nms == "agnostic" and usable.any():
        single = np.where(usable, scores, -np.inf).argmax(1)
        only = np.zeros_like(usable)
        only[np.arange(len(single)), single] = True
        usable &= only
    rows, labels = np.nonzero(usable)
    values = scores[rows, labels].astype(np.float32)
    order = np.argsort(-values, kind="stable")
    rows, labels, values = rows[order], labels[order], values[order]
    if how.nms == "off":
        kept = np.arange(min(len(rows), how.max_dets))
    elif how.soft is None:
        group = labels if how.nms == "class" else np.zeros_like(labels)
        kept = greedy_nms(boxes[rows], group, how.iou, how.max_dets)
    else:
        kept = _soften(boxes[rows], labels, values, how)
    return boxes[rows[kept]], values[kept], labels[kept]


def _soften(boxes: np.ndarray, labels: np.ndarray, values: np.ndarray, how: Scoring) -> np.ndarray:
    """Return the rows that Soft-NMS (ICCV 2017) reports, best first; `values` (N,) become the lowered scores."""
    left = values.copy()
    kept: list[int] = []
    while len(kept) < how.max_dets and len(left):
        best = int(left.argmax())
        if left[best] == -np.inf:
            break
        kept.append(best)
        values[best] = left[best]
        left[best] = -np.inf
        near = np.flatnonzero((left > -np.inf) & ((labels == labels[best]) | (how.nms == "agnostic")))
        shared = overlaps(boxes[best], boxes[near])
        if how.soft == "gaussian":
            lowered = left[near] * np.exp(-(shared**2) / how.sigma)
        else:
            lowered = left[near] * np.where(shared > how.iou, 1 - shared, 1)
        left[near] = np.where(lowered <= how.min_score, -np.inf, lowered)
    return np.array(kept, np.int64)
