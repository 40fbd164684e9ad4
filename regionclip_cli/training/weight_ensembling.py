"""A little of the old model in the new one, against forgetting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def blended(model: nn.Module, start: Mapping[str, Tensor], share: float) -> Iterator[None]:
    """Let a model have (1 - share) * own + share * start in the block, and its own weights again afterwards.

    The straight line between a model and its fine-tuned self often holds models that are better than either end on
    what the fine-tuning did not show (WiSE-FT, "Robust fine-tuning of zero-shot models", Wortsman et al., CVPR 2022).

    Args:
        model: The fine-tuned model.
        start: {name of a parameter: its values before the training}; other parameters stay as they are.
        share: Of the start in the mixture, 0..1.
    """
    shared = [(p, start[name]) for name, p in model.named_parameters() if name in start] if share else []
    kept = [parameter.detach().clone() for parameter, _ in shared]
    with torch.no_grad():
        for parameter, old in shared:
            parameter.lerp_(old.to(parameter.device, parameter.dtype), share)
    try:
        yield
    finally:
        with torch.no_grad():
            for (parameter, _), own in zip(shared, kept, strict=True):
                parameter.copy_(own)
