"""Compare names and shapes of tensors, and say in one sentence what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.backbones.build import build_clip

Shapes = Mapping[str, tuple[int, ...]]

COUNTER = "num_batches_tracked"
"""Batch norm's count of training steps: CLIP's own files leave it out, and nothing at test time reads it."""


def clip_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of every tensor of an open_clip model, from a network that occupies no memory."""
    return {key: tuple(value.shape) for key, value in build_clip(config, empty=True).state_dict().items()}


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of tensors at hand."""
    return {key: tuple(value.shape) for key, value in tensors.items()}


def check(found: Mapping[str, Tensor], expected: Shapes, what: str) -> None:
    """Check that `found` has exactly the expected names and shapes; a missing step counter is not missed.

    Raises:
        UsageError: Counts and the first few names of what is missing, unknown or of another shape.
    """
    missing = [key for key in expected if key not in found and not key.endswith(COUNTER)]
    unknown = [key for key in found if key not in expected]
    differing = [
        f"{key} is {tuple(found[key].shape)} instead of {tuple(shape)}"
        for key, shape in expected.items()
        if key in found and tuple(found[key].shape) != tuple(shape)
    ]
    problems = [
        text
        for text in (
            some(missing, "missing"),
            some(unknown, "unknown"),
            f"{len(differing)} of another shape ({few(differing)})" if differing else "",
        )
        if text
    ]
    if problems:
        raise UsageError(f"{what} does not match the architecture: {'; '.join(problems)}.")


def some(keys: Sequence[str], adjective: str) -> str:
    """Return `3 missing (a, b, c)`, or an empty string for no keys."""
    return f"{len(keys)} {adjective} ({few(keys)})" if keys else ""


def few(words: Iterable[str], most: int = 4) -> str:
    """Return the first few words, and dots where there are more."""
    listed = list(words)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
