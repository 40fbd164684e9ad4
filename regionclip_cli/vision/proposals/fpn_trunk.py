"""A class-agnostic proposal network with several levels, without anchors, whose scores know how well a box fits.

The parts are mmdet's: depthwise separable convolutions, RTMDet's head with one class (Lyu et al., arXiv 2212.07784),
its dynamic soft label assignment (after SimOTA of YOLOX, arXiv 2107.08430), quality focal loss, whose target is the
overlap of the predicted box with its object (Li et al., NeurIPS 2020), and GIoU loss. The objectness of a box is then
the overlap to be expected, which is what ranking boxes by it asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.models.dense_heads import RTMDetSepBNHead
from mmdet.models.losses import CrossEntropyLoss, GIoULoss, QualityFocalLoss
from mmdet.models.task_modules import DistancePointBBoxCoder, DynamicSoftLabelAssigner, MlvlPointGenerator
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import box_iou

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.feature_levels import Level, as_levels, unpack_levels
from regionclip_cli.vision.proposals.base import Proposals, ProposalSource, mean_over_images, valid_size
from regionclip_cli.vision.proposals.nms import Selection, suppress

STRIDES = (8, 16, 32, 64)
IGNORED_IOU = 0.5
"""Overlap with an ignored box from which a prediction is no background."""
IGNORED_SHARE = 0.5
"""Share of a prediction inside an ignored crowd from which it is no background."""
_NORM = {"type": "BN", "momentum": 0.03, "eps": 0.001}
_ACTIVATION = {"type": "ReLU6", "inplace": False}
_LAYER: dict[str, Any] = {"norm_cfg": _NORM, "act_cfg": _ACTIVATION}
_FARTHEST = 4096.0  # pixels from a cell to a side of its box


class Pyramid(nn.Module):
    """A feature pyramid (Lin et al., CVPR 2017) of depthwise separable convolutions.

    Args:
        levels: The maps that come in, from fine to coarse.
        strides: Of the maps that go out, each twice the one before. Finer ones than come in are interpolated, coarser
            ones are convolved from the coarsest.
        channels: Of the maps that go out.
    """

    def __init__(self, levels: Sequence[Level], strides: Sequence[int], channels: int) -> None:
        super().__init__()
        self.finer = sum(stride < levels[0].stride for stride in strides)
        coarser = sum(stride > levels[-1].stride for stride in strides)
        self.laterals = nn.ModuleList(ConvModule(level.channels, channels, 1, **_LAYER) for level in levels)
        self.extra = nn.ModuleList(
            DepthwiseSeparableConvModule(channels, channels, 5, stride=2, padding=2, **_LAYER) for _ in range(coarser)
        )
        self.out = nn.ModuleList(
            DepthwiseSeparableConvModule(channels, channels, 5, padding=2, **_LAYER) for _ in strides
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return a map (B, channels, h, w) for each stride."""
        merged = [lateral(each) for lateral, each in zip(self.laterals, maps, strict=True)]
        for layer in self.extra:
            merged.append(layer(merged[-1]))
        for place in range(len(merged) - 2, -1, -1):
            size = merged[place].shape[-2:]
            merged[place] = merged[place] + functional.interpolate(merged[place + 1], size=size, mode="nearest")
        for _ in range(self.finer):
            merged.insert(0, functional.interpolate(merged[0], scale_factor=2, mode="bilinear", align_corners=False))
        return [layer(each) for layer, each in zip(self.out, merged, strict=True)]


class CellCentres(MlvlPointGenerator):
    """mmdet's generator of points, without the deprecated call of `torch.meshgrid`."""

    def _meshgrid(self, x: Tensor, y: Tensor, row_major: bool = True) -> tuple[Tensor, Tensor]:
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        return (columns.flatten(), rows.flatten()) if row_major else (rows.flatten(), columns.flatten())


class ObjectnessHead(RTMDetSepBNHead):
    """RTMDet's head for the single class "object", which leaves ignored regions out of the loss.

    Args:
        channels: Of the feature maps.
        num_convs: Hidden convolutions of each branch.
        strides: Of the feature maps.
    """

    def __init__(self, channels: int, num_convs: int, strides: Sequence[int]) -> None:
        # Classes rather than names: after a runner, mmengine looks names up in its own scope and finds none of mmdet's.
        super().__init__(
            num_classes=1,
            in_channels=channels,
            feat_channels=channels,
            stacked_convs=num_convs,
            share_conv=False,
            use_depthwise=True,
            with_objectness=False,
            exp_on_reg=True,
            anchor_generator={"type": CellCentres, "strides": list(strides), "offset": 0.5},
            bbox_coder={"type": DistancePointBBoxCoder},
            loss_cls={"type": QualityFocalLoss, "use_sigmoid": True, "beta": 2.0, "loss_weight": 1.0},
            loss_bbox={"type": GIoULoss, "loss_weight": 2.0},
            loss_centerness={"type": CrossEntropyLoss, "use_sigmoid": True},  # built by the base class, never used
            train_cfg={
                "assigner": {
                    "type": DynamicSoftLabelAssigner,
                    "topk": 13,
                    "iou_calculator": {"type": "mmdet.BboxOverlaps2D"},
                },
                "allowed_border": -1,
                "pos_weight": -1,
                "debug": False,
            },
            **_LAYER,
        )

    def _get_targets_single(
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        flat_anchors: Tensor,
        valid_flags: Tensor,
        gt_instances: InstanceData,
        img_meta: dict[str, Any],
        gt_instances_ignore: InstanceData | None = None,
        unmap_outputs: bool = True,
    ) -> tuple[Any, ...]:
        """Return mmdet's targets of one image; predictions (N, 4) that look like an ignored box have no weight."""
        targets: tuple[Any, ...] = super()._get_targets_single(
            cls_scores,
            bbox_preds,
            flat_anchors,
            valid_flags,
            gt_instances,
            img_meta,
            gt_instances_ignore,
            unmap_outputs,
        )
        labels, weights = targets[1], targets[2]
        if labels is not None and gt_instances_ignore is not None and len(gt_instances_ignore):
            ignored = _ignored(bbox_preds, gt_instances_ignore)
            weights[ignored & (labels == self.num_classes)] = 0
        return targets


class FpnTrunk(ProposalSource):
    """`fpn-trunk`: a feature pyramid on the detector's own trunk, and a head that predicts a box and its fit per cell.

    Args:
        levels: Pairs (stride, channels) of the maps that are packed in the trunk's feature map, from fine to coarse; a
            trunk with one map has one level.
        stride: Input pixels per cell of the trunk's feature map.
        strides: Of the pyramid's levels.
        channels: Of the pyramid's levels.
        num_convs: Hidden convolutions of each branch of the head.
        nms_iou: Overlap above which the lesser of two proposals goes, on whatever level.
        pre_nms: Proposals per level that take part in NMS.
        max_proposals: Proposals of an image at most.

    Raises:
        UsageError: The levels and strides do not fit together.
    """

    needs_features = True

    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        stride: int = 16,
        strides: Sequence[int] = STRIDES,
        channels: int = 96,
        num_convs: int = 2,
        nms_iou: float = 0.7,
        pre_nms: int = 1000,
        max_proposals: int = 300,
    ) -> None:
        super().__init__()
        self.levels, self.stride = as_levels(levels, stride), stride
        outer = as_levels([(each, channels) for each in strides], stride)
        if not {level.stride for level in self.levels} <= {level.stride for level in outer}:
            raise UsageError(f"The strides {list(strides)} lack one of the levels {list(map(list, levels))}.")
        self.neck = Pyramid(self.levels, strides, channels)
        self.head = ObjectnessHead(channels, num_convs, strides)
        self.head.init_weights()
        self.selection = Selection(nms_iou, pre_nms, max_proposals)

    def configure(
        self, nms_iou: float | None = None, pre_nms: int | None = None, max_proposals: int | None = None
    ) -> None:
        """Set what survives; arguments as in `ProposalSource.configure`."""
        self.selection.configure(nms_iou, pre_nms, max_proposals)

    @torch.no_grad()
    def propose(self, image: Tensor, sample: DetDataSample, features: Tensor | None) -> Proposals:
        """Return the proposals of one image, best first; only the features are read.

        Raises:
            ValueError: There are no features, or not those of `levels`.
        """
        logits, distances = self.dense(features)
        return self.select(logits, distances, [valid_size(sample)])[0]

    def loss(self, features: Tensor | Sequence[Tensor], samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """Return `loss_objectness` (quality focal loss) and `loss_proposal_box` (GIoU).

        Args:
            features: (1, channels, h, w) of each image, the trunk's.
            samples: With `gt_instances.bboxes` (N, 4), the objects to be found, in pixels of the network's input; their
                classes do not matter. `ignored_instances.bboxes` (M, 4), where present, are neither objects nor
                background; where `ignored_instances.crowd` (M,) is true, nothing inside the box is background either.
        """

        def of_group(maps: Tensor, its: Sequence[DetDataSample]) -> dict[str, Tensor]:
            return self.dense_loss(*self.dense(maps), its)

        return mean_over_images(of_group, features, samples)

    def dense_loss(
        self, logits: Sequence[Tensor], distances: Sequence[Tensor], samples: Sequence[DetDataSample]
    ) -> dict[str, Tensor]:
        """Return the losses of `loss` for what `dense` returned."""
        device = logits[0].device
        objects, ignored, metas = [], [], []
        for sample in samples:
            boxes = _boxes(sample.gt_instances, device)
            objects.append(InstanceData(bboxes=boxes, labels=boxes.new_zeros(len(boxes), dtype=torch.long)))
            ignored.append(_ignored_instances(sample, device))
            # mmdet takes cells up to `pad_shape` for valid: up to the image's own edge is what we want.
            metas.append({"img_shape": valid_size(sample), "pad_shape": valid_size(sample)})
        losses = self.head.loss_by_feat(
            [level.float() for level in logits], [level.float() for level in distances], objects, metas, ignored
        )
        return {
            "loss_objectness": torch.stack(list(losses["loss_cls"])).sum(),
            "loss_proposal_box": torch.stack(list(losses["loss_bbox"])).sum(),
        }

    def dense(self, features: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits [(B, 1, h, w)] and distances [(B, 4, h, w)] in pixels to left, top, right, bottom, by level.

        Raises:
            ValueError: There are no features, or not those of `levels`.
        """
        if features is None:
            raise ValueError("A proposal head on the trunk needs the trunk's feature map.")
        dtype = next(self.neck.parameters()).dtype
        maps = unpack_levels(features.to(dtype), self.levels, self.stride)
        logits, distances = self.head(self.neck(maps))
        return list(logits), [each.clamp(max=_FARTHEST) for each in distances]

    def select(
        self, logits: Sequence[Tensor], distances: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[Proposals]:
        """Return the proposals of each image of (height, width) pixels, best first, from `dense`."""
        maps = [(level.shape[-2], level.shape[-1]) for level in logits]
        points = self.head.prior_generator.grid_priors(maps, dtype=torch.float32, device=logits[0].device)
        found = []
        for image, (height, width) in enumerate(sizes):
            boxes, scores = [], []
            for logit, distance, cells in zip(logits, distances, points, strict=True):
                score, index = logit[image].flatten().float().topk(min(self.selection.pre_nms, logit[image].numel()))
                sides = distance[image].flatten(1).T[index].float()
                boxes.append(torch.cat([cells[index] - sides[:, :2], cells[index] + sides[:, 2:]], dim=1))
                scores.append(score)
            every = torch.cat(boxes)
            every = torch.minimum(every.clamp(min=0), every.new_tensor([width, height, width, height]))
            # One number for all levels: they predict the same objects, so they suppress one another.
            levels = torch.zeros(len(every), dtype=torch.long, device=every.device)
            found.append(suppress(every, torch.cat(scores), levels, self.selection))
        return found


def _boxes(instances: InstanceData, device: torch.device) -> Tensor:
    """Return the boxes (N, 4) as a float32 tensor on a device; mmdet may wrap them in a box type."""
    boxes = getattr(instances.bboxes, "tensor", instances.bboxes)
    return boxes.to(device, torch.float32)


def _ignored_instances(sample: DetDataSample, device: torch.device) -> InstanceData | None:
    """Return the ignored boxes of a sample with `crowd`, or None where there are none."""
    if "ignored_instances" not in sample:
        return None
    given = sample.ignored_instances
    boxes = _boxes(given, device)
    crowd = given.crowd.to(device) if "crowd" in given else torch.zeros(len(boxes), dtype=torch.bool, device=device)
    return InstanceData(bboxes=boxes, crowd=crowd)


def _ignored(boxes: Tensor, ignored: InstanceData) -> Tensor:
    """Return which of the boxes (N, 4) are like an ignored one, or lie in an ignored crowd: (N,) bool."""
    like = (box_iou(boxes, ignored.bboxes) > IGNORED_IOU).any(dim=1)
    crowds = ignored.bboxes[ignored.crowd]
    low, high = torch.maximum(boxes[:, None, :2], crowds[:, :2]), torch.minimum(boxes[:, None, 2:], crowds[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)  # (N, crowds)
    own = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).clamp(min=1e-6)
    return like | (shared / own[:, None] > IGNORED_SHARE).any(dim=1)
