"""Proposal networks that look at pixels with a backbone of their own: RegionCLIP's "offline" RPNs.

All three stand on the same ResNet-50, trained from Caffe's ImageNet weights: BGR pixels minus a mean, stride in the
first 1x1 convolution of a stage. They are trained on boxes of a data set and frozen ever after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from mmdet.models.backbones import ResNet
from mmdet.models.dense_heads import RPNHead
from mmdet.models.necks import FPN
from mmdet.structures import DetDataSample
from torch import Tensor, nn
from torch.nn import functional

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.backbones.folding import folded_copy
from regionclip_cli.vision.batches import Images, unpadded
from regionclip_cli.vision.proposals.base import Proposals, ProposalSource, mean_over_images, valid_size
from regionclip_cli.vision.proposals.nms import Selection, select
from regionclip_cli.vision.proposals.rpn_head import build_head, rpn_losses

Style = Literal["caffe", "pytorch"]
"""Which convolution of a block has the stride: the first (1x1) or the second (3x3)."""

MEAN_BGR = (103.53, 116.28, 123.675)
"""Mean of the training pixels, in 0..255; they were not divided by a deviation."""


class PixelRpn(ProposalSource):
    """An RPN with its own ResNet-50, frozen unless `learn` is called; use one of its subclasses.

    Args:
        backbone: Images to feature maps.
        neck: Feature maps to feature maps, or None.
        head: Feature maps to objectness and box deltas.
        divisor: The padded image's sides are multiples of this, in pixels.
        selection: What survives NMS.
    """

    backbone: Any  # mmdet's ResNet

    def __init__(
        self, backbone: nn.Module, neck: nn.Module | None, head: RPNHead, divisor: int, selection: Selection
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.rpn_head = head
        self.divisor = divisor
        self.selection = selection
        self._folded: tuple[nn.Module, nn.Module | None] | None = None
        self._learns = False
        self.register_load_state_dict_post_hook(self._forget)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> PixelRpn:
        """Set the training mode of a network that learns; any other stays in evaluation mode, whatever is asked."""
        super().train(mode and self._learns)
        if self._learns:
            self._folded = None  # its weights are about to change
        return self

    def learn(self, freeze: int = 0, norms: bool = True) -> None:
        """Let the network be trained by `learning_loss`.

        Args:
            freeze: Stages of the ResNet that stay as they are; 2 are the stem and the first one, as in detectron2.
            norms: Whether batch norms are trained, with the statistics of each batch. A ResNet that begins at random
                needs that; one that was trained on ImageNet keeps its norms, as is usual with small batches.

        Raises:
            UsageError: There are fewer stages than that.
        """
        stages = 1 + len(self.backbone.res_layers)
        if not 0 <= freeze <= stages:
            raise UsageError(f"{freeze} stages of a ResNet with {stages} cannot be frozen.")
        self._learns = True
        self.requires_grad_(True)
        self.backbone.frozen_stages = freeze - 1
        self.backbone.norm_eval = not norms
        for module in self.backbone.modules() if not norms else ():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
        self.train(True)

    def learning_loss(self, images: Images, samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """Return the losses of `rpn_losses` for images RGB 0..255 and annotated samples."""

        def of_group(some: Tensor, its: Sequence[DetDataSample]) -> dict[str, Tensor]:
            maps = self.backbone(self.prepare(some))
            logits, deltas = self.rpn_head(self.neck(maps) if self.neck is not None else maps)
            return rpn_losses(self.rpn_head, logits, deltas, its)

        return mean_over_images(of_group, [image[None] for image in unpadded(images, samples)], samples)

    def configure(
        self, nms_iou: float | None = None, pre_nms: int | None = None, max_proposals: int | None = None
    ) -> None:
        """Set what survives; arguments as in `ProposalSource.configure`."""
        self.selection.configure(nms_iou, pre_nms, max_proposals)

    @torch.no_grad()
    def propose(self, image: Tensor, sample: DetDataSample, features: Tensor | None) -> Proposals:
        """Return the proposals of one image, best first; the features are not read."""
        backbone, neck = self._for_inference()
        maps = backbone(self.prepare(image[None]))
        logits, deltas = self.rpn_head(neck(maps) if neck is not None else maps)
        return select(self.rpn_head, logits, deltas, [valid_size(sample)], self.selection)[0]

    def prepare(self, images: Tensor) -> Tensor:
        """Return BGR minus mean, padded by zeros to the divisor, in the network's number type.

        Args:
            images: (B, 3, h, w) RGB in 0..255, of one size.
        """
        height, width = images.shape[-2:]
        pixels = images.float().flip(1) - images.new_tensor(MEAN_BGR).float().view(3, 1, 1)
        pixels = functional.pad(pixels, (0, -width % self.divisor, 0, -height % self.divisor))
        weight = self.rpn_head.rpn_cls.weight
        return pixels.to(weight.device, weight.dtype).contiguous(memory_format=torch.channels_last)

    def _for_inference(self) -> tuple[nn.Module, nn.Module | None]:
        """Return copies of backbone and neck without batch norms, made when first needed."""
        wanted = next(self.backbone.parameters())
        if self._folded is not None:
            made = next(self._folded[0].parameters())
            if (made.dtype, made.device) == (wanted.dtype, wanted.device):
                return self._folded
        self._folded = folded_copy(self.backbone), folded_copy(self.neck) if self.neck is not None else None
        return self._folded

    def _forget(self, *_: object) -> None:
        """Drop the copies when other weights are loaded."""
        self._folded = None


def _resnet(stages: int, style: Style) -> ResNet:
    """Build the first stages of a ResNet-50; the maps of all of them, or of the third alone."""
    if style not in ("caffe", "pytorch"):
        raise UsageError(f"There is no style {style!r} of a ResNet.", "Choose caffe or pytorch.")
    return ResNet(
        50,
        num_stages=stages,
        strides=(1, 2, 2, 2)[:stages],
        dilations=(1,) * stages,
        out_indices=(0, 1, 2, 3) if stages == 4 else (2,),
        style=style,
    )


class FpnRpn(PixelRpn):
    """`rpn-fpn`: ResNet-50 with a feature pyramid of five levels and three anchors a cell.

    RegionCLIP's network `rpn_lvis_866`, which its pre-training checkpoints carry along.

    Args:
        nms_iou: Overlap above which the lesser of two proposals of one level goes.
        pre_nms: Proposals per level that take part in NMS.
        max_proposals: Proposals of an image at most.
        style: Of the ResNet; "pytorch" for one that began with torchvision's or timm's weights.
    """

    pyramid_norm: dict[str, str] | None = None
    head_convolutions: int = 1

    def __init__(
        self, nms_iou: float = 0.7, pre_nms: int = 1000, max_proposals: int = 1000, style: Style = "caffe"
    ) -> None:
        strides = (4, 8, 16, 32, 64)
        super().__init__(
            _resnet(4, style),
            FPN([256, 512, 1024, 2048], 256, num_outs=len(strides), norm_cfg=self.pyramid_norm),
            build_head(256, 256, [(stride, [8 * stride]) for stride in strides], num_convs=self.head_convolutions),
            divisor=32,
            selection=Selection(nms_iou, pre_nms, max_proposals),
        )


class LsjRpn(FpnRpn):
    """`rpn-fpn-lsj`: as `rpn-fpn`, with norms in the pyramid and two convolutions in the head; arguments as there.

    RegionCLIP's network `rpn_lvis_866_lsj`, trained with large-scale jitter. Its norms were synchronised over GPUs in
    training, which makes no difference once they are frozen.
    """

    pyramid_norm = {"type": "BN"}  # noqa: RUF012
    head_convolutions = 2


class C4Rpn(PixelRpn):
    """`rpn-c4`: the first three stages of a ResNet-50, one map of stride 16, fifteen anchors a cell.

    RegionCLIP's networks `rpn_coco_48`, `rpn_coco_65` and `rpn_coco_80`.

    Args:
        nms_iou: Overlap above which the lesser of two proposals goes.
        pre_nms: Proposals that take part in NMS.
        max_proposals: Proposals of an image at most.
        style: Of the ResNet; "pytorch" for one that began with torchvision's or timm's weights.
    """

    def __init__(
        self, nms_iou: float = 0.7, pre_nms: int = 6000, max_proposals: int = 1000, style: Style = "caffe"
    ) -> None:
        super().__init__(
            _resnet(3, style),
            None,
            build_head(1024, 1024, [(16, [32, 64, 128, 256, 512])]),
            divisor=1,
            selection=Selection(nms_iou, pre_nms, max_proposals),
        )
