"""What an RPN head learns: which anchors are objects, and how to move them (Faster R-CNN, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.losses import CrossEntropyLoss, L1Loss
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder, MaxIoUAssigner, RandomSampler
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


RATIOS = (0.5, 1.0, 2.0)
"""Height of an anchor by its width."""

TRAINING = {
    "assigner": {
        "type": MaxIoUAssigner,
        "pos_iou_thr": 0.7,
        "neg_iou_thr": 0.3,
        "min_pos_iou": 0.3,
        "iou_calculator": {"type": "mmdet.BboxOverlaps2D"},
    },
    "sampler": {"type": RandomSampler, "num": 256, "pos_fraction": 0.5, "add_gt_as_proposals": False},
    "allowed_border": -1,
    "pos_weight": -1,
    "debug": False,
}
"""Which anchors are objects, and how many are drawn for the loss: Faster R-CNN, section 3.1."""


def build_head(
    channels: int,
    feat_channels: int,
    levels: Sequence[tuple[int, Sequence[float]]],
    ratios: Sequence[float] = RATIOS,
    num_convs: int = 1,
) -> RPNHead:
    """Build a head whose anchors are detectron2's: centred on the corners of cells, and listed size by size.

    Args:
        channels: Channels of the feature maps.
        feat_channels: Channels of the hidden convolutions.
        levels: For each feature map its stride in pixels and the sizes of its anchors: square roots of areas, pixels.
        ratios: Height by width of the anchors.
        num_convs: Hidden convolutions.
    """
    strides = [stride for stride, _ in levels]
    # Sizes are told as multiples of the stride, the same ones on every level.
    scales = [size / strides[0] for size in levels[0][1]]
    return RPNHead(
        in_channels=channels,
        feat_channels=feat_channels,
        num_convs=num_convs,
        anchor_generator={
            "type": AnchorGenerator,
            "scales": scales,
            "ratios": list(ratios),
            "strides": strides,
            "scale_major": False,
        },
        # mmdet limits a box to 1000 / 16 times its anchor's side, as detectron2 does.
        bbox_coder={"type": DeltaXYWHBBoxCoder},
        # Classes rather than names: after a runner, mmengine looks names up in its own scope and finds none of mmdet's.
        loss_cls={"type": CrossEntropyLoss, "use_sigmoid": True},
        loss_bbox={"type": L1Loss},
        train_cfg=TRAINING,
    )
