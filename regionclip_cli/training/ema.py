"""An exponential moving average of the weights, which often generalises better than the last weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn


class Average:
    """The average a = m a + (1 - m) w of all trained weights w, one update a step.

    Args:
        model: Whose weights are averaged; those that are frozen are not held a second time.
        momentum: m, near 1.
    """

    def __init__(self, model: nn.Module, momentum: float) -> None:
        self.momentum = momentum
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.values = {name: p.detach().clone() for name, p in self._weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        for name, weight in self._weights.items():
            self.values[name].lerp_(weight, 1 - self.momentum)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Go on from an earlier average."""
        for name, value in values.items():
            self.values[name].copy_(value)

    @torch.no_grad()
    def copy_to(self) -> None:
        """Replace the weights by their averages, for good."""
        for name, weight in self._weights.items():
            weight.copy_(self.values[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Replace the weights by their averages for a while."""
        kept = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self.copy_to()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self._weights.items():
                    weight.copy_(kept[name])


class AverageHook(Hook):
    """Updates an average after each step."""

    priority = "VERY_HIGH"

    def __init__(self, average: Average) -> None:
        self.average = average

    def after_train_iter(
        self, runner: object, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Take in the weights of this step."""
        self.average.update()
