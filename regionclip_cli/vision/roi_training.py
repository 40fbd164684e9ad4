"""Which regions of an image a detector learns from, and what it should say about them (RegionCLIP section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from mmdet.models.task_modules import DeltaXYWHBBoxCoder, MaxIoUAssigner, RandomSampler
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from regionclip_cli.errors import UsageError
from regionclip_cli.vision import losses
from regionclip_cli.vision.federated import FederatedClasses

BOX_CODER = DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2))
"""Boxes as (dx, dy, dw, dh) from a proposal, times (10, 10, 5, 5); growth is limited to 1000/16 times."""


@dataclass(frozen=True)
class RoiTraining:
    """How regions are sampled and weighed; the defaults are those of the COCO transfer.

    Attributes:
        regions: Regions of an image to learn from.
        foreground: Largest share of them that may show an object.
        iou: Overlap with an object from which on a region shows it.
        loss: "focal" scales cross entropy by (1 - p)^gamma and averages over regions (COCO transfer); "weighted" is
            cross entropy over the sum of weights (LVIS transfer, with a background weight of 0.8).
        gamma: Exponent of the focal scaling.
        background_weight: What a background region weighs against 1 for an object.
    """

    regions: int = 512
    foreground: float = 0.25
    iou: float = 0.5
    loss: Literal["focal", "weighted"] = "focal"
    gamma: float = 0.5
    background_weight: float = 0.2


class Sampled(NamedTuple):
    """Regions of one image to learn from; the first F of R show an object.

    Attributes:
        boxes: (R, 4) xyxy in network-input pixels.
        labels: (F,) classes of the objects.
        targets: (F, 4) boxes of the objects, same pixels.
        matched: (F,) long, which of the image's annotated objects each of them is.
    """

    boxes: Tensor
    labels: Tensor
    targets: Tensor
    matched: Tensor


def sample_regions(proposals: Tensor, sample: DetDataSample, settings: RoiTraining) -> Sampled:
    """Match proposals (K, 4) to the annotated objects of an image and draw regions from both.

    The objects' own boxes join the proposals, so that every object is seen from the first step on.
    """
    objects = InstanceData(bboxes=sample.gt_instances.bboxes.float(), labels=sample.gt_instances.labels)
    candidates = InstanceData(priors=proposals.detach().float())
    assigner = MaxIoUAssigner(
        settings.iou,
        settings.iou,
        min_pos_iou=settings.iou,
        match_low_quality=False,
        # With its scope: inside a runner, whose default scope is mmengine's, the bare name would not be found.
        iou_calculator={"type": "mmdet.BboxOverlaps2D"},
    )
    sampler = RandomSampler(settings.regions, settings.foreground, neg_pos_ub=-1, add_gt_as_proposals=True)
    drawn = sampler.sample(assigner.assign(candidates, objects), candidates, objects)
    return Sampled(drawn.priors, drawn.pos_gt_labels, drawn.pos_gt_bboxes, drawn.pos_assigned_gt_inds)


def classification_loss(
    logits: Tensor,
    sampled: list[Sampled],
    num_classes: int,
    settings: RoiTraining,
    federated: FederatedClasses | None = None,
) -> Tensor:
    """Return the classification loss of logits (sum of R, columns), the background in the last column.

    With `federated`, only the classes that it draws take part.

    Raises:
        UsageError: An annotation has a label that is not among the classes.
    """
    labels = torch.cat([_labels(image, logits.shape[1] - 1) for image in sampled])
    objects = torch.cat([image.labels for image in sampled])
    if len(objects) and int(objects.max()) >= num_classes:
        raise UsageError(f"An annotation has label {int(objects.max())}, but there are {num_classes} classes.")
    if federated is not None:
        logits = federated.restrict(logits, objects)
    if settings.loss == "focal":
        return losses.focal_scaled_cross_entropy(logits, labels, settings.gamma, settings.background_weight)
    return losses.weighted_cross_entropy(logits, labels, settings.background_weight)


def box_loss(deltas: Tensor, sampled: list[Sampled]) -> Tensor:
    """Return the regression loss of deltas (sum of R, 4), to which only the regions that show an object contribute."""
    parts = deltas.split([len(image.boxes) for image in sampled])
    predicted = torch.cat([part[: len(image.labels)] for part, image in zip(parts, sampled, strict=True)])
    boxes = torch.cat([image.boxes[: len(image.labels)] for image in sampled])
    targets = BOX_CODER.encode(boxes, torch.cat([image.targets for image in sampled]))
    return losses.box_regression(predicted, targets, len(deltas))


def as_roi_training(given: RoiTraining | Mapping[str, Any] | None) -> RoiTraining:
    """Return settings from a mapping of them, or as given.

    Raises:
        UsageError: Unknown setting or loss.
    """
    if not isinstance(given, RoiTraining):
        try:
            given = RoiTraining(**dict(given or {}))
        except TypeError as err:
            raise UsageError(f"The training settings of the detector are not valid: {err}.") from err
    if given.loss not in ("focal", "weighted"):
        raise UsageError(f"Unknown classification loss {given.loss!r}.", "Choose focal or weighted.")
    return given


def _labels(image: Sampled, background: int) -> Tensor:
    """Return (R,) labels: those of the objects, then background."""
    rest = image.labels.new_full((len(image.boxes) - len(image.labels),), background)
    return torch.cat([image.labels, rest])
