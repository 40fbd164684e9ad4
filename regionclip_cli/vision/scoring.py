"""Selection of detections by the settings of `recipe.scoring`."""

from __future__ import annotations

from torch import Tensor

from regionclip_cli.recipe.scoring import SCORINGS, Scoring, as_scoring
from regionclip_cli.vision.postprocess import select_detections

__all__ = ["SCORINGS", "Scoring", "as_scoring", "select"]


def select(scoring: Scoring, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the N detections to keep of boxes (K, 4) with scores (K, C), as `postprocess.select_detections`.

    Returns:
        Boxes (N, 4), scores (N,), classes (N,) and the row that each comes from (N,), best first.
    """
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
