"""CLIP's vision transformers as dense encoders: one token a patch, a region is the mean of its tokens.

CLIP trains only the class token to match texts. Its last attention gathers, for that token, a weighted mean of the
values of all patches. So the value of a patch, sent through the rest of the last block alone, already lies in the space
of texts: this is the finding of "Extract Free Dense Labels from CLIP" (MaskCLIP, Zhou, Loy and Dai, ECCV 2022), and it
needs no training. In other words: in the last block, every token attends to itself only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, cat, nn
from torch.nn import functional

from regionclip_cli.errors import UsageError
from regionclip_cli.registry import MODELS
from regionclip_cli.vision.backbones.base import Backbone, Grid, RegionPlan


@MODELS.register_module()
class DenseViT(Backbone):
    """An open_clip `VisionTransformer` as a detection backbone.

    Args:
        visual: The tower.
        mean: RGB mean, 0..1.
        std: RGB standard deviation, 0..1.
        pool_size: Side P of the grid on which tokens are sampled inside a region; None means 7.

    Raises:
        UsageError: `visual` is another network, or a variant whose tokens cannot be projected one by one.
    """

    def __init__(
        self, visual: nn.Module, mean: Sequence[float], std: Sequence[float], pool_size: int | None = None
    ) -> None:
        if not isinstance(visual, VisionTransformer):
            raise UsageError(f"A CLIP vision transformer is needed here, not a {type(visual).__name__}.")
        plain_block = isinstance(visual.transformer.resblocks[-1], ResidualAttentionBlock)
        if visual.attn_pool is not None or visual.final_ln_after_pool or not plain_block:
            raise UsageError("Only CLIP's original form of vision transformer gives dense tokens, not this variant.")
        super().__init__(
            visual,
            channels=visual.conv1.out_channels,
            stride=visual.patch_size[0],
            pool_size=pool_size or 7,
            embed_dim=visual.output_dim,
            mean=mean,
            std=std,
        )

    def trunk(self, images: Tensor) -> Tensor:
        """Return the patches' last tokens as a map: normalised images (B, 3, H, W) -> (B, channels, h, w).

        h and w are H and W over the patch size, rounded up: the last patches are filled up with zeros (mean colour).
        """
        v = self.visual
        height, width = images.shape[-2:]
        x = v.conv1(functional.pad(images, (0, -width % self.stride, 0, -height % self.stride)))  # (B, c, h, w)
        h, w = x.shape[-2:]
        class_token = v.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = cat([class_token, x.flatten(2).transpose(1, 2)], dim=1) + self._positions(h, w).to(x.dtype)  # (B, 1+h*w, c)
        x = v.ln_pre(x)
        *blocks, last = v.transformer.resblocks
        for block in blocks:
            x = block(x)
        patches = v.ln_post(attend_to_self(last, x[:, 1:]))  # (B, h*w, c)
        return patches.transpose(1, 2).unflatten(2, (h, w))

    def pool(self, regions: Tensor) -> Tensor:
        """Return the projection of the mean token of each region: (R, channels, P, P) -> (R, D).

        The projection is linear: projecting the mean is the mean of the projected tokens.
        """
        return regions.mean(dim=(2, 3)) @ self.visual.proj.to(regions.dtype)

    def stages(self) -> list[list[nn.Parameter]]:
        """List the patch embedding, each block, and the projection with the norm before it."""
        v = self.visual
        embedding = [*v.conv1.parameters(), v.class_embedding, v.positional_embedding, *v.ln_pre.parameters()]
        blocks = [list(block.parameters()) for block in v.transformer.resblocks]
        return [embedding, *blocks, [*v.ln_post.parameters(), v.proj]]

    def plan(self, features: Tensor, regions: int, separable: bool) -> RegionPlan:
        """Let RoIAlign average all its bins itself: a mean of bins is one wide bin."""
        average = self.pool_size if separable else 1
        return RegionPlan((Grid(features, self.pool_size, average),), self.pool)

    def _positions(self, h: int, w: int) -> Tensor:
        """Return the position embedding (1 + h*w, channels), resized from the training grid where that differs."""
        positions, grid = self.visual.positional_embedding, self.visual.grid_size
        if tuple(grid) == (h, w):
            return positions
        learned = positions[1:].float().T.unflatten(1, grid)[None]  # (1, c, gh, gw)
        if torch.onnx.is_in_onnx_export():
            resized = _cubic_weights(grid[0], h) @ learned @ _cubic_weights(grid[1], w).T
            return cat([positions[:1], resized[0].flatten(1).T.to(positions.dtype)])
        resized = functional.interpolate(learned, size=(h, w), mode="bicubic", antialias=True, align_corners=False)
        return cat([positions[:1], resized[0].flatten(1).T.to(positions.dtype)])


def _cubic_weights(size: int, target: int) -> Tensor:
    """Return the weights (target, size) of antialiased bicubic resizing along one axis, as `interpolate` has them.

    ONNX has no operator for it that torch's exporter knows.
    """
    cells = torch.arange(target)  # counted first, so that a traced size stays dynamic
    step = torch.as_tensor(size / cells.shape[0])
    width = step.clamp(min=1)
    x = ((torch.arange(size) + 0.5)[None] - (cells[:, None] + 0.5) * step).abs() / width
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(dim=1, keepdim=True)


def attend_to_self(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    """Return what `block` makes of tokens (B, n, c) when each attends to itself only, so that only values matter."""
    attention = block.attn
    channels = x.shape[-1]
    value_weight = attention.in_proj_weight[2 * channels :]
    value_bias = attention.in_proj_bias[2 * channels :] if attention.in_proj_bias is not None else None
    x = x + block.ls_1(attention.out_proj(functional.linear(block.ln_1(x), value_weight, value_bias)))
    return x + block.ls_2(block.mlp(block.ln_2(x)))
