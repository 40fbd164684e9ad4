"""A frozen batch norm is not a layer: it is a scale and a shift, and the scale can move into the convolution before it.

    BN(W x) = s * (W x - m) + b  with  s = gamma / sqrt(variance + eps)
            = (s W) x + (b - s m)

This saves a pass over every activation. `conv_norm` does it on the fly, for one product per weight; gradients flow to W
through s W, so that form serves training too. `folded_copy` does it once, for networks whose code is not ours. Neither
touches the network itself, nor its `state_dict`.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Network = TypeVar("Network", bound=nn.Module)


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return weight (c_out, c_in, kH, kW) and shift (c_out,), in float32, of a convolution equal to `norm(conv(x))`.

    Raises:
        ValueError: `norm` has no affine parameters or no statistics, so that there is nothing to fold.
    """
    if norm.running_mean is None or norm.running_var is None or norm.weight is None or norm.bias is None:
        raise ValueError("Only a batch norm with statistics, scale and shift can be folded.")
    scale = norm.weight.float() / torch.sqrt(norm.running_var.float() + norm.eps)
    offset = norm.running_mean.float() if conv.bias is None else norm.running_mean.float() - conv.bias.float()
    shift = norm.bias.float() - scale * offset
    return conv.weight.float() * scale[:, None, None, None], shift


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Return `norm(conv(x))` for a frozen `norm`: x (B, c_in, h, w) -> (B, c_out, h', w'), in the type of `x`."""
    weight, shift = fold(conv, norm)
    return functional.conv2d(x, weight.to(x.dtype), shift.to(x.dtype), stride=conv.stride, padding=conv.padding)


@torch.no_grad()
def folded_copy(network: Network) -> Network:
    """Return a copy of `network` for inference, its frozen batch norms folded away.

    A batch norm is taken to follow the convolution that its parent holds just before it, as in all of timm's
    EfficientNet blocks. What timm's norms do besides (an activation) stays.
    """
    folded = copy.deepcopy(network).requires_grad_(False)
    for parent in list(folded.modules()):
        for (_, conv), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                weight, shift = fold(conv, norm)
                dtype = conv.weight.dtype
                conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
                conv.bias = nn.Parameter(shift.to(dtype), requires_grad=False)
                after = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part is not None]
                setattr(parent, name, nn.Sequential(*after))
    return folded
