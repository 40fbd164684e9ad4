"""A classifier in the usual sense: one learned row a class, for detectors of a closed set of classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from regionclip_cli.errors import UsageError
from regionclip_cli.language.class_names import learned_places
from regionclip_cli.registry import MODELS

INITIAL_DEVIATION = 0.01


@MODELS.register_module()
class LinearClassifier(nn.Module):
    """Scores region embeddings (R, D) by a learned layer with C + 1 rows, the background last (Fast R-CNN).

    It takes the place of `ConceptClassifier` and knows its own C classes only: no text goes in, so no other word can.

    Args:
        classes: Names of the C classes, in the order of the rows.
        dim: D.
        initial_deviation: Standard deviation of the weights before training.
    """

    chosen: Tensor

    def __init__(self, classes: Sequence[str], dim: int, initial_deviation: float = INITIAL_DEVIATION) -> None:
        super().__init__()
        if not classes:
            raise UsageError("A classifier needs at least one class.")
        self.classes = tuple(classes)
        self.weight = nn.Parameter(torch.randn(len(classes) + 1, dim) * initial_deviation)
        self.bias = nn.Parameter(torch.zeros(len(classes) + 1))
        self.register_buffer("chosen", torch.arange(len(classes)), persistent=False)

    @property
    def num_classes(self) -> int:
        """How many classes are reported."""
        return len(self.chosen)

    def choose(self, labels: Sequence[str]) -> None:
        """Report these of its classes and no others; upper and lower case are the same.

        Raises:
            UsageError: One is not among its classes.
        """
        chosen = learned_places(labels, self.classes)
        self.chosen = torch.tensor(chosen, dtype=torch.long, device=self.weight.device)

    def set_concepts(self, embeddings: Tensor, groups: Tensor | None = None, num_classes: int | None = None) -> None:
        """Refuse: there is no place for embeddings.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "This model's classifier is a learned layer for its own classes and takes no embeddings.",
            "Use a model with a text classifier.",
        )

    def forward(self, regions: Tensor) -> Tensor:
        """Return the logits (R, C + 1) float32 of all its classes, the background last."""
        with torch.autocast(regions.device.type, enabled=False):
            return functional.linear(regions.float(), self.weight.float(), self.bias.float())

    def probabilities(self, regions: Tensor) -> Tensor:
        """Return the probabilities (R, number of chosen classes) of region embeddings (R, D)."""
        return self(regions).softmax(dim=-1)[:, self.chosen]
