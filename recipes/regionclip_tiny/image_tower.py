"""The image tower's halves, and feature maps of photos kept in memory.

The trunk (tf_efficientnet_lite0 up to stride 16) keeps its ImageNet weights, so every photo passes through it once;
only what follows RoIAlign (the last stages and a projection to D = 512) is trained, on cached maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sources
import timm
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

MEAN, STD, STRIDE = 0.498, 0.502, 16


def imagenet_tower(weights: Path) -> nn.Module:
    """Return timm's tf_efficientnet_lite0 with weights whose tensors come in the order of timm's state_dict."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    tensors = list(torch.load(weights, map_location="cpu", weights_only=True).values())
    names = list(model.state_dict())
    if len(tensors) != len(names):
        raise SystemExit(f"{weights}: {len(tensors)} tensors, expected {len(names)}")
    model.load_state_dict(dict(zip(names, tensors, strict=True)))
    return model


class Trunk(nn.Module):
    """Pixels (B, 3, H, W) in 0..1 -> features (B, 112, H/16, W/16)."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.stem, self.norm, self.blocks = tower.conv_stem, tower.bn1, tower.blocks[:5]

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the feature map of pixels in 0..1."""
        return self.blocks(self.norm(self.stem((pixels - MEAN) / STD)))


class Pool(nn.Module):
    """RoI features (R, 112, P, P) -> embeddings (R, 512)."""

    def __init__(self, tower: nn.Module, dim: int = 512) -> None:
        super().__init__()
        self.blocks, self.conv, self.norm = tower.blocks[5:], tower.conv_head, tower.bn2
        self.proj = nn.Linear(1280, dim, bias=False)

    def features(self, regions: Tensor) -> Tensor:
        """Return average-pooled features (R, 1280)."""
        return self.norm(self.conv(self.blocks(regions))).mean((2, 3))

    def forward(self, regions: Tensor) -> Tensor:
        """Return region embeddings, not normalised."""
        return self.proj(self.features(regions))


@dataclass
class Map:
    """The feature map (112, h, w) fp16 of one photo at one scale, its boxes in input pixels, and the photo."""

    features: Tensor
    boxes: Tensor
    size: tuple[int, int]
    photo: sources.Photo


def load(photo: sources.Photo, short: int, longest: int = 1000) -> tuple[Tensor, Tensor]:
    """Return pixels (3, H, W) in 0..1 and the scale (4,) of xyxy boxes; sides are rounded to whole map cells."""
    with Image.open(photo.path) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    scale = min(short / min(image.size), longest / max(image.size))
    width, height = (max(1, round(side * scale / (2 * STRIDE))) * 2 * STRIDE for side in image.size)
    across, down = width / image.width, height / image.height
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return pixels, torch.tensor([across, down, across, down])


def maps(trunk: Trunk, photos: Sequence[sources.Photo], shorts: Sequence[int], flip: bool, seed: int = 0) -> list[Map]:
    """Return one map a photo at a short side drawn from `shorts`; with `flip`, half of them mirrored.

    Sides are rounded to multiples of 32 so that few shapes occur: the convolution library prepares itself anew for
    each. Features are computed in bfloat16.
    """
    rng = np.random.default_rng(seed)
    out = []
    trunk = trunk.to(torch.bfloat16, memory_format=torch.channels_last)
    for photo in photos:
        pixels, scale = load(photo, int(rng.choice(list(shorts))))
        boxes = torch.from_numpy(photo.boxes) * scale
        if flip and rng.random() < 0.5:
            pixels = pixels.flip(2)
            width = pixels.shape[2]
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
        with torch.inference_mode():
            batch = pixels[None].to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
            features = trunk(batch)[0]
        out.append(Map(features.half().contiguous().clone(), boxes, tuple(pixels.shape[1:]), photo))
    return out
