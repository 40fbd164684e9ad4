"""One mask for any class, from the maps that a region's embedding is made of (Mask R-CNN on C4 features).

Letters: F foreground regions, N detections, p the side of a region's map, s = 2 p the side of a predicted mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from faster_coco_eval.core import mask as run_lengths
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from torch import Tensor, nn
from torch.nn import functional

from regionclip_cli.errors import UsageError
from regionclip_cli.registry import MODELS
from regionclip_cli.vision.roi_training import Sampled

PASTED_AT_A_TIME = 16
"""Masks that are drawn into the image together; it bounds memory and changes no result."""


@MODELS.register_module()
class RegionMaskHead(nn.Module):
    """One deconvolution that doubles the resolution, and one 1x1 convolution to a single mask.

    It has no convolutions of its own before that: it stands on the last maps of the region encoder (`layer4` of a
    ResNet), which it shares with the classifier, as in RegionCLIP's LVIS detectors.

    Args:
        channels: Channels c' of those maps.
        width: Channels after the deconvolution.
    """

    def __init__(self, channels: int, width: int = 256) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(channels, width, kernel_size=2, stride=2)
        self.predictor = nn.Conv2d(width, 1, kernel_size=1)
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=0.001)
        for part in (self.deconv, self.predictor):
            if part.bias is not None:
                nn.init.zeros_(part.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Return mask logits (F, s, s) float32 of region maps (F, c', p, p)."""
        hidden = functional.relu(self.deconv(maps.to(self.deconv.weight.dtype)))
        return self.predictor(hidden)[:, 0].float()


def mask_loss(logits: Tensor, sampled: Sequence[Sampled], samples: Sequence[DetDataSample]) -> Tensor:
    """Return the mean binary cross entropy of mask logits (sum of F, s, s), the object's mask cut to each region's box.

    Args:
        logits: Of the regions that show an object, image by image.
        sampled: Which regions those are, and which object each of them shows.
        samples: With `gt_instances.masks`, one mask an object, in network-input pixels.

    Raises:
        UsageError: An image comes without masks.
    """
    if not len(logits):
        return logits.sum() * 0.0
    for sample in samples:
        if not isinstance(getattr(sample.gt_instances, "masks", None), BitmapMasks | PolygonMasks):
            raise UsageError(
                f"The mask head has nothing to learn from: image {sample.get('key', '?')} comes without masks.",
                "Give annotations with `segmentation`, or set mask_head: false.",
            )
    targets = [_targets(each, sample, logits) for each, sample in zip(sampled, samples, strict=True)]
    return functional.binary_cross_entropy_with_logits(logits, torch.cat(targets))


def _targets(sampled: Sampled, sample: DetDataSample, logits: Tensor) -> Tensor:
    """Return the masks (F, s, s) of an image's foreground regions, 0 or 1: the object's, cut to the region's box."""
    count, (height, width) = len(sampled.labels), logits.shape[-2:]
    if not count:
        return logits.new_zeros(0, height, width)
    boxes, objects = sampled.boxes[:count].cpu().numpy(), sampled.matched.cpu().numpy()
    cut = sample.gt_instances.masks.crop_and_resize(boxes, (height, width), objects, device="cpu", binarize=True)
    filled = cut.masks
    if isinstance(cut, PolygonMasks):
        filled = np.stack([fill(rings, height, width) for rings in cut.masks])
    return torch.from_numpy(filled).to(logits)


def fill(rings: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Return polygons [(x1, y1, x2, y2, ...), ...] as pixels (height, width) uint8, 1 inside any of them.

    By faster-coco-eval, and not by mmdet's `polygon_to_bitmap`: pycocotools 2.0, which that asks, warns with NumPy 2.
    """
    runs = run_lengths.frPyObjects([np.asarray(ring, np.float64).ravel().tolist() for ring in rings], height, width)
    filled: np.ndarray = run_lengths.decode(run_lengths.merge(runs))
    return filled


@torch.no_grad()
def paste_masks(logits: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Return the masks (N, height, width) bool of detections, each stretched to its box.

    A pixel belongs to the object where the mask, read at the pixel's centre by bilinear interpolation, is above 1/2.

    Args:
        logits: (N, s, s), `RegionMaskHead`'s.
        boxes: (N, 4) xyxy in pixels of the image that is drawn on.
        height: Of that image in pixels.
        width: Of that image in pixels.
    """
    device = logits.device
    x = torch.arange(width, device=device) + 0.5
    y = torch.arange(height, device=device) + 0.5
    drawn = torch.zeros(len(logits), height, width, dtype=torch.bool, device=device)
    for start in range(0, len(logits), PASTED_AT_A_TIME):
        some = slice(start, start + PASTED_AT_A_TIME)
        x1, y1, x2, y2 = (each[:, None] for each in boxes[some].float().unbind(dim=1))
        across = (x - x1) / (x2 - x1).clamp(min=1e-6) * 2 - 1  # (n, width): -1..1 inside the box
        down = (y - y1) / (y2 - y1).clamp(min=1e-6) * 2 - 1
        grid = torch.stack(
            [across[:, None].expand(-1, height, -1), down[:, :, None].expand(-1, -1, width)], dim=-1
        )  # (n, height, width, 2)
        inside = (grid.abs() <= 1).all(dim=-1)
        values = functional.grid_sample(
            logits[some, None].float().sigmoid(), grid, padding_mode="border", align_corners=False
        )
        drawn[some] = (values[:, 0] > 0.5) & inside
    return drawn
