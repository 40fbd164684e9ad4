"""RegionCLIP's released `concept_emb` files: bare tensors, given back the names they come without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from regionclip_cli.errors import UsageError
from regionclip_cli.language.concept_bank import ConceptBank

OFFICIAL_TEMPLATES = "clip-81"
"""The released embeddings are means over these, not normalised."""


def convert_concepts(content: Tensor, path: Path, names: Sequence[str], model: str, dim: int) -> ConceptBank:
    """Return the concept bank of a bare tensor.

    Args:
        content: Embeddings (C, D), or (D,) for a single concept.
        path: The file they come from, for messages.
        names: C names in row order.
        model: Name of the model whose text encoder made them.
        dim: D of that model.

    Raises:
        UsageError: The counts or dimensions differ, a name comes twice, or a value is no finite number.
    """
    rows = content[None] if content.ndim == 1 else content
    if rows.ndim != 2 or not rows.is_floating_point():
        shape = tuple(content.shape)
        raise UsageError(f"{path} contains a tensor of shape {shape} and type {content.dtype}, not embeddings (C, D).")
    if len(names) != rows.shape[0]:
        raise UsageError(
            f"{path} contains {rows.shape[0]} embeddings, but --names has {len(names)} names.",
            "Give one name per embedding, in the same order.",
        )
    if rows.shape[1] != dim:
        raise UsageError(
            f"{path} contains embeddings of dimension {rows.shape[1]}, but the model {model!r} uses {dim}.",
            "Set --model to the model whose text encoder produced them.",
        )
    return ConceptBank(tuple(names), rows.float().contiguous(), model, OFFICIAL_TEMPLATES)
