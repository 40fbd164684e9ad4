"""timm towers: trunk = the stages up to stride 16, pool = the remaining stages, the head and CLIP's projection.

A tower trained with CLIP's loss is cut where the paper cuts its ResNets: before the last stage, whose input has
stride 16. `feature_info` tells where that is.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from open_clip.timm_model import TimmModel
from timm.models import ConvNeXt, EfficientNet
from torch import Tensor, nn

from regionclip_cli.errors import UsageError
from regionclip_cli.registry import MODELS
from regionclip_cli.vision.backbones.base import BATCH_NORMS, Backbone, Grid, RegionPlan
from regionclip_cli.vision.backbones.folding import folded_copy

STRIDE = 16


@MODELS.register_module()
class TimmTower(Backbone):
    """An open_clip `TimmModel` of timm's EfficientNet or ConvNeXt classes as a detection backbone.

    timm's EfficientNet class also covers MobileNet-V2, MixNet, MnasNet and others; its ConvNeXt class covers V2.

    Args:
        visual: The tower.
        mean: RGB mean, 0..1.
        std: RGB standard deviation, 0..1.
        pool_size: Side P of the RoIAlign grid; None means an image's own size at stride 16 (14 for 224 pixels).

    Raises:
        UsageError: `visual` is another network, or has no stage that ends at stride 16.
    """

    def __init__(
        self, visual: nn.Module, mean: Sequence[float], std: Sequence[float], pool_size: int | None = None
    ) -> None:
        if not isinstance(visual, TimmModel):
            raise UsageError(f"A timm tower is needed here, not a {type(visual).__name__}.")
        entrance, blocks, ending = tower_parts(visual.trunk)
        cut = _cut(visual.trunk, len(blocks))
        super().__init__(
            visual,
            channels=cut.channels,
            stride=STRIDE,
            pool_size=pool_size or max(1, visual.image_size[0] // STRIDE),
            embed_dim=embed_dim(visual),
            mean=mean,
            std=std,
        )
        # Plain tuples, so that no parameter is registered twice under a second name.
        self.entrance = tuple(entrance)
        self.early = tuple(blocks[: cut.blocks])
        self.late = (*blocks[cut.blocks :], *ending)
        self._has_norms = any(isinstance(module, BATCH_NORMS) for module in visual.modules())
        self._folded: tuple[nn.Sequential, nn.Sequential] | None = None
        visual.register_load_state_dict_post_hook(self._forget)

    def trunk(self, images: Tensor) -> Tensor:
        """Return the features at stride 16: normalised images (B, 3, H, W) -> (B, channels, H/16, W/16) rounded up."""
        x = images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images
        for module in self._for_inference()[0] if self._infers else (*self.entrance, *self.early):
            x = module(x)
        return x

    def pool(self, regions: Tensor) -> Tensor:
        """Return what the rest of the tower makes of regions: (R, channels, P, P) -> (R, D)."""
        return self._finish(self.late, regions)

    def region_maps(self, regions: Tensor) -> Tensor:
        """Return the output of the last blocks: (R, channels, P, P) -> (R, c', P/2, P/2)."""
        for module in self.late:
            regions = module(regions)
        return regions

    def embed_maps(self, maps: Tensor) -> Tensor:
        """Return timm's head and open_clip's projection of maps (R, c', P/2, P/2): (R, D)."""
        return self.visual.head(self.visual.trunk.forward_head(maps))

    def plan(self, features: Tensor, regions: int, separable: bool) -> RegionPlan:
        """Leave out batch norms where no gradient is wanted."""
        late = self._for_inference()[1] if self._infers else self.late
        return RegionPlan((Grid(features, self.pool_size),), functools.partial(self._finish, late))

    def train(self, mode: bool = True) -> TimmTower:
        """Set the training mode, and forget what was prepared for inference: the weights are about to change."""
        self._folded = None
        super().train(mode)
        return self

    def stages(self) -> list[list[nn.Parameter]]:
        """List the stem, each stage of blocks, and whatever follows them: the head and the projection."""
        _entrance, blocks, _ending = tower_parts(self.visual.trunk)
        groups = [self.entrance, *([block] for block in blocks)]
        listed = [[p for module in group for p in module.parameters()] for group in groups]
        seen = {id(parameter) for stage in listed for parameter in stage}
        return [*listed, [parameter for parameter in self.visual.parameters() if id(parameter) not in seen]]

    @property
    def _infers(self) -> bool:
        return self._has_norms and not (self.training or torch.is_grad_enabled())

    def _finish(self, late: Iterable[nn.Module], regions: Tensor) -> Tensor:
        """Send regions through the last blocks, timm's head and open_clip's projection."""
        for module in late:
            regions = module(regions)
        return self.embed_maps(regions)

    def _for_inference(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return copies, without batch norms, of what runs before and after the cut; made when first needed."""
        if self._folded is not None:
            made = next(self._folded[0].parameters())
            if (made.dtype, made.device) == (self.dtype, self.device):
                return self._folded
        before, after = nn.Sequential(*self.entrance, *self.early), nn.Sequential(*self.late)
        self._folded = folded_copy(before), folded_copy(after)
        return self._folded

    def _forget(self, *_: object) -> None:
        """Drop the copies when other weights are loaded."""
        self._folded = None


class _Cut(NamedTuple):
    """Where a tower is cut: after how many blocks, and with how many channels."""

    blocks: int
    channels: int


def tower_parts(trunk: Any) -> tuple[list[nn.Module], list[nn.Module], list[nn.Module]]:
    """Return what runs before the blocks, the blocks, and what runs between them and `forward_head`."""
    if isinstance(trunk, EfficientNet):
        return [trunk.conv_stem, trunk.bn1], list(trunk.blocks), [trunk.conv_head, trunk.bn2]
    if isinstance(trunk, ConvNeXt):
        return [trunk.stem], list(trunk.stages), [trunk.norm_pre]
    raise UsageError(
        f"timm's {type(trunk).__name__} cannot be cut into a trunk and a pool.",
        "Use a model of timm's EfficientNet or ConvNeXt classes, or write a backbone plugin.",
    )


def _cut(trunk: Any, blocks: int) -> _Cut:
    """Find the last block at stride 16 in timm's `feature_info`, whose entries name modules such as `blocks.4`."""
    for entry in trunk.feature_info:
        last = int(entry["module"].rsplit(".", 1)[-1])
        if entry["reduction"] == STRIDE and last + 1 < blocks:
            return _Cut(last + 1, entry["num_chs"])
    raise UsageError(f"This {type(trunk).__name__} has no stage that ends at stride {STRIDE} before another one.")


def embed_dim(visual: TimmModel) -> int:
    """Return the dimension that the projection ends in, or the trunk's own when there is none."""
    linear = [module for module in visual.head.modules() if isinstance(module, nn.Linear)]
    return linear[-1].out_features if linear else visual.trunk.num_classes or visual.trunk.num_features
