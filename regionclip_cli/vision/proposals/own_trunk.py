"""A proposal head with the image tower that it was trained on: what a detector lends to models of another kind.

A head on a trunk understands no features but those of its own model. So that such a model can propose boxes for any
other one, the two travel together: the tower runs on the same image, at the size that it was made for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.structures import DetDataSample
from torch import Tensor
from torch.nn import functional

from regionclip_cli.data.resize import target_size
from regionclip_cli.errors import UsageError
from regionclip_cli.vision.backbones.base import BATCH_NORMS
from regionclip_cli.vision.backbones.build import build_backbone
from regionclip_cli.vision.batches import Images, run_by_shape, unpadded
from regionclip_cli.vision.proposals.base import Proposals, ProposalSource, valid_size
from regionclip_cli.vision.proposals.fpn_trunk import FpnTrunk
from regionclip_cli.vision.proposals.trunk_rpn import TrunkRpn

HEADS: dict[str, type[ProposalSource]] = {"rpn-trunk": TrunkRpn, "fpn-trunk": FpnTrunk}
"""Proposal heads that stand on a detector's trunk."""


class OwnTrunk(ProposalSource):
    """`own-trunk`: a proposal head and the backbone below it; both are frozen until `learn` is called.

    Args:
        backbone: Name of the backbone.
        head: `type`, one of `HEADS`, and the options of that class.
        clip: open_clip config of the backbone; None takes the backbone's own.
        pool_size: Side P of the RoIAlign grid that the backbone was made with.
        short_side: Shorter side in pixels that images are brought to; 0 leaves them as they are.
        max_side: Longest side in pixels that they may have then.

    Raises:
        UsageError: The head is not one that stands on a trunk.
    """

    def __init__(
        self,
        backbone: str,
        head: Mapping[str, Any],
        clip: Mapping[str, Any] | None = None,
        pool_size: int | None = None,
        short_side: int = 480,
        max_side: int = 800,
    ) -> None:
        super().__init__()
        options = dict(head)
        kind = options.pop("type", None)
        if kind not in HEADS:
            raise UsageError(f"{kind!r} is not a proposal head on a trunk.", f"Known are {', '.join(HEADS)}.")
        tower = build_backbone(backbone, clip, pool_size)
        self._backbone = (tower,)  # in a tuple: its weights are registered below `trunk` alone
        self.trunk = tower.visual
        self.head: Any = HEADS[kind](**options)
        self.short_side, self.max_side = short_side, max_side
        self._learns = False
        self.requires_grad_(False)
        self.train(False)

    @property
    def selection(self) -> Any:
        """What survives of the head's boxes."""
        return getattr(self.head, "selection", None)

    def configure(
        self, nms_iou: float | None = None, pre_nms: int | None = None, max_proposals: int | None = None
    ) -> None:
        """Set what survives; arguments as in `ProposalSource.configure`."""
        self.head.configure(nms_iou, pre_nms, max_proposals)

    def learn(self, freeze: int = 0) -> None:
        """Train the head and the trunk from now on, but for the trunk's first stages and its batch norms.

        Raises:
            UsageError: The trunk has fewer than `freeze` stages.
        """
        backbone = self._backbone[0]
        self._learns = True
        self.requires_grad_(True)
        for module in backbone.modules():
            if isinstance(module, BATCH_NORMS):
                module.requires_grad_(False)
        backbone.freeze(freeze)

    def train(self, mode: bool = True) -> OwnTrunk:
        """Set the training mode, which is evaluation mode as long as nothing here learns."""
        mode = mode and self._learns
        super().train(mode)
        self._backbone[0].train(mode)
        return self

    def learning_loss(self, images: Images, samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """Return the head's losses for images RGB 0..255 at the size that they have, and annotated samples."""
        features = run_by_shape(self._features, unpadded(images, samples))
        losses: dict[str, Tensor] = self.head.loss(features, samples)
        return losses

    @torch.no_grad()
    def propose(self, image: Tensor, sample: DetDataSample, features: Tensor | None) -> Proposals:
        """Return the proposals of one image, best first, in its pixels; the features are not read."""
        height, width = valid_size(sample)
        size = target_size(height, width, self.short_side, self.max_side)
        pixels = image[None].float()
        if size != (height, width):
            pixels = functional.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
        scaled = [DetDataSample(metainfo={"img_shape": size})]
        (found,) = self.head(pixels, scaled, [self._features(pixels)])
        scale = found.boxes.new_tensor([width / size[1], height / size[0]] * 2)
        return Proposals(found.boxes * scale, found.logits)

    def _features(self, images: Tensor) -> Tensor:
        """Return the trunk's maps of images (B, 3, h, w) RGB 0..255 of one size."""
        backbone = self._backbone[0]
        return backbone.trunk(backbone.normalise(images))
