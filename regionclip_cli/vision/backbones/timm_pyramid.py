"""timm towers whose trunk is the whole tower: regions are read from several strides at once.

`TimmTower` cuts a tower before its last stage and runs that stage on every region, which is the paper's design and
costs time per region. Here all stages run once over the image. The maps of stride 8, 16 and 32 travel packed as one
(`feature_levels`), RoIAlign cuts all of them, and a small head makes an embedding of the cuttings:

    embedding = CLIP's own path (mean of the last stage, timm's head, projection)
              + a fine path (1x1 convolution, one weight per place in the box, linear) + a linear path

The last stage's wide view and the fine maps together name small objects better than cropped late stages do, at a
fraction of their cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from open_clip.timm_model import TimmModel
from torch import Tensor, nn
from torch.nn import functional

from regionclip_cli.errors import UsageError
from regionclip_cli.registry import MODELS
from regionclip_cli.vision.backbones.base import Backbone, Grid, RegionPlan
from regionclip_cli.vision.backbones.folding import folded_copy
from regionclip_cli.vision.backbones.timm_tower import embed_dim, tower_parts
from regionclip_cli.vision.feature_levels import Level, pack_levels, packed_channels

STRIDE = 16
STRIDES = (8, 16, 32)


class RegionHead(nn.Module):
    """Adds to the embedding of a region what the fine maps show.

    Args:
        channels: Channels of the packed map.
        embed_dim: Dimension D of the embeddings.
        side: P, the side of the RoIAlign grid.
        hidden: Channels between the two linear maps of the fine path.
    """

    def __init__(self, channels: int, embed_dim: int, side: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.place = nn.Conv2d(hidden, hidden, side, groups=hidden)
        self.fine = nn.Linear(hidden, embed_dim)
        self.skip = nn.Linear(channels, embed_dim)
        nn.init.constant_(self.place.weight, 1 / side**2)
        for layer in (self.fine, self.skip):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, reduced: Tensor, mean: Tensor) -> Tensor:
        """Return (R, D) from the output of `reduce` (R, hidden, P, P) and the mean of the cuttings (R, channels)."""
        x = functional.relu6(reduced)
        x = self.place(x).flatten(1)  # (R, hidden): `place` is as large as the grid
        return self.fine(functional.relu6(x)) + self.skip(mean)


@MODELS.register_module()
class TimmPyramid(Backbone):
    """An open_clip `TimmModel` of timm's EfficientNet or ConvNeXt classes, read at the strides 8, 16 and 32.

    Args:
        visual: The tower. It gains a module `region_head`, whose weights are kept under that name.
        mean: RGB mean, 0..1.
        std: RGB standard deviation, 0..1.
        pool_size: Side P of the RoIAlign grid; 7 if left out.
        hidden: Channels of the region head's fine path.

    Raises:
        UsageError: `visual` is another network, or has no stage that ends at one of the three strides.
    """

    def __init__(
        self,
        visual: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        pool_size: int | None = None,
        hidden: int = 320,
    ) -> None:
        if not isinstance(visual, TimmModel):
            raise UsageError(f"A timm tower is needed here, not a {type(visual).__name__}.")
        entrance, blocks, ending = tower_parts(visual.trunk)
        ends = _ends(visual.trunk)
        levels = tuple(Level(stride, ends[stride][1]) for stride in STRIDES)
        side = pool_size or 7
        super().__init__(
            visual,
            channels=packed_channels(levels, STRIDE),
            stride=STRIDE,
            pool_size=side,
            embed_dim=embed_dim(visual),
            mean=mean,
            std=std,
        )
        self.levels = levels
        visual.region_head = RegionHead(self.channels, self.embed_dim, side, hidden)
        # Plain tuples, so that no parameter is registered twice under a second name.
        self._entrance, self._ending = tuple(entrance), tuple(ending)
        cuts = [0, *(ends[stride][0] + 1 for stride in STRIDES)]
        self._stages = tuple(tuple(blocks[a:b]) for a, b in pairwise(cuts))
        self._folded: list[nn.Sequential] | None = None
        visual.register_load_state_dict_post_hook(self._forget)

    def trunk(self, images: Tensor) -> Tensor:
        """Return the packed maps: normalised images (B, 3, H, W) -> (B, channels, H/16, W/16) rounded up."""
        x = images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images
        maps = []
        for stage in self._for_inference() if self._infers else self._plain():
            x = stage(x)
            maps.append(x)
        return pack_levels(maps, self.levels, STRIDE)

    def pool(self, regions: Tensor) -> Tensor:
        """Return the embeddings of cuttings: (R, channels, P, P) -> (R, D)."""
        return self._embed(self.visual.region_head.reduce(regions), regions.mean(dim=(2, 3)))

    def plan(self, features: Tensor, regions: int, separable: bool) -> RegionPlan:
        """Run the 1x1 convolution on the whole map where that is less work than on every region's cells.

        RoIAlign is linear, so the two change places; the bias is added afterwards: cells outside the map are 0.
        """
        if not separable or regions * self.pool_size**2 <= features.shape[-2] * features.shape[-1]:
            return super().plan(features, regions, separable)
        reduced = functional.conv2d(features, self.visual.region_head.reduce.weight)
        grids = (Grid(reduced, self.pool_size), Grid(features, self.pool_size, average=self.pool_size))
        return RegionPlan(grids, self._pool_reduced)

    def train(self, mode: bool = True) -> TimmPyramid:
        """Set the training mode, and forget what was prepared for inference: the weights are about to change."""
        self._folded = None
        super().train(mode)
        return self

    def stages(self) -> list[list[nn.Parameter]]:
        """List the stem, each stage of blocks, and whatever follows them: timm's head, projection and region head."""
        _entrance, blocks, _ending = tower_parts(self.visual.trunk)
        groups = [self._entrance, *([block] for block in blocks)]
        listed = [[p for module in group for p in module.parameters()] for group in groups]
        seen = {id(parameter) for stage in listed for parameter in stage}
        return [*listed, [parameter for parameter in self.visual.parameters() if id(parameter) not in seen]]

    @property
    def _infers(self) -> bool:
        return not (self.training or torch.is_grad_enabled())

    def _pool_reduced(self, reduced: Tensor, mean: Tensor) -> Tensor:
        bias = self.visual.region_head.reduce.bias
        return self._embed(reduced + bias[:, None, None], mean.flatten(1))

    def _embed(self, reduced: Tensor, mean: Tensor) -> Tensor:
        """Return (R, D) from reduced cuttings (R, hidden, P, P) and the mean cuttings (R, channels)."""
        last = mean[:, -self.levels[-1].channels :, None, None]
        for module in self._ending:
            last = module(last)
        deep = self.visual.head(self.visual.trunk.forward_head(last))
        return deep + self.visual.region_head(reduced, mean)

    def _plain(self) -> list[nn.Sequential]:
        first, *others = self._stages
        return [nn.Sequential(*self._entrance, *first), *(nn.Sequential(*stage) for stage in others)]

    def _for_inference(self) -> list[nn.Sequential]:
        """Return copies of the stages without batch norms; made when first needed."""
        if self._folded is not None:
            made = next(self._folded[0].parameters())
            if (made.dtype, made.device) == (self.dtype, self.device):
                return self._folded
        self._folded = [folded_copy(stage) for stage in self._plain()]
        return self._folded

    def _forget(self, *_: object) -> None:
        """Drop the copies when other weights are loaded."""
        self._folded = None


def _ends(trunk: nn.Module) -> dict[int, tuple[int, int]]:
    """Return, for each stride, the last block that ends at it and its channels, from timm's `feature_info`."""
    found = {
        entry["reduction"]: (int(entry["module"].rsplit(".", 1)[-1]), entry["num_chs"])
        for entry in trunk.feature_info  # type: ignore[union-attr]
    }
    missing = [stride for stride in STRIDES if stride not in found]
    if missing:
        raise UsageError(f"This {type(trunk).__name__} has no stage that ends at stride {missing[0]}.")
    return found
