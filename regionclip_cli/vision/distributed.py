"""What the processes of one training tell each other, so that a loss can look at all of their images.

Gradients are averaged over processes afterwards. So a loss that every process computes alike from gathered embeddings
counts once, and one that a process computes of its own regions counts once when it is scaled by `rank_weight`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
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


def rank_weight(own: int, device: torch.device) -> Tensor:
    """Return the factor () that makes the mean over `own` regions this process's part of the mean over all regions."""
    total = summed(torch.tensor(float(own), device=device))
    return own * processes() / total.clamp(min=1)


def rank() -> int:
    """Return this process's number; 0 speaks and writes for all."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def own_device(name: str | torch.device) -> torch.device:
    """Return the device of this process: of several on one machine, each has the GPU of its number."""
    device = torch.device(name)
    if str(device) == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


def join(device: torch.device) -> None:
    """Meet the other processes that `torchrun` started: over NCCL on GPUs, over gloo elsewhere."""
    if world_size() == 1 or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # what mmengine would set too, with a warning
        os.environ.setdefault(name, "1")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def destroy() -> None:
    """Part from the other processes, at the end of the program."""
    if dist.is_initialized():
        dist.destroy_process_group()


def wait() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def any_rank(flag: Tensor) -> bool:
    """Return whether `flag` (), bool, is true in any process."""
    if dist.is_initialized():
        count = flag.to(torch.float32)
        dist.all_reduce(count, dist.ReduceOp.MAX)
        flag = count > 0
    return bool(flag)


def gather_strings(words: list[str]) -> list[str]:
    """Return the words of all processes, in the order of their numbers."""
    if not dist.is_initialized():
        return words
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, words)
    return [word for some in gathered for word in some]


def averaged(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the mean of each value () over all processes, which must have the same names."""
    if not values:
        return {}
    stacked = torch.stack([value.detach().float() for value in values.values()])
    if dist.is_initialized():
        dist.all_reduce(stacked)
        stacked = stacked / world_size()
    return dict(zip(values, stacked.tolist(), strict=True))
