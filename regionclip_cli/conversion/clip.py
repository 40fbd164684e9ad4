"""CLIP weights in and out: OpenAI's and open_clip's state dicts, and back to open_clip's names.

A model file keeps an open_clip model under `clip.`, so both ways are a prefix; what takes care is the rest: which
network it is, which tensors are not weights, and the precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regionclip_cli import plugins
from regionclip_cli.conversion.architecture import recognise_tower
from regionclip_cli.conversion.shapes import COUNTER, Shapes, check, clip_shapes
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.files import whole_file
from regionclip_cli.hub.backbones import BACKBONES
from regionclip_cli.hub.model_card import ModelCard, read_card
from regionclip_cli.vision.backbones.build import clip_config

CLIP = "clip."
VISUAL = "visual."
LOGIT_SCALE = "logit_scale"
OPENAI_FACTS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's state dicts carry among the weights."""


def from_open_clip(tensors: Mapping[str, Tensor], *, gelu: bool = False) -> tuple[str, dict[str, Any] | None, dict]:
    """Recognise and check an open_clip state dict with both towers.

    Args:
        tensors: Named as open_clip and OpenAI name them.
        gelu: The weights were trained with the plain GELU rather than OpenAI's quick one. Nothing in the tensors tells.

    Returns:
        The backbone's name, the open_clip config where it is not the backbone's own, and the tensors under `clip.`.

    Raises:
        UsageError: No known network, or missing, unknown or misshapen tensors.
    """
    tensors = {key: value for key, value in tensors.items() if key not in OPENAI_FACTS}
    name = recognise_tower(below(tensors, VISUAL))
    config = clip_config(BACKBONES[name])
    tensors.setdefault(LOGIT_SCALE, torch.tensor(math.log(100)))
    shapes = clip_shapes(config)
    check(tensors, shapes, f"This {name} model")
    changed = gelu and config.pop("quick_gelu", False)
    return name, config if changed else None, under(CLIP, with_counters(tensors, shapes))


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with `prefix` before every name."""
    return {prefix + key: value for key, value in tensors.items()}


def with_counters(tensors: Mapping[str, Tensor], shapes: Shapes) -> dict[str, Tensor]:
    """Return the tensors and a zero for every batch norm step counter that the network has and the file has not."""
    zeros = {key: torch.tensor(0) for key in shapes if key.endswith(COUNTER) and key not in tensors}
    return {**tensors, **zeros}


def card_config(card: ModelCard) -> dict[str, Any]:
    """Return the open_clip model config of a model file: its own, or that of its backbone.

    Raises:
        UsageError: The file holds no CLIP model, or its backbone is not installed.
    """
    if card.clip is not None:
        return dict(card.clip)
    if card.backbone is None:
        raise UsageError(f"{card.name} contains no CLIP model.")
    return clip_config(plugins.find("backbones", card.backbone))


def take_text(path: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """Take the text tower out of a model file, for a model of the same embedding dimension that has none.

    Args:
        path: The model file that has a text tower.
        config: open_clip config of the model that lacks it.

    Returns:
        The open_clip config of both together, None where it is `config` itself; and the text tensors (with
        `logit_scale`), named as in open_clip.

    Raises:
        MissingError: The file has no text tower.
        UsageError: Its embeddings have another dimension, or its towers need another activation function.
    """
    from safetensors import safe_open

    card = read_card(path)
    if "text" not in card.parts:
        raise MissingError(f"{card.name} has no text encoder.", "Set --text-from to a model that has one.")
    theirs = card_config(card)
    if theirs["embed_dim"] != config["embed_dim"]:
        raise UsageError(
            f"The text encoder of {card.name} has embedding dimension {theirs['embed_dim']}, "
            f"but this model requires {config['embed_dim']}."
        )
    resnet = isinstance(config["vision_cfg"].get("layers"), list | tuple)
    if not resnet and theirs.get("quick_gelu", False) != config.get("quick_gelu", False):
        raise UsageError(f"The text encoder of {card.name} and this image tower use different activation functions.")
    with safe_open(path, framework="pt") as file:
        names = [key for key in file.keys() if key.startswith(CLIP) and not key.startswith(CLIP + VISUAL)]  # noqa: SIM118
        text = {key.removeprefix(CLIP): file.get_tensor(key) for key in names}
    together = {**config, "text_cfg": theirs["text_cfg"], "quick_gelu": theirs.get("quick_gelu", False)}
    same = together["text_cfg"] == config["text_cfg"] and together["quick_gelu"] == config.get("quick_gelu", False)
    return None if same else together, text


def open_clip_state(path: Path) -> dict[str, Tensor]:
    """Return the open_clip state dict inside a model file: image tower, text tower and `logit_scale`, in float32.

    open_clip's model of the same architecture loads it with `strict=True`.

    Raises:
        MissingError: The file lacks one of the towers.
        UsageError: It is no model file.
    """
    from safetensors.torch import load_file

    card = read_card(path)
    lacking = [part for part in ("visual", "text") if part not in card.parts]
    if lacking:
        raise MissingError(
            f"{card.name} has no {' and no '.join(lacking)} tower, but open_clip requires both.",
            "`regionclip models add NAME FILE --text-from MODEL` adds a text tower." if lacking == ["text"] else "",
        )
    state = below(load_file(path), CLIP)
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def export_open_clip(path: Path, target: Path) -> int:
    """Write a model file's open_clip state dict to `target`: safetensors, or a `.pt`, `.pth` or `.bin` pickle.

    Returns:
        How many tensors were written.

    Raises:
        OutputError: The target cannot be written.
        UsageError: Its name has another ending; else as `open_clip_state`.
    """
    from safetensors.torch import save_file

    if target.suffix not in (".safetensors", ".pt", ".pth", ".bin"):
        raise UsageError(f"{target} must end in .onnx, .safetensors, .pt, .pth or .bin.")
    state = open_clip_state(path)
    with whole_file(target) as part:
        if target.suffix == ".safetensors":
            save_file(state, part)
        else:
            torch.save(state, part)
    return len(state)
