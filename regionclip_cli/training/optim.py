"""The optimiser and what it does in one step: groups, clipping, learning rate, precision (RegionCLIP's settings)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from regionclip_cli.errors import UsageError
from regionclip_cli.recipe.schema import Optimisation
from regionclip_cli.vision import distributed

NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d,
    nn.InstanceNorm2d, nn.InstanceNorm3d, nn.RMSNorm,
)  # fmt: skip


class NotFiniteError(ArithmeticError):
    """A loss or a gradient is infinite or not a number; the weights were not touched."""


def build_optimiser(model: nn.Module, settings: Optimisation) -> torch.optim.Optimizer:
    """Return the optimiser of all parameters that are trained; those of norms have no weight decay.

    Raises:
        UsageError: All parameters are frozen.
    """
    norms = {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(False)}
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise UsageError("There is nothing to train: all parameters are frozen.", "Lower the setting `frozen_stages`.")
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if id(p) not in norms], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if id(p) in norms], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)


def rate(settings: Optimisation, step: int) -> float:
    """Return the learning rate of a step, counted from 0: a linear warm-up, then steps down, a cosine, or neither."""
    factor = 1.0
    if settings.schedule == "step":
        factor = settings.decay ** sum(step >= milestone for milestone in settings.milestones)
    elif settings.schedule == "cosine" and step >= settings.warmup_steps:
        done = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
        factor = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    if step < settings.warmup_steps:
        factor *= settings.warmup_factor + (1 - settings.warmup_factor) * step / settings.warmup_steps
    return settings.lr * factor


class StepWrapper(OptimWrapper):
    """One step of the optimiser, in parts: mixed precision forward, summed gradients, clipping, a look for NaN.

    Args:
        optimizer: What changes the weights.
        accumulate: Parts of a batch; their losses are averaged.
        clip_norm: Largest gradient norm, of each parameter by itself as in the official code; None clips nothing.
        bf16: The device type whose autocast is used, or None for full precision. bfloat16 has float32's range, so
            losses need no scaling.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        accumulate: int = 1,
        clip_norm: float | None = None,
        bf16: str | None = None,
    ) -> None:
        super().__init__(optimizer)
        self.accumulate, self.clip_norm, self.bf16 = accumulate, clip_norm, bf16
        self._losses: list[Tensor] = []

    @property
    def local_losses(self) -> list[float]:
        """The losses of this process in the step that is under way."""
        return [float(loss) for loss in self._losses]

    def should_update(self) -> bool:
        """Whether all parts of the batch are done."""
        return len(self._losses) == self.accumulate

    def should_sync(self) -> bool:
        """Whether the next part is the last one, after which processes exchange gradients."""
        return len(self._losses) == self.accumulate - 1

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Return the share of a part in the mean over the batch."""
        return loss / self.accumulate

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Compute in bfloat16 where it is safe, and exchange gradients only where they are complete."""
        amp = torch.autocast(self.bf16, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with super().optim_context(model), amp:
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Add the gradients of one part."""
        self._losses.append(loss.detach() * self.accumulate)
        super().backward(loss, **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Clip, look for NaN in all processes, and only then change the weights.

        Raises:
            NotFiniteError: A loss or gradient is not finite.
        """
        trained = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.clip_norm is None:
            norms = [nn.utils.get_total_norm([p.grad for p in trained])]
        else:
            norms = [nn.utils.clip_grad_norm_(p, self.clip_norm) for p in trained]
        values = torch.stack([value.float() for value in (*self._losses, *norms)])
        if distributed.any_rank(~values.isfinite().all()):
            raise NotFiniteError
        super().step(**kwargs)
        self._losses.clear()

    def set_rate(self, value: float) -> None:
        """Set the learning rate of all parameters."""
        for group in self.optimizer.param_groups:
            group["lr"] = value
