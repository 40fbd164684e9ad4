"""Batches of images of different sizes, without padding.

A convolution looks over the border of its image. Zeros that pad a batch to one canvas are not what it sees at the
border of an image that stands alone, so padding changes features, and with them boxes and scores. Nothing is padded
here: images keep their own sizes, and a network runs on those of equal size together.

On a CPU a network runs on one image at a time. Matrix libraries choose kernels by the size of a batch, so the last
digits would depend on the batch; and a batch on a CPU is not faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmdet.models.utils.misc import samplelist_boxtype2tensor
from mmdet.structures import DetDataSample
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from regionclip_cli.registry import MODELS

Images = Tensor | Sequence[Tensor]
"""Images (B, 3, H, W), or B images (3, h, w) of any sizes."""


@MODELS.register_module()
class UnpaddedImages(BaseDataPreprocessor):
    """Moves a batch to the model's device; images stay a list, each of its own size, in float32."""

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Return `inputs` as B tensors (3, h, w) float32, and `data_samples` as they are."""
        data = self.cast_data(data)
        samples = data.get("data_samples")
        if samples is not None:
            samplelist_boxtype2tensor(samples)
        return {"inputs": [image.float() for image in data["inputs"]], "data_samples": samples}


def maps_by_image(features: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    """Return maps (B, ...) as B of (1, ...); a list of such maps is returned as it is."""
    return features.split(1) if isinstance(features, Tensor) else features


def unpadded(images: Images, samples: Sequence[DetDataSample] | None = None) -> list[Tensor]:
    """Return each image (3, h, w) without the padding that its sample's `img_shape` tells of."""
    if samples is None:
        return list(images)
    sizes = [sample.img_shape[:2] for sample in samples]
    return [image[:, :height, :width] for image, (height, width) in zip(images, sizes, strict=True)]


def groups_by_shape(tensors: Sequence[Tensor], largest: int | None = None) -> list[list[int]]:
    """Return the indices of tensors of equal shape together, in groups of `largest` at most, in order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, tensor in enumerate(tensors):
        groups.setdefault(tuple(tensor.shape), []).append(index)
    step = largest or max(len(tensors), 1)
    return sorted(group[at : at + step] for group in groups.values() for at in range(0, len(group), step))


def run_by_shape(network: Callable[[Tensor], Tensor], images: Sequence[Tensor]) -> list[Tensor]:
    """Return the network's output (1, ...) for each image (3, h, w), run on images of equal shape together."""
    on_cpu = bool(images) and images[0].device.type == "cpu"
    found: dict[int, Tensor] = {}
    for group in groups_by_shape(images, largest=1 if on_cpu else None):
        found |= zip(group, network(torch.stack([images[index] for index in group]).contiguous()).split(1), strict=True)
    return [found[index] for index in range(len(images))]
