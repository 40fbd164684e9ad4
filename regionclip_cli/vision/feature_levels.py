"""Feature maps of several strides as one tensor, without losing a number.

A detector hands one feature map (B, channels, h, w) from its trunk to whatever stands on it. A trunk with several
levels packs them into that map: a finer level by space-to-depth (the r x r cells below one cell become channels), a
coarser one by repeating its cells. `unpack_levels` undoes it exactly, so that a proposal network gets its pyramid back,
while RoIAlign sees all levels of a region at once (a hypercolumn, Hariharan et al., CVPR 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from regionclip_cli.errors import UsageError


class Level(NamedTuple):
    """One feature map of a trunk.

    Attributes:
        stride: Input pixels per cell.
        channels: Channels of the map.
    """

    stride: int
    channels: int


def packed_channels(levels: Sequence[Level], stride: int) -> int:
    """Return the channels of the packed map at `stride`."""
    return sum(level.channels * _ratio(level.stride, stride) ** 2 for level in levels)


def pack_levels(maps: Sequence[Tensor], levels: Sequence[Level], stride: int) -> Tensor:
    """Return the packed map (B, channels, h, w) at `stride`.

    Args:
        maps: For each level (B, c, h', w'); one of them has the stride `stride` and gives h and w.
        levels: What the maps are, from fine to coarse.
        stride: Of the packed map.
    """
    height, width = next(each.shape[-2:] for each, level in zip(maps, levels, strict=True) if level.stride == stride)
    packed = []
    for each, level in zip(maps, levels, strict=True):
        finer = _ratio(level.stride, stride)
        if finer > 1:
            missing = (0, finer * width - each.shape[-1], 0, finer * height - each.shape[-2])
            each = functional.pixel_unshuffle(functional.pad(each, missing), finer)
        elif level.stride > stride:
            coarser = level.stride // stride
            each = each.repeat_interleave(coarser, 2).repeat_interleave(coarser, 3)[:, :, :height, :width]
        packed.append(each)
    return torch.cat(packed, dim=1)


def unpack_levels(packed: Tensor, levels: Sequence[Level], stride: int) -> list[Tensor]:
    """Return the map (B, c, h', w') of each level; the inverse of `pack_levels` up to zeros at the ends.

    Raises:
        ValueError: The packed map has another number of channels than the levels come to.
    """
    counts = [level.channels * _ratio(level.stride, stride) ** 2 for level in levels]
    if packed.shape[1] != sum(counts):
        raise ValueError(f"A packed map of {sum(counts)} channels is needed, not one of {packed.shape[1]}.")
    maps = []
    for part, level in zip(packed.split(counts, dim=1), levels, strict=True):
        if level.stride < stride:
            part = functional.pixel_shuffle(part, stride // level.stride)
        elif level.stride > stride:
            step = level.stride // stride
            part = part[:, :, ::step, ::step]
        maps.append(part)
    return maps


def as_levels(given: Sequence[Sequence[int]], stride: int) -> tuple[Level, ...]:
    """Return levels from pairs (stride, channels), checked.

    Raises:
        UsageError: None has the stride of the packed map, or strides are not each twice the one before.
    """
    levels = tuple(Level(*pair) for pair in given)
    strides = [level.stride for level in levels]
    if stride not in strides or any(b != 2 * a for a, b in pairwise(strides)):
        raise UsageError(
            f"Feature levels of the strides {strides} do not fit a map of stride {stride}.",
            "Each stride must be twice the one before, and the map's own must be among them.",
        )
    return levels


def _ratio(fine: int, stride: int) -> int:
    """Return how many cells of a finer level lie along one side of a cell at `stride`; 1 for coarser levels."""
    return max(1, stride // fine)
