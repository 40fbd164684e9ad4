"""What an RPN head learns: which anchors are objects, and how to move them (Faster R-CNN, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from regionclip_cli.vision.proposals.base import valid_size


def rpn_losses(
    head: RPNHead, logits: Sequence[Tensor], deltas: Sequence[Tensor], samples: Sequence[DetDataSample]
) -> dict[str, Tensor]:
    """Return `loss_rpn_cls` and `loss_rpn_bbox`: binary cross entropy and L1 over 256 anchors of each image.

    Args:
        head: Lends its anchors, its box coder and its settings.
        logits: For each level (B, A, h, w), A anchors a cell.
        deltas: For each level (B, 4 A, h, w).
        samples: With `gt_instances.bboxes` (N, 4), the objects to be found, in pixels of the network's input; their
            classes do not matter. `ignored_instances.bboxes`, where present, are neither objects nor background.
    """
    device = logits[0].device
    objects = [
        InstanceData(bboxes=boxes, labels=boxes.new_zeros(len(boxes), dtype=torch.long))
        for boxes in (_boxes(sample.gt_instances, device) for sample in samples)
    ]
    ignored = [
        InstanceData(bboxes=_boxes(sample.ignored_instances, device)) if "ignored_instances" in sample else None
        for sample in samples
    ]
    # mmdet takes anchors up to `pad_shape` for valid: up to the image's own edge is what we want.
    metas = [{"img_shape": valid_size(sample), "pad_shape": valid_size(sample)} for sample in samples]
    losses = head.loss_by_feat(
        [level.float() for level in logits], [level.float() for level in deltas], objects, metas, ignored
    )
    return {name: torch.stack([torch.as_tensor(part) for part in parts]).sum() for name, parts in losses.items()}


def _boxes(instances: InstanceData, device: torch.device) -> Tensor:
    """Return the boxes (N, 4) as a float32 tensor on a device; mmdet may wrap them in a box type."""
    boxes = getattr(instances.bboxes, "tensor", instances.bboxes)
    return boxes.to(device, torch.float32)
