"""Test-time settings of an evaluation: the defaults, or those of the paper's tables."""

from __future__ import annotations

from typing import Any, Literal

from regionclip_cli.evaluation.task import GROUND_TRUTH, Task
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.inference.preprocess import InferenceConfig
from regionclip_cli.recipe.schema import EvaluateSection
from regionclip_cli.recipe.scoring import Scoring

Style = Literal["coco", "lvis"]

LEAST = 0.001
"""Default score threshold; average precision needs low-scoring detections too."""
SHORT_SIDE, LONG_SIDE = 800, 1333
"""Image size of the paper in pixels, for a model without a card."""


def choose_inference_config(
    settings: EvaluateSection, task: Task, card: ModelCard | None, refines: bool
) -> InferenceConfig:
    """Return the settings of inference for an evaluation.

    Args:
        settings: What the user chose.
        task: What is evaluated; it has the protocol of the set.
        card: Card of the model, which has its image size.
        refines: Whether the model has a box head, as fine-tuned detectors have.
    """
    official = settings.scoring == "official"
    base = _official(settings.boxes, task.truth.style, refines) if official else Scoring(conf=LEAST)
    changes: dict[str, Any] = {"max_dets": task.max_dets}
    if settings.conf is not None:
        changes["conf"] = settings.conf
    short_side = card.short_side if card is not None else SHORT_SIDE
    return InferenceConfig(
        scoring=base.replace(**changes),
        short_side=short_side if settings.short_side is None else settings.short_side,
        long_side=LONG_SIDE if card is None else card.max_side,
    )


def _official(boxes: str, style: Style, refines: bool) -> Scoring:
    """Return the settings of the official code's test scripts.

    Boxes of the annotations: no objectness, and a lower threshold for LVIS (`test_zeroshot_inference.sh`). Proposals of
    a pretrained model: 1,000 boxes that may overlap by 0.9, raw logits in the fusion. Proposals of a fine-tuned
    detector (`test_transfer_learning.sh`): overlap by 0.7, soft-NMS, and the fusion for LVIS alone.
    """
    if boxes == GROUND_TRUTH:
        return Scoring(conf=0.0001 if style == "lvis" else 0.001, fusion="none")
    conf = 0.02 if style == "lvis" else 0.001
    if refines:
        fusion: Literal["logit", "none"] = "logit" if style == "lvis" else "none"
        return Scoring(conf=conf, soft="gaussian", fusion=fusion, proposal_iou=0.7, max_proposals=1000)
    return Scoring(conf=conf, fusion="logit", proposal_iou=0.9, max_proposals=1000)
