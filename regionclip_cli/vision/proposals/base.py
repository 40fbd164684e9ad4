"""What every source of proposals takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mmdet.structures import DetDataSample
from torch import Tensor, nn


class Proposals(NamedTuple):
    """Class-agnostic boxes of one image.

    Attributes:
        boxes: (K, 4) xyxy in pixels of the network's input, float32.
        logits: (K,) objectness before the sigmoid, float32; None where the source has no opinion.
    """

    boxes: Tensor
    logits: Tensor | None


class ProposalSource(nn.Module):
    """Proposes boxes for a batch of images.

    Attributes:
        needs_features: Whether `forward` wants the detector's own feature map.
    """

    needs_features: bool = False

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self, images: Tensor, samples: Sequence[DetDataSample], features: Tensor | None = None
    ) -> list[Proposals]:
        """Return the proposals of each image; those of a network come best first.

        Args:
            images: (B, 3, H, W) RGB in 0..255, each image in the top left corner, zeros elsewhere.
            samples: One for each image; `img_shape` (h, w) says how much of H x W is image.
            features: (B, channels, H/stride, W/stride), the detector's feature map, where `needs_features`.
        """
        raise TypeError(f"{type(self).__name__} does not say how it proposes boxes.")

    def configure(
        self, nms_iou: float | None = None, pre_nms: int | None = None, max_proposals: int | None = None
    ) -> None:
        """Set test-time switches; None leaves one as it is. A source passes over switches that it has no use for.

        Args:
            nms_iou: Overlap above which the lesser of two proposals goes.
            pre_nms: Proposals per feature level that take part in NMS.
            max_proposals: Proposals of an image at most.
        """


def valid_size(sample: DetDataSample) -> tuple[int, int]:
    """Return the height and width of the image within its padded plane, in pixels."""
    height, width = sample.img_shape[:2]
    return int(height), int(width)
