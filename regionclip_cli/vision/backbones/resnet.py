"""CLIP's modified ResNets: trunk = stem to `layer3` (stride 16), pool = `layer4` and attention (RegionCLIP 3.1).

They differ from the ResNets of detection in three ways: a stem of three convolutions, average pooling instead of
strides in convolutions, and attention pooling at the end. The attention has one learned position per cell of a
training image, so a region must be cut into as many cells: P = image size / 16 (14 for RN50, 18 for RN50x4).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from open_clip.modified_resnet import Bottleneck, ModifiedResNet
from torch import Tensor, nn
from torch.nn import functional

from regionclip_cli.errors import UsageError
from regionclip_cli.registry import MODELS
from regionclip_cli.vision.backbones.attention_pool import one_query_attention
from regionclip_cli.vision.backbones.base import Backbone, Grid, RegionPlan
from regionclip_cli.vision.backbones.folding import conv_norm, fold


@MODELS.register_module()
class ClipResNet(Backbone):
    """An open_clip `ModifiedResNet` as a detection backbone.

    Args:
        visual: The tower.
        mean: RGB mean, 0..1.
        std: RGB standard deviation, 0..1.
        pool_size: Only what the positions of the attention pool allow; None takes it from them.

    Raises:
        UsageError: `visual` is another network, or `pool_size` does not fit its attention pool.
    """

    def __init__(
        self, visual: nn.Module, mean: Sequence[float], std: Sequence[float], pool_size: int | None = None
    ) -> None:
        if not isinstance(visual, ModifiedResNet):
            raise UsageError(f"A CLIP ResNet is needed here, not a {type(visual).__name__}.")
        side = 2 * round((visual.attnpool.positional_embedding.shape[0] - 1) ** 0.5)
        if pool_size not in (None, side):
            raise UsageError(f"This ResNet's attention pool needs regions of {side} x {side} cells, not {pool_size}.")
        super().__init__(
            visual,
            channels=visual.layer4[0].conv1.in_channels,
            stride=16,
            pool_size=side,
            embed_dim=visual.output_dim,
            mean=mean,
            std=std,
        )
        # It shifts all logits of a query alike and vanishes in the softmax. `one_query_attention` leaves it out, and
        # training in several processes does not bear a trained weight without a gradient.
        visual.attnpool.k_proj.bias.requires_grad_(False)

    def trunk(self, images: Tensor) -> Tensor:
        """Return the output of `layer3`: normalised images (B, 3, H, W) -> (B, channels, ~H/16, ~W/16)."""
        v = self.visual
        x = images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images
        for conv, norm in ((v.conv1, v.bn1), (v.conv2, v.bn2), (v.conv3, v.bn3)):
            x = conv_norm(x, conv, norm).relu_()
        x = v.avgpool(x)
        for block in (*v.layer1, *v.layer2, *v.layer3):
            x = bottleneck(block, x)
        return x

    def pool(self, regions: Tensor) -> Tensor:
        """Return open_clip's own `layer4` and attention pool of regions (R, channels, P, P): (R, D)."""
        return self.visual.attnpool(self.visual.layer4(regions))

    def stages(self) -> list[list[nn.Parameter]]:
        """List the stem, layer1 to layer4, and the attention pool."""
        v = self.visual
        stem = [p for module in (v.conv1, v.bn1, v.conv2, v.bn2, v.conv3, v.bn3) for p in module.parameters()]
        return [stem, *(list(m.parameters()) for m in (v.layer1, v.layer2, v.layer3, v.layer4, v.attnpool))]

    def plan(self, features: Tensor, regions: int, separable: bool) -> RegionPlan:
        """Run the 1x1 convolutions at the entrance of `layer4` before RoIAlign where that is cheaper.

        Both the first convolution of the block and the one on its shortcut are linear and act on single cells, and
        RoIAlign is a weighted sum of cells: the order does not matter. On the map they see each cell once, after
        RoIAlign they see each cell of each of (overlapping) regions. Batch norm's shift must wait until after RoIAlign,
        which counts points outside the map as zero.
        """
        entrance = self.visual.layer4[0]
        inner, outer = entrance.conv1.out_channels, entrance.conv3.out_channels
        cells = features.shape[0] * features.shape[2] * features.shape[3]
        on_map = cells * (inner + outer)
        on_regions = regions * self.pool_size**2 * (inner + outer // entrance.stride**2)
        if not separable or on_map > on_regions:
            return RegionPlan((Grid(features, self.pool_size),), self._finish)

        _average, short_conv, short_norm = entrance.downsample
        weight, shift = fold(entrance.conv1, entrance.bn1)
        short_weight, short_shift = fold(short_conv, short_norm)
        grids = (
            Grid(functional.conv2d(features, weight.to(features.dtype)), self.pool_size),
            Grid(functional.conv2d(features, short_weight.to(features.dtype)), self.pool_size, entrance.stride),
        )
        return RegionPlan(grids, functools.partial(self._finish_entered, shift, short_shift))

    def _finish(self, regions: Tensor) -> Tensor:
        """Do what `pool` does, with folded batch norms and one-query attention: (R, channels, P, P) -> (R, D)."""
        return self.embed_maps(self.region_maps(regions))

    def region_maps(self, regions: Tensor) -> Tensor:
        """Return the output of `layer4`: (R, channels, P, P) -> (R, 2 channels, P/2, P/2)."""
        for block in self.visual.layer4:
            regions = bottleneck(block, regions)
        return regions

    def embed_maps(self, maps: Tensor) -> Tensor:
        """Return the attention pool of maps (R, 2 channels, P/2, P/2): (R, D)."""
        return one_query_attention(self.visual.attnpool, maps)

    def _finish_entered(self, shift: Tensor, short_shift: Tensor, inner: Tensor, shortcut: Tensor) -> Tensor:
        """Go on inside the first block of `layer4`: (R, c, P, P) and (R, 4 c, P/2, P/2) -> (R, D)."""
        entrance, *others = self.visual.layer4
        inner = inner.add_(shift.to(inner.dtype)[:, None, None]).relu_()
        shortcut = shortcut.add_(short_shift.to(shortcut.dtype)[:, None, None])
        x = leave(entrance, inner, shortcut)
        for block in others:
            x = bottleneck(block, x)
        return one_query_attention(self.visual.attnpool, x)


def bottleneck(block: Bottleneck, x: Tensor) -> Tensor:
    """Return `block(x)` with folded batch norms: (B, c, h, w) -> (B, c', h / stride, w / stride)."""
    shortcut = x
    if block.downsample is not None:
        average, conv, norm = block.downsample
        shortcut = conv_norm(average(x), conv, norm)
    return leave(block, conv_norm(x, block.conv1, block.bn1).relu_(), shortcut)


def leave(block: Bottleneck, inner: Tensor, shortcut: Tensor) -> Tensor:
    """Return the output of `block`, given the output of its first convolution and its shortcut."""
    inner = conv_norm(inner, block.conv2, block.bn2).relu_()
    return conv_norm(block.avgpool(inner), block.conv3, block.bn3).add_(shortcut).relu_()
