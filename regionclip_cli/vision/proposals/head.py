"""mmdet's RPN head with the anchors and training settings that all proposal networks here share."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.dense_heads import RPNHead
from mmdet.models.losses import CrossEntropyLoss, L1Loss
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder, MaxIoUAssigner, RandomSampler

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
