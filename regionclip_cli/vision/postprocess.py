"""From scores of every (box, class) pair to the detections that are reported.

Boxes do not depend on the class (RegionCLIP regresses them class-agnostically, or not at all), so one list of K boxes
serves C classes. Each class is suppressed on its own by default; among K * C scores only the pairs above the threshold
are ever looked at, and only until `max_dets` of them are found.

The search picks the best remaining pair, reports it, lowers (soft-NMS) or drops (hard NMS) the boxes of its class
that overlap it, and repeats. Scores only ever fall, so picks come best first and the first `max_dets` are final: this
is NMS class by class followed by a cut, without running the part that the cut would throw away.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import box_iou

from regionclip_cli.errors import UsageError
from regionclip_cli.recipe.scoring import Scoring

NmsMode = Literal["class", "agnostic", "off"]
SoftMethod = Literal["gaussian", "linear"]
Detections = tuple[Tensor, Tensor, Tensor, Tensor]


def select(scoring: Scoring, boxes: Tensor, scores: Tensor) -> Detections:
    """Return the detections to keep of boxes (K, 4) with scores (K, C); see `select_detections`."""
    return select_detections(
        boxes,
        scores,
        conf=scoring.conf,
        iou=scoring.iou,
        nms=scoring.nms,
        max_dets=scoring.max_dets,
        soft=scoring.soft,
        sigma=scoring.sigma,
        min_score=scoring.min_score,
    )


def select_detections(
    boxes: Tensor,
    scores: Tensor,
    *,
    conf: float,
    iou: float,
    nms: NmsMode = "class",
    max_dets: int,
    soft: SoftMethod | None = None,
    sigma: float = 0.5,
    min_score: float = 0.001,
) -> Detections:
    """Return at most `max_dets` detections, best first.

    Args:
        boxes: (K, 4) xyxy in pixels, shared by all classes.
        scores: (K, C). A NaN or infinite score drops its (box, class) pair, such a coordinate its box.
        conf: Only scores above it take part.
        iou: Overlap above which hard NMS drops, and linear soft-NMS lowers, the lesser box.
        nms: `class` suppresses within a class, `agnostic` across all classes, with one label a box
            (its best); `off` not at all.
        max_dets: How many detections to return at most.
        soft: Lower the scores of overlapping boxes instead of dropping them: `gaussian` multiplies by
            exp(-iou^2 / sigma), `linear` by 1 - iou where the overlap is above `iou` (Soft-NMS, ICCV 2017). The paper's
            detectors are tested with `gaussian`, sigma 0.5, min_score 0.001.
        sigma: Width of `gaussian`, above 0.
        min_score: A lowered score at or below it drops its box.

    Returns:
        Boxes (N, 4), scores (N,) (lowered ones with soft-NMS), class indices (N,) and rows of `boxes` (N,).

    Raises:
        UsageError: `nms` or `soft` is not one of the words above, or `sigma` is not positive.
    """
    _check(nms, soft, sigma)
    candidates = torch.isfinite(scores) & (scores > conf) & torch.isfinite(boxes).all(dim=1, keepdim=True)
    if nms == "off" or max_dets <= 0 or scores.numel() == 0:
        return _best(boxes, scores, candidates, max(max_dets, 0))

    # A table of scores, one row for each group of boxes that may suppress one another; -inf is no candidate.
    precise = torch.promote_types(scores.dtype, torch.float32)
    members = candidates.any(dim=1).nonzero().squeeze(1)
    if nms == "class":
        labels = candidates.any(dim=0).nonzero().squeeze(1)
        table = scores[members][:, labels].masked_fill(~candidates[members][:, labels], -torch.inf).T
        label_of = labels[:, None].expand_as(table)
    else:
        single, label = scores[members].masked_fill(~candidates[members], -torch.inf).max(dim=1)
        table, label_of = single[None], label[None]
    rows, columns, found = _search(
        table.to(precise, copy=True).contiguous(), boxes[members].to(precise), iou, max_dets, soft, sigma, min_score
    )
    index = members[columns]
    return boxes[index], found.to(scores.dtype), label_of[rows, columns], index


def _search(
    table: Tensor,
    corners: Tensor,
    iou: float,
    max_dets: int,
    soft: SoftMethod | None,
    sigma: float,
    min_score: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pick the best entry of the table (G, M) again and again; the table is used up.

    Returns:
        Rows (N,), columns (N,) and the scores (N,) that they had when they were picked.
    """
    picks: list[tuple[int, int]] = []
    values: list[Tensor] = []
    if table.numel():
        best, column = table.max(dim=1)
        while len(picks) < max_dets:
            row = int(best.argmax())
            if best[row] == -torch.inf:
                break
            winner = int(column[row])
            picks.append((row, winner))
            values.append(best[row].clone())
            _suppress(table[row], corners, winner, iou, soft, sigma, min_score)
            best[row], column[row] = table[row].max(dim=0)
    where = torch.tensor(picks, dtype=torch.long, device=table.device).view(-1, 2)
    return where[:, 0], where[:, 1], torch.stack(values) if values else table.new_zeros(0)


def _suppress(
    row: Tensor, corners: Tensor, winner: int, iou: float, soft: SoftMethod | None, sigma: float, min_score: float
) -> None:
    """Lower, in place, the scores (M,) of the boxes (M, 4) that overlap the winner, and take the winner out."""
    # Two boxes without area have overlap 0 / 0.
    overlap = box_iou(corners[winner : winner + 1], corners)[0].nan_to_num(0.0)
    if soft is None:
        row.masked_fill_(overlap > iou, -torch.inf)
    else:
        if soft == "gaussian":
            weight = torch.exp(-(overlap**2) / sigma)
        else:
            weight = torch.where(overlap > iou, 1 - overlap, 1.0)
        # -inf times a weight of 0 would be NaN.
        lowered = torch.where(row == -torch.inf, row, row * weight)
        row.copy_(lowered.masked_fill(lowered <= min_score, -torch.inf))
    row[winner] = -torch.inf


def _best(boxes: Tensor, scores: Tensor, candidates: Tensor, max_dets: int) -> Detections:
    """Return the `max_dets` best candidates without suppression."""
    index, labels = candidates.nonzero(as_tuple=True)
    values, order = scores[index, labels].sort(descending=True, stable=True)
    order = order[:max_dets]
    return boxes[index[order]], values[:max_dets], labels[order], index[order]


def _check(nms: str, soft: str | None, sigma: float) -> None:
    if nms not in ("class", "agnostic", "off"):
        raise UsageError(f"There is no NMS mode {nms!r}.", "Use class, agnostic or off.")
    if soft not in (None, "gaussian", "linear"):
        raise UsageError(f"There is no soft-NMS method {soft!r}.", "Use gaussian or linear.")
    if soft == "gaussian" and sigma <= 0:
        raise UsageError(f"The width of Gaussian soft-NMS must be above 0, not {sigma}.")
