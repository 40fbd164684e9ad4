"""Which network a set of CLIP tensors belongs to, read from their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from regionclip_cli.conversion.shapes import clip_shapes, shapes_of
from regionclip_cli.errors import UsageError
from regionclip_cli.hub.backbones import BACKBONES
from regionclip_cli.vision.backbones.build import clip_config

Signature = tuple[Any, ...]


def recognise_tower(visual: Mapping[str, Tensor]) -> str:
    """Return the name of the built-in backbone whose image tower these tensors are.

    Args:
        visual: Tensors of one image tower, named as open_clip does below `visual.` (without that prefix).

    Raises:
        UsageError: The tensors are of no tower that is known; the sentence says what they look like.
    """
    if any(key.startswith("trunk.") for key in visual):
        return _recognise_timm(visual)
    signature = _signature(visual)
    for name, spec in BACKBONES.items():
        if signature is not None and signature == _config_signature(clip_config(spec)):
            return name
    raise UsageError(
        f"Unknown image tower architecture: {_describe(signature)}.",
        f"Supported: {', '.join(BACKBONES)}. A plugin can add other backbones.",
    )


def _signature(visual: Mapping[str, Tensor]) -> Signature | None:
    """Return (family, layers, width, patch size, embedding dimension, positions) from the tensors."""
    if "attnpool.c_proj.weight" in visual and "layer1.0.conv1.weight" in visual:
        positions = visual.get("attnpool.positional_embedding")
        return (
            "ResNet",
            tuple(_count(visual, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)),
            visual["layer1.0.conv1.weight"].shape[0],
            None,
            visual["attnpool.c_proj.weight"].shape[0],
            0 if positions is None else positions.shape[0],
        )
    if "class_embedding" in visual and "conv1.weight" in visual:
        positions = visual.get("positional_embedding")
        return (
            "ViT",
            _count(visual, r"transformer\.resblocks\.(\d+)\."),
            visual["conv1.weight"].shape[0],
            visual["conv1.weight"].shape[-1],
            visual["proj"].shape[1] if "proj" in visual else 0,
            0 if positions is None else positions.shape[0],
        )
    return None


def _config_signature(config: Mapping[str, Any]) -> Signature | None:
    """Return the same from an open_clip model config."""
    vision, dim = config["vision_cfg"], config["embed_dim"]
    if "timm_model_name" in vision:
        return None
    size = vision["image_size"]
    if isinstance(vision["layers"], list | tuple):
        return "ResNet", tuple(vision["layers"]), vision["width"], None, dim, (size // 32) ** 2 + 1
    patch = vision["patch_size"]
    return "ViT", vision["layers"], vision["width"], patch, dim, (size // patch) ** 2 + 1


def _describe(signature: Signature | None) -> str:
    if signature is None:
        return "neither a CLIP ResNet nor a CLIP ViT"
    family, layers, width, patch, dim, positions = signature
    side = round((max(positions, 1) - 1) ** 0.5) * (patch or 32)
    grid = f", patches of {patch} px" if patch else ""
    return f"a {family} with layers {layers}, width {width}{grid}, images of {side} px and {dim} dimensions"


def _recognise_timm(visual: Mapping[str, Tensor]) -> str:
    """Return the timm backbone whose tensors have exactly these names and shapes."""
    found = shapes_of(visual)
    for name, spec in BACKBONES.items():
        config = clip_config(spec)
        if "timm_model_name" in config["vision_cfg"]:
            shapes = clip_shapes(config)
            tower = {key.removeprefix("visual."): shape for key, shape in shapes.items() if key.startswith("visual.")}
            if tower == found:
                return name
    known = [name for name, spec in BACKBONES.items() if "timm_model_name" in clip_config(spec)["vision_cfg"]]
    raise UsageError(
        f"Unknown timm image tower; supported are {', '.join(known)}.",
        "A plugin can add other backbones.",
    )


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many different numbers the names have where `pattern` says."""
    return len({match.group(1) for key in tensors if (match := re.match(pattern, key))})
