"""Regions to class probabilities: cosine with text embeddings, a zero background, and fusion with objectness.

The classifier owns no weights. Its "weight matrix" is a set of text embeddings that can be exchanged between two
images, which is all that "open vocabulary" asks of a detector.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regionclip_cli.errors import UsageError
from regionclip_cli.recipe.scoring import FUSIONS, Fusion
from regionclip_cli.registry import MODELS


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of every row of `a` (R, D) with every row of `b` (N, D) as (R, N) float32.

    A row of zeros has cosine 0 with everything, so that an empty region never turns into NaN. Always computed in
    float32: at temperature 0.01 the rounding of bfloat16 would move a logit by 0.4.
    """
    with torch.autocast(a.device.type, enabled=False):
        return F.normalize(a.float(), dim=-1) @ F.normalize(b.float(), dim=-1).T


def match_concepts(regions: Tensor, concepts: Tensor, temperature: float = 0.01) -> Tensor:
    """Return softmax(cosine / temperature) of regions (R, D) over concepts (C, D) as (R, C), with no background.

    This is how the teacher of RegionCLIP section 3.2 labels regions: the best concept of a row is the pseudo label, its
    probability the confidence.
    """
    return (cosine(regions, concepts) / temperature).softmax(dim=-1)


@MODELS.register_module()
class ConceptClassifier(nn.Module):
    """Classify region embeddings among concepts that may change at any time.

    The logit of a concept is its cosine with the region over the temperature. The background is a frozen zero vector,
    so its logit is 0 and its place is last (official code's `cls_bg_score`). A class may have several phrases: the best
    one speaks for it. Distractors are concepts that take their share of the softmax but are never reported.

    Args:
        temperature: Divisor of the cosine; the paper's value is 0.01.
    """

    concepts: Tensor
    groups: Tensor

    def __init__(self, temperature: float = 0.01) -> None:
        super().__init__()
        if not temperature > 0:
            raise UsageError(f"The classifier's temperature must be above 0, not {temperature}.")
        self.temperature = temperature
        self.num_classes = 0
        self.num_groups = 0
        self._one_phrase_each = True
        self.register_buffer("concepts", torch.zeros(0, 0), persistent=False)
        self.register_buffer("groups", torch.zeros(0, dtype=torch.long), persistent=False)

    def set_concepts(self, embeddings: Tensor, groups: Tensor | None = None, num_classes: int | None = None) -> None:
        """Take a new vocabulary; nothing is rebuilt.

        Args:
            embeddings: (N, D) text embeddings of the phrases, normalised or not.
            groups: (N,) long, the class index of each phrase; distractors are numbered from C on. By default every
                phrase is a class of its own.
            num_classes: C, how many groups are reported. By default all of them.

        Raises:
            UsageError: The shapes do not fit, or a class has no phrase.
        """
        if embeddings.ndim != 2 or not len(embeddings):
            raise UsageError(f"Concept embeddings must have the shape (N, D) with N above 0, not {_shape(embeddings)}.")
        if groups is None:
            groups = torch.arange(len(embeddings))
        groups = groups.to(dtype=torch.long, device="cpu")
        if groups.shape != (len(embeddings),):
            raise UsageError(f"{len(embeddings)} phrases need {len(embeddings)} group numbers, not {_shape(groups)}.")
        present = groups.unique()
        if not torch.equal(present, torch.arange(len(present))):
            raise UsageError(f"Every class from 0 on needs a phrase, but the phrases belong to {present.tolist()}.")
        num_classes = len(present) if num_classes is None else num_classes
        if not 0 < num_classes <= len(present):
            raise UsageError(f"{num_classes} classes cannot be told from phrases of {len(present)}.")
        device = self.concepts.device
        self.concepts = embeddings.detach().to(device=device, dtype=torch.float32)
        self.groups = groups.to(device)
        self.num_classes, self.num_groups = num_classes, len(present)
        self._one_phrase_each = torch.equal(groups, torch.arange(len(groups)))

    def forward(self, regions: Tensor) -> Tensor:
        """Return the logits (R, C + distractors + 1) of region embeddings (R, D); the zero background comes last.

        Raises:
            UsageError: No concepts were set, or their dimension is not the regions'.
        """
        if not self.num_classes:
            raise UsageError("The classifier has no concepts yet.", "Call set_concepts first.")
        if regions.shape[-1] != self.concepts.shape[-1]:
            raise UsageError(
                f"Concepts of {self.concepts.shape[-1]} dimensions cannot name regions of {regions.shape[-1]}.",
                "Encode the names with the text encoder of the same model.",
            )
        logits = cosine(regions, self.concepts) / self.temperature  # (R, N)
        if not self._one_phrase_each:
            empty = logits.new_full((len(logits), self.num_groups), -torch.inf)
            logits = empty.scatter_reduce(1, self.groups.expand_as(logits), logits, "amax")  # (R, C + distractors)
        return F.pad(logits, (0, 1))

    def probabilities(self, regions: Tensor) -> Tensor:
        """Return the class probabilities (R, C) of region embeddings (R, D), distractors and background left out."""
        return self(regions).softmax(dim=-1)[:, : self.num_classes]


def fuse(probabilities: Tensor, logits: Tensor | None, how: Fusion = "sigmoid") -> Tensor:
    """Return scores (K, C): the geometric mean sqrt(p * o) of class probability and objectness.

    Args:
        probabilities: (K, C).
        logits: (K,) objectness before the sigmoid; None for boxes without one, which keep their probability.
        how: "sigmoid" takes o = sigmoid(logit), so that a score stays in 0..1. "logit" takes the raw logit as the
            official code does: scores may pass 1, and a proposal with a negative logit, whose root is not a number
            there and which is thrown away, scores 0 here. "none" leaves objectness out.
    """
    if how not in FUSIONS:
        raise UsageError(f"Unknown fusion {how!r}.", f"Choose one of {', '.join(FUSIONS)}.")
    if logits is None or how == "none":
        return probabilities
    objectness = logits.float().sigmoid() if how == "sigmoid" else logits.float().clamp(min=0)
    return (probabilities * objectness[:, None]).sqrt()


def calibrate(scores: Tensor, slope: float, offset: float) -> Tensor:
    """Return sigmoid(slope * logit(score) + offset) of scores 0..1: Platt scaling (1999). The ranking stays.

    Args:
        scores: Of any shape.
        slope: Above 0.
        offset: Fitted together with the slope on images that were not trained on.
    """
    return (slope * torch.logit(scores.float(), eps=1e-6) + offset).sigmoid()


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
