"""From any weights file to a card and tensors: tell what it is, and call who converts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regionclip_cli.conversion.clip import from_open_clip
from regionclip_cli.conversion.official import PREDICTOR, STUDENT, TEXT, convert_finetuned, convert_pretraining
from regionclip_cli.conversion.proposal_networks import convert_proposals, is_proposal_network
from regionclip_cli.conversion.weights_file import read_weights
from regionclip_cli.errors import UsageError
from regionclip_cli.hub.model_card import METADATA_KEY, ModelCard, read_card, read_metadata

HALF_MAX = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class Converted:
    """A weights file in our terms.

    Attributes:
        kind: What the file was, in words.
        card: What the model file will say about itself.
        tensors: {name in a model file: tensor}.
    """

    kind: str
    card: ModelCard
    tensors: dict[str, Tensor]

    @property
    def parameters(self) -> int:
        """How many numbers the tensors hold."""
        return sum(value.numel() for value in self.tensors.values())


def convert(
    path: Path,
    name: str,
    *,
    text_from: Path | None = None,
    gelu: bool = False,
    half: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Converted:
    """Recognise a weights file and convert it.

    Args:
        path: The file.
        name: What the model will be called.
        text_from: A model file to take the text tower from, for detectors that come without one.
        gelu: CLIP weights were trained with the plain GELU rather than OpenAI's quick one.
        half: Store large tensors in float16; vectors (norms, biases) stay as they are, and so does what overflows.
        facts: More fields of the card, where they are known: licence, source, notes.

    Raises:
        MissingError: The file is not there, or `text_from` has no text tower.
        UsageError: The file cannot be read safely, is of no known kind, or does not fit its kind.
    """
    if is_model_file(path):
        card = read_card(path)
        content = read_weights(path)
        kind, fields = "regionclip model file", card.model_dump() | dict(facts or {}) | {"name": name}
        tensors = dict(content) if not isinstance(content, Tensor) else {}
    else:
        kind, converted, tensors = _convert_foreign(read_weights(path), path, text_from, gelu)
        fields = converted | dict(facts or {}) | {"name": name}
        tensors = {key: _float32(value) for key, value in tensors.items()}
    if half:
        tensors = {key: _half(value) for key, value in tensors.items()}
    return Converted(kind, ModelCard.model_validate(fields), tensors)


def is_model_file(path: Path) -> bool:
    """Tell whether a file is a model file of this tool already."""
    return path.suffix == ".safetensors" and path.is_file() and METADATA_KEY in read_metadata(path)


def _convert_foreign(
    content: Tensor | dict[str, Tensor], path: Path, text_from: Path | None, gelu: bool
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    if isinstance(content, Tensor):
        raise UsageError(
            f"{path} is a single tensor of shape {tuple(content.shape)}, not a model.",
            "For concept embeddings, add --names and --model, e.g. --names @lvis --model NAME.",
        )
    if any(key.startswith("visual.") for key in content):
        backbone, config, tensors = from_open_clip(content, gelu=gelu)
        return "CLIP weights", {"backbone": backbone, "clip": config, "parts": ("visual", "text")}, tensors
    if any(key.startswith(TEXT) for key in content) and any(key.startswith(STUDENT) for key in content):
        fields, tensors = convert_pretraining(content)
        return "RegionCLIP pre-training checkpoint", fields, tensors
    if any(key.startswith(PREDICTOR) for key in content) and "backbone.attnpool.c_proj.weight" in content:
        fields, tensors = convert_finetuned(content, text_from)
        return "RegionCLIP fine-tuned detector", fields, tensors
    for prefix in ("", "offline_"):
        if is_proposal_network(content, prefix):
            config, found = convert_proposals(content, prefix)
            fields = {"kind": "proposals", "proposals": config, "parts": ("proposals",)}
            return "detectron2 proposal network", fields, {f"proposals.{key}": value for key, value in found.items()}
    parts = Counter(key.partition(".")[0] for key in content)
    seen = ", ".join(f"{part} ({count})" for part, count in parts.most_common(6))
    raise UsageError(
        f"{path} has an unknown format; its tensors are named {seen}.",
        "Supported: RegionCLIP checkpoints and detectors, their proposal networks, CLIP and open_clip state dicts.",
    )


def _float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _half(value: Tensor) -> Tensor:
    if not value.is_floating_point() or value.ndim < 2 or value.numel() == 0:
        return value
    return value.half() if bool(value.abs().amax() <= HALF_MAX) else value
