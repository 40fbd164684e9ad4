"""Regions as pictures of their own: the naive way to name a region with CLIP.

Each box is cut out of the pixels and sent through the whole image tower, as CLIP saw its training pictures. It sees
nothing around the box, and costs a pass of the tower for every box; RegionCLIP's pretraining exists to do better from
one feature map. As a teacher it is slow, but it asks of a CLIP model only what the model was trained for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from regionclip_cli.vision.backbones.base import Backbone
from regionclip_cli.vision.backbones.folding import folded_copy
from regionclip_cli.vision.backbones.resnet import ClipResNet
from regionclip_cli.vision.backbones.timm_tower import TimmTower

FOLDABLE = (ClipResNet, TimmTower)
"""Families in which every batch norm follows a convolution, as `folded_copy` takes it."""

ROUNDING = 0.01
"""A box that reaches into a pixel by less than this share of it, as scaled boxes do, leaves the pixel out."""


class CropEncoder(nn.Module):
    """Embeds boxes of an image by cropping them, in the space of the backbone's texts.

    A crop is stretched to the tower's square with the bicubic filter, open_clip's `resize_mode="squash"`: its default
    cuts the ends off an oblong picture, which would cut the ends off an oblong thing.

    Args:
        backbone: Its image tower is used whole. It stays the caller's: its parameters are not registered here.
        side: Pixels of the square, or None for what the tower was built for.
        chunk: Crops in memory at once; it changes no result beyond rounding. Left out, few on a CPU, whose caches are
            small, and many elsewhere.

    Where no gradient is wanted, batch norms are folded into a copy of the tower, which is made when it is first needed:
    a tower that was trained in between wants a new `CropEncoder`.
    """

    def __init__(self, backbone: Backbone, side: int | None = None, chunk: int | None = None) -> None:
        super().__init__()
        self._backbone = (backbone,)
        self.size = (side, side) if side else _built_for(backbone)
        self.chunk = chunk
        self._folded: tuple[nn.Module, ...] = ()

    @property
    def backbone(self) -> Backbone:
        """The backbone in use."""
        return self._backbone[0]

    def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
        """Embed every box of one image.

        Args:
            image: RGB pixels 0..255, (3, H, W), of any number type.
            boxes: (R, 4) xyxy in pixels. What reaches over the border is cut off; of a box that is thinner than a
                pixel or lies outside, the nearest pixels are taken.

        Returns:
            (R, D) float32, not normalised, on the backbone's device.
        """
        backbone = self.backbone
        image = image.to(backbone.device)
        on_cpu = image.device.type == "cpu"
        chunk = self.chunk or (8 if on_cpu else 64)
        visual = self._tower()
        corners = whole_pixels(boxes, *image.shape[-2:]).tolist()
        embeddings = []
        for first in range(0, len(corners), chunk):
            crops = torch.stack([self.crop(image, *corner) for corner in corners[first : first + chunk]])
            pixels = backbone.normalise(crops)
            if on_cpu:
                pixels = pixels.contiguous(memory_format=torch.channels_last)
            embeddings.append(visual(pixels).float())
        return torch.cat(embeddings) if embeddings else torch.zeros(0, backbone.embed_dim, device=backbone.device)

    def crop(self, image: Tensor, left: int, top: int, right: int, bottom: int) -> Tensor:
        """Return one crop of an image (3, H, W) at the tower's size, in 0..255 whatever the filter overshoots."""
        cut = image[:, top:bottom, left:right]
        sized = functional.resize(cut, list(self.size), InterpolationMode.BICUBIC, antialias=True)
        return sized.clamp(0, 255)

    def _tower(self) -> nn.Module:
        """Return the tower, or a quicker copy of it where nothing is learned."""
        backbone = self.backbone
        if torch.is_grad_enabled() or not isinstance(backbone, FOLDABLE):
            return backbone.visual
        if not self._folded or _kind(self._folded[0]) != _kind(backbone.visual):
            self._folded = (folded_copy(backbone.visual),)
        return self._folded[0]


def whole_pixels(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return boxes (R, 4) as the pixels they touch, (R, 4) long on the CPU: inside the image, at least one pixel."""
    across_down = torch.tensor([width, height])
    corners = boxes.detach().cpu().float().nan_to_num()
    first = (corners[:, :2] + ROUNDING).floor().long().clamp(min=0).minimum(across_down - 1)
    last = (corners[:, 2:] - ROUNDING).ceil().long().maximum(first + 1).minimum(across_down)
    return torch.cat([first, last], dim=1)


def _built_for(backbone: Backbone) -> tuple[int, int]:
    """Return height and width of the pictures the tower was built for, `image_size` of its open_clip config."""
    size = backbone.visual.image_size
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _kind(network: nn.Module) -> tuple[torch.dtype, torch.device]:
    parameter = next(network.parameters())
    return parameter.dtype, parameter.device
