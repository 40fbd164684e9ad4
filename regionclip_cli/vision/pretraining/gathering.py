"""What the processes of one training tell each other, so that a loss can look at all of their images.

Gradients are averaged over processes afterwards. So a loss that every process computes alike from gathered embeddings
counts once, and one that a process computes of its own regions counts once when it is scaled by `fair_share`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


class _Gather(torch.autograd.Function):
    """all_gather that can be differentiated: what others make of my rows comes back to me."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        """Return (W B, D) of (B, D)."""
        parts = [torch.empty_like(rows) for _ in range(processes())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the sum over processes of the gradients of this one's rows."""
        total = summed(gradients[0])
        return total.chunk(processes())[dist.get_rank()]


def gathered(rows: Tensor) -> Tensor:
    """Return the rows (B, D) of all W processes as (W B, D); gradients flow back to where a row came from."""
    if processes() == 1:
        return rows
    everyones: Tensor = _Gather.apply(rows.contiguous())
    return everyones


def summed(values: Tensor) -> Tensor:
    """Return the sum of a tensor of numbers over all processes; no gradient."""
    if processes() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def fair_share(own: int, device: torch.device) -> Tensor:
    """Return the factor () that makes the mean over `own` regions this process's part of the mean over all regions."""
    total = summed(torch.tensor(float(own), device=device))
    return own * processes() / total.clamp(min=1)
