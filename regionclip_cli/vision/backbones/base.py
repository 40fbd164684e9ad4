"""What every backbone offers: a feature map of the whole image, and embeddings of regions cut out of that map.

RegionCLIP (section 3.1) cuts one image encoder in two. The `trunk` sees the whole image once; `pool` sees what RoIAlign
cuts out of the feature map for each box, and ends where the encoder's image embedding would end, so that a region
lands in the same space as a text.

Letters: B images, R regions, D embedding, P the side of the RoIAlign grid, (h, w) cells of a feature map.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.feature_levels import Level

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class Grid(NamedTuple):
    """A map, and what RoIAlign cuts out of it for a box.

    Attributes:
        features: (B, c, h, w).
        side: P, RoIAlign's bins along each side of a box.
        average: Neighbouring bins to average along each side afterwards, so that (c, P/average, P/average) remains.
    """

    features: Tensor
    side: int
    average: int = 1


class RegionPlan(NamedTuple):
    """How to turn boxes into embeddings: which maps to cut, and what to do with the cuttings.

    Attributes:
        grids: What is cut out for every box.
        pool: Takes one tensor (R, c, P/average, P/average) for each of `grids`; returns (R, D).
    """

    grids: tuple[Grid, ...]
    pool: Callable[..., Tensor]


class Backbone(nn.Module, ABC):
    """An open_clip image tower, cut into a trunk and a pool.

    Batch norms are frozen for good, statistics and affine parameters alike, as in the official code: detection batches
    are too small to estimate them anew.

    Args:
        visual: The tower; its parameters keep open_clip's names below `visual.`.
        channels: Channels of the feature map.
        stride: Input pixels per cell of the feature map.
        pool_size: Side P of the RoIAlign grid that `pool` takes.
        embed_dim: Dimension D of the embeddings.
        mean: RGB mean of the training pixels, in 0..1.
        std: RGB standard deviation of the training pixels, in 0..1.
    """

    levels: tuple[Level, ...]
    """The maps that the trunk's feature map is packed of (`feature_levels`); most trunks have one."""

    visual: Any  # an open_clip tower; each family knows its own attributes

    def __init__(
        self,
        visual: nn.Module,
        *,
        channels: int,
        stride: int,
        pool_size: int,
        embed_dim: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.visual = visual
        self.channels = channels
        self.stride = stride
        self.levels: tuple[Level, ...] = (Level(stride, channels),)
        self.pool_size = pool_size
        self.embed_dim = embed_dim
        self._pixel_mean = tuple(mean)
        self._pixel_std = tuple(std)
        for module in self.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()
                for parameter in module.parameters():
                    parameter.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.visual.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the weights, in which the tower computes."""
        return next(self.visual.parameters()).dtype

    @property
    def mean(self) -> Tensor:
        """RGB mean (3, 1, 1) of pixels in 0..1; always float32, which a model in half precision needs here too."""
        return torch.tensor(self._pixel_mean, device=self.device).view(3, 1, 1)

    @property
    def std(self) -> Tensor:
        """RGB standard deviation (3, 1, 1) of pixels in 0..1; always float32."""
        return torch.tensor(self._pixel_std, device=self.device).view(3, 1, 1)

    def normalise(self, images: Tensor) -> Tensor:
        """Bring RGB pixels (B, 3, H, W) in 0..255 to the tower's scale and floating type.

        Zero pixels come out as (0 - mean) / std like any others: whoever pads a batch decides what padding looks like.
        """
        return ((images.float() / 255 - self.mean) / self.std).to(self.dtype)

    @abstractmethod
    def trunk(self, images: Tensor) -> Tensor:
        """Turn normalised images (B, 3, H, W) into features (B, channels, H / stride, W / stride), rounded up."""

    @abstractmethod
    def pool(self, regions: Tensor) -> Tensor:
        """Turn RoIAlign's cuttings (R, channels, P, P) into embeddings (R, D), not normalised."""

    @abstractmethod
    def stages(self) -> list[list[nn.Parameter]]:
        """List the parameters of the tower from input to output, in the units that `freeze` counts."""

    def region_maps(self, regions: Tensor) -> Tensor:
        """Turn RoIAlign's cuttings (R, channels, P, P) into the last maps (R, c', p, p) before they lose their place.

        `embed_maps` of them is `pool`: a mask head reads the maps that the embedding is made of (RegionCLIP's detectors
        share `layer4` in this way). A backbone that has nothing between RoIAlign and the embedding shares the cuttings.
        """
        return regions

    def embed_maps(self, maps: Tensor) -> Tensor:
        """Turn what `region_maps` made (R, c', p, p) into embeddings (R, D), not normalised."""
        return self.pool(maps)

    def plan(self, features: Tensor, regions: int, separable: bool) -> RegionPlan:
        """Choose the cheapest way to embed many boxes; the result equals `pool` on plain RoIAlign up to rounding.

        Args:
            features: What `trunk` returned, (B, channels, h, w).
            regions: Number R of boxes in all images.
            separable: Whether RoIAlign is done as a weighted sum of cells, which makes averaging and wide maps cheap.
        """
        return RegionPlan((Grid(features, self.pool_size),), self.pool)

    def freeze(self, stages: int) -> None:
        """Stop training the first `stages` stages; 2 is the paper's setting for ResNets (stem and `layer1`).

        Raises:
            UsageError: There are fewer stages than that.
        """
        known = self.stages()
        if not 0 <= stages <= len(known):
            raise UsageError(f"{stages} stages cannot be frozen.", f"This backbone has {len(known)} of them.")
        for parameter in (parameter for stage in known[:stages] for parameter in stage):
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        """Set the training mode, but leave batch norms as they are: frozen."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()
        return self
