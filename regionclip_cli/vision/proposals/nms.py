"""From an RPN head's dense output to the proposals of an image.

mmdet's own selection returns scores after the sigmoid. In float32 that is 1.0 for every logit above 17, but
RegionCLIP's official scores need the logit itself; so the selection is done here, on logits, with mmdet's anchors and
box coder. The steps are detectron2's, in its order: take the best `pre_nms` of each level, decode them, drop empty
boxes, suppress within each level, keep the best `max_proposals` of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.models.dense_heads import RPNHead
from torch import Tensor
from torchvision.ops import batched_nms

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.proposals.base import Proposals


@dataclass
class Selection:
    """How many of a head's boxes survive.

    Attributes:
        nms_iou: Overlap above which the lesser of two proposals of one level goes.
        pre_nms: Proposals per feature level that take part in NMS.
        max_proposals: Proposals of an image at most.
    """

    nms_iou: float = 0.7
    pre_nms: int = 1000
    max_proposals: int = 1000

    def __post_init__(self) -> None:
        self._check()

    def configure(self, nms_iou: float | None, pre_nms: int | None, max_proposals: int | None) -> None:
        """Change what is not None."""
        self.nms_iou = self.nms_iou if nms_iou is None else nms_iou
        self.pre_nms = self.pre_nms if pre_nms is None else pre_nms
        self.max_proposals = self.max_proposals if max_proposals is None else max_proposals
        self._check()

    def _check(self) -> None:
        if not 0 <= self.nms_iou <= 1:
            raise UsageError(f"The NMS overlap of proposals must be between 0 and 1, not {self.nms_iou}.")
        if self.pre_nms < 1 or self.max_proposals < 1:
            raise UsageError("At least one proposal must be kept before and after NMS.")


def select(
    head: RPNHead, logits: Sequence[Tensor], deltas: Sequence[Tensor], sizes: Sequence[tuple[int, int]], how: Selection
) -> list[Proposals]:
    """Return the proposals of each image, best first; all arithmetic on boxes is in float32.

    Args:
        head: Lends its anchors and its box coder.
        logits: For each level (B, A, h, w), A anchors a cell.
        deltas: For each level (B, 4 A, h, w).
        sizes: Height and width of each image in pixels; boxes are clipped to them.
        how: What survives.
    """
    maps = [(level.shape[-2], level.shape[-1]) for level in logits]
    anchors = head.prior_generator.grid_priors(maps, dtype=torch.float32, device=logits[0].device)
    proposals = []
    for image, size in enumerate(sizes):
        boxes, scores, levels = [], [], []
        for number, priors in enumerate(anchors):
            score = logits[number][image].permute(1, 2, 0).flatten().float()
            score, index = score.topk(min(how.pre_nms, len(score)))
            delta = deltas[number][image].permute(1, 2, 0).reshape(-1, 4)[index].float()
            boxes.append(head.bbox_coder.decode(priors[index], delta, max_shape=size))
            scores.append(score)
            levels.append(torch.full_like(index, number))
        proposals.append(suppress(torch.cat(boxes), torch.cat(scores), torch.cat(levels), how))
    return proposals


def suppress(boxes: Tensor, scores: Tensor, levels: Tensor, how: Selection) -> Proposals:
    """Drop boxes that are empty or not finite, then those that a better one of their level overlaps."""
    sound = (boxes[:, 2:] > boxes[:, :2]).all(dim=1) & torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores)
    boxes, scores, levels = boxes[sound], scores[sound], levels[sound]
    kept = batched_nms(boxes, scores, levels, how.nms_iou)[: how.max_proposals]
    return Proposals(boxes[kept], scores[kept])
