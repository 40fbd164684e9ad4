"""A little of the old model in the new one, against forgetting."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def blend(tuned: Mapping[str, Tensor], start: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return (1 - share) * tuned + share * start for every tensor that both models have, and the others as tuned.

    The straight line between a model and its fine-tuned self often holds models that are better than either end on
    what the fine-tuning did not show (WiSE-FT, "Robust fine-tuning of zero-shot models", Wortsman et al., CVPR 2022).

    Args:
        tuned: {name: tensor} after the training.
        start: {name: tensor} before it. Counters and tensors of another shape are left as tuned.
        share: Of the start in the result, 0..1.
    """
    mixed = {}
    for name, tensor in tuned.items():
        old = start.get(name)
        if share and old is not None and tensor.is_floating_point() and old.shape == tensor.shape:
            mixed[name] = tensor.float().lerp(old.to(tensor.device).float(), share).to(tensor.dtype)
        else:
            mixed[name] = tensor
    return mixed
