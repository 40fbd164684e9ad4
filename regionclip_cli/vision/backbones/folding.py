"""A frozen batch norm is not a layer: it is a scale and a shift, and the scale can move into the convolution before it.

    BN(W x) = s * (W x - m) + b  with  s = gamma / sqrt(variance + eps)
            = (s W) x + (b - s m)

Doing so on the fly costs one product per weight, saves a pass over every activation, and leaves `state_dict` alone.
Gradients flow to W through s W, so the folded form serves training too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the weight (c_out, c_in, kH, kW) and shift (c_out,) of `norm(conv(x))` in float32, for a bias-free `conv`.

    Raises:
        ValueError: `norm` has no affine parameters or no statistics, so that there is nothing to fold.
    """
    if norm.running_mean is None or norm.running_var is None or norm.weight is None or norm.bias is None:
        raise ValueError("Only a batch norm with statistics, scale and shift can be folded.")
    scale = norm.weight.float() / torch.sqrt(norm.running_var.float() + norm.eps)
    shift = norm.bias.float() - scale * norm.running_mean.float()
    return conv.weight.float() * scale[:, None, None, None], shift


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Return `norm(conv(x))` for a frozen `norm`: x (B, c_in, h, w) -> (B, c_out, h', w'), in the type of `x`."""
    weight, shift = fold(conv, norm)
    return functional.conv2d(x, weight.to(x.dtype), shift.to(x.dtype), stride=conv.stride, padding=conv.padding)
