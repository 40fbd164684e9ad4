"""What every source of proposals takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from regionclip_cli.vision.batches import Images, groups_by_shape, maps_by_image, unpadded


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
        self, images: Images, samples: Sequence[DetDataSample], features: Tensor | Sequence[Tensor] | None = None
    ) -> list[Proposals]:
        """Return the proposals of each image; those of a network come best first.

        Args:
            images: RGB in 0..255, (3, h, w) each; padding outside a sample's `img_shape` is cut off.
            samples: One for each image, with `img_shape` (h, w).
            features: The detector's feature map (1, channels, h/stride, w/stride) of each image, where
                `needs_features`.
        """
        maps = [None] * len(samples) if features is None else maps_by_image(features)
        return [
            self.propose(image, sample, feature)
            for image, sample, feature in zip(unpadded(images, samples), samples, maps, strict=True)
        ]

    def propose(self, image: Tensor, sample: DetDataSample, features: Tensor | None) -> Proposals:
        """Return the proposals of one image (3, h, w) with features (1, channels, h/stride, w/stride) or None."""
        raise TypeError(f"{type(self).__name__} does not implement propose().")

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


def mean_over_images(
    losses: Callable[[Tensor, Sequence[DetDataSample]], dict[str, Tensor]],
    inputs: Tensor | Sequence[Tensor],
    samples: Sequence[DetDataSample],
) -> dict[str, Tensor]:
    """Return the mean over images of losses; inputs, (B, ...) or B of (1, ...), go together where shapes are equal."""
    total: dict[str, Tensor] = {}
    inputs = maps_by_image(inputs)
    for group in groups_by_shape(inputs):
        found = losses(torch.cat([inputs[index] for index in group]), [samples[index] for index in group])
        for name, value in found.items():
            part = value * (len(group) / len(samples))
            total[name] = total[name] + part if name in total else part
    return total
