"""A light proposal head on the detector's own feature map: no second backbone, and it can be trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from regionclip_cli.vision.proposals.base import Proposals, ProposalSource, mean_over_images, valid_size
from regionclip_cli.vision.proposals.nms import Selection, select
from regionclip_cli.vision.proposals.rpn_head import RATIOS, build_head, rpn_losses


class TrunkRpn(ProposalSource):
    """`rpn-trunk`: one RPN head on one map; "region proposal network" of Faster R-CNN, section 3.1.

    Args:
        channels: Channels of the feature map.
        feat_channels: Channels of the head's hidden convolutions.
        num_convs: Hidden convolutions.
        stride: Input pixels per cell of the feature map.
        sizes: Square roots of the anchors' areas, in pixels.
        ratios: Height by width of the anchors.
        nms_iou: Overlap above which the lesser of two proposals goes.
        pre_nms: Proposals that take part in NMS.
        max_proposals: Proposals of an image at most.
    """

    needs_features = True

    def __init__(
        self,
        channels: int,
        feat_channels: int = 256,
        num_convs: int = 1,
        stride: int = 16,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        ratios: Sequence[float] = RATIOS,
        nms_iou: float = 0.7,
        pre_nms: int = 1000,
        max_proposals: int = 300,
    ) -> None:
        super().__init__()
        self.rpn_head = build_head(channels, feat_channels, [(stride, sizes)], ratios, num_convs)
        self.rpn_head.init_weights()
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
            ValueError: There are no features.
        """
        logits, deltas = self._dense(features)
        return select(self.rpn_head, logits, deltas, [valid_size(sample)], self.selection)[0]

    def loss(self, features: Tensor | Sequence[Tensor], samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """Return the losses of `rpn_losses` for the features (1, channels, h, w) of each image and its annotations."""

        def of_group(maps: Tensor, its: Sequence[DetDataSample]) -> dict[str, Tensor]:
            logits, deltas = self._dense(maps)
            return rpn_losses(self.rpn_head, logits, deltas, its)

        return mean_over_images(of_group, features, samples)

    def _dense(self, features: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits [(B, A, h, w)] and deltas [(B, 4 A, h, w)] of the single level."""
        if features is None:
            raise ValueError("A proposal head on the trunk needs the trunk's feature map.")
        logits, deltas = self.rpn_head((features.to(self.rpn_head.rpn_cls.weight.dtype),))
        return logits, deltas
