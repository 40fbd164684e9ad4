"""Boxes in, embeddings out: RoIAlign on the feature map, then the backbone's pool (RegionCLIP section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torchvision.ops import roi_align

from regionclip_cli.vision.backbones.base import Backbone, Grid, RegionPlan
from regionclip_cli.vision.batches import maps_by_image
from regionclip_cli.vision.roi_align import separable_roi_align

Path = Literal["auto", "plain", "fast"]


class RegionEncoder(nn.Module):
    """Embeds boxes of images, in the space of the backbone's texts.

    There are two paths to the same numbers. The plain one is the definition: torchvision's RoIAlign, then
    `backbone.pool`. The fast one takes the backbone's `plan`, which may reorder linear steps, and on a CPU does
    RoIAlign as a weighted sum. Both go through regions in chunks, so that memory does not grow with their number.

    Args:
        backbone: Trunk and pool. It stays the caller's: its parameters are not registered here a second time.
        chunk: Regions to hold in memory at once.
        path: "plain", "fast", or "auto": fast, with the weighted sum where no gradient is wanted.
    """

    def __init__(self, backbone: Backbone, chunk: int = 64, path: Path = "auto") -> None:
        super().__init__()
        self._backbone = (backbone,)
        self.chunk = chunk
        self.path = path
        self.checkpointing = False

    @property
    def backbone(self) -> Backbone:
        """The trunk and pool in use."""
        return self._backbone[0]

    def forward(self, features: Tensor | Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Embed every box of every image.

        Args:
            features: What `backbone.trunk` returned, (B, channels, h, w), or a list of (1, channels, h, w).
            boxes: For each image its boxes (R_i, 4), xyxy in network-input pixels.

        Returns:
            (sum of R_i, D) float32, not normalised, in the order of `boxes`.
        """
        embeddings = [
            self._embed(its_features, its_boxes.detach())
            for its_features, its_boxes in zip(maps_by_image(features), boxes, strict=True)
            if len(its_boxes)
        ]
        if not embeddings:
            return torch.zeros(0, self.backbone.embed_dim, device=self.backbone.device)
        return torch.cat(embeddings)

    def maps(self, features: Tensor | Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Cut every box and return the maps that its embedding is made of, `Backbone.region_maps`.

        `backbone.embed_maps` of them are the embeddings that `forward` returns, up to rounding: whoever needs both,
        such as a detector with a mask head, computes the late stages once.

        Args:
            features: What `backbone.trunk` returned, (B, channels, h, w), or a list of (1, channels, h, w).
            boxes: For each image its boxes (R_i, 4), xyxy in network-input pixels; one at least.

        Returns:
            (sum of R_i, c', p, p) in the type of `features`, in the order of `boxes`.
        """
        side = self.backbone.pool_size
        parts = [
            self._run(self.backbone.region_maps, self._cut(Grid(cells, side), cells[0].float(), some).to(cells.dtype))
            for cells, image_boxes in zip(maps_by_image(features), boxes, strict=True)
            for some in image_boxes.detach().split(self.chunk)
            if len(some)
        ]
        if not parts:
            raise ValueError("There must be a box to cut out.")
        return torch.cat(parts)

    def _embed(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Return the embeddings (R, D) float32 of boxes (R, 4) of one image with features (1, channels, h, w)."""
        separable = self._separable(features)
        plan = self._plan(features, len(boxes), separable)
        cut = self._cut_separably if separable else self._cut
        maps = [_channels_last(grid.features)[0] if separable else grid.features[0].float() for grid in plan.grids]
        parts = []
        for some in boxes.split(self.chunk):
            cuts = [cut(grid, cells, some).to(features.dtype) for grid, cells in zip(plan.grids, maps, strict=True)]
            parts.append(self._run(plan.pool, *cuts).float())
        return torch.cat(parts)

    def _run(self, late: Callable[..., Tensor], *cuts: Tensor) -> Tensor:
        """Run the late stages; with `checkpointing` they run again for the gradient, and nothing inside is kept."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(late, *cuts, use_reentrant=False)
        return late(*cuts)

    def _separable(self, features: Tensor) -> bool:
        """Whether RoIAlign is done as a weighted sum: on a CPU, where nothing is to be differentiated."""
        if self.path == "auto":
            return features.device.type == "cpu" and not torch.is_grad_enabled()
        return self.path == "fast"

    def _plan(self, features: Tensor, regions: int, separable: bool) -> RegionPlan:
        """Return the backbone's plan, or the plain one."""
        if self.path == "plain":
            return RegionPlan((Grid(features, self.backbone.pool_size),), self.backbone.pool)
        return self.backbone.plan(features, regions, separable)

    def _cut_separably(self, grid: Grid, cells: Tensor, boxes: Tensor) -> Tensor:
        """Cut boxes (R, 4) out of one image's cells (h, w, c): (R, c, P / average, P / average)."""
        # Coordinates and weights keep float32: half precision knows a box only to a few pixels.
        with torch.autocast(cells.device.type, enabled=False):
            return separable_roi_align(cells, boxes, 1 / self.backbone.stride, grid.side, grid.average)

    def _cut(self, grid: Grid, features: Tensor, boxes: Tensor) -> Tensor:
        """Do the same with torchvision's operator, out of one image's features (c, h, w)."""
        scale = 1 / self.backbone.stride
        with torch.autocast(features.device.type, enabled=False):
            bins = roi_align(features[None], [boxes.float()], grid.side, scale, sampling_ratio=0, aligned=True)
        return functional.avg_pool2d(bins, grid.average) if grid.average > 1 else bins


def _channels_last(features: Tensor) -> Tensor:
    """Return (B, c, h, w) as contiguous float32 (B, h, w, c)."""
    return features.float().permute(0, 2, 3, 1).contiguous()
