"""Toy models and pictures: whole model files of a few hundred kilobytes with random weights, and drawn shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample

    from regionclip_cli.vision.detector import OpenVocabularyDetector

Family = Literal["resnet", "timm", "convnext", "vit"]

DIM = 16
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
VISION: dict[Family, tuple[str, dict[str, Any], int]] = {
    # name of the backbone, vision config, channels of its feature map
    "resnet": ("clip-rn50", {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 64}, 128),
    "timm": (
        "regionclip-tiny",
        {"timm_model_name": "test_efficientnet", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64},
        48,
    ),
    "convnext": (
        "clip-convnext-base",
        {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear", "image_size": 64},
        48,
    ),
    "vit": ("clip-vit-b-32", {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 64}, 32),
}
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 220)}


def toy_clip(family: Family = "resnet") -> dict[str, Any]:
    """Return the open_clip config of a toy; its embeddings have `DIM` dimensions."""
    return {"embed_dim": DIM, "vision_cfg": dict(VISION[family][1]), "text_cfg": dict(TEXT)}


def toy_proposals(family: Family = "resnet") -> dict[str, Any]:
    """Return the config of a light proposal head on the toy's trunk."""
    return {"type": "rpn-trunk", "channels": VISION[family][2], "feat_channels": 16, "sizes": [16, 32], "stride": 16}


def toy_state(family: Family = "resnet", seed: int = 0, proposals: bool = True) -> dict[str, torch.Tensor]:
    """Return the named tensors of a toy model file, random but always the same for a seed."""
    from regionclip_cli.vision.backbones import build_clip
    from regionclip_cli.vision.proposals.build import build_proposals

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = {f"clip.{key}": value for key, value in build_clip(toy_clip(family)).state_dict().items()}
        if proposals:
            source = build_proposals(toy_proposals(family))
            state |= {f"proposals.{key}": value for key, value in source.state_dict().items()}
    # A fresh ResNet scales its residual branches by zero, and would compute nothing in them.
    return {key: value + 0.5 if key.endswith("bn3.weight") else value for key, value in state.items()}


def write_toy_model(
    path: Path,
    family: Family = "resnet",
    seed: int = 0,
    proposals: bool = True,
    extra: Mapping[str, torch.Tensor] | None = None,
    **card: Any,
) -> Path:
    """Write a model file with image tower, text tower and, if wanted, a proposal head on the trunk.

    Args:
        path: The file to write.
        family: Which kind of image tower.
        seed: Of the random weights.
        proposals: Whether the file holds a proposal network.
        extra: More tensors for the file.
        card: Fields of the card to set otherwise.
    """
    from regionclip_cli.hub.model_card import ModelCard
    from regionclip_cli.hub.model_file import write_model

    parts = ("visual", "text", "proposals") if proposals else ("visual", "text")
    fields: dict[str, Any] = {
        "name": path.stem,
        "backbone": VISION[family][0],
        "clip": toy_clip(family),
        "proposals": toy_proposals(family) if proposals else None,
        "parts": parts,
        "templates": "plain",
        "short_side": 64,
        "max_side": 128,
    }
    state = toy_state(family, seed, proposals) | dict(extra or {})
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    return write_model(path, ModelCard(**fields | card), half)


def detector_config(
    family: Family = "resnet", proposals: dict[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """Return a registry config of a toy detector."""
    return {
        "type": "regionclip_cli.OpenVocabularyDetector",
        "backbone": {"name": VISION[family][0], "clip": toy_clip(family)},
        "proposals": proposals or toy_proposals(family),
        **options,
    }


def build_detector(
    family: Family = "resnet", proposals: dict[str, Any] | None = None, classes: int = 3, **options: Any
) -> OpenVocabularyDetector:
    """Build a toy detector through the registry, with random weights and random concepts, the same ones every time."""
    from regionclip_cli.registry import MODELS

    torch.manual_seed(0)
    detector = MODELS.build(detector_config(family, proposals, **options))
    detector.set_concepts(torch.randn(classes, DIM))
    return detector.eval()


def image_sample(height: int, width: int, **metainfo: Any) -> DetDataSample:
    """Return a sample for an image of that size in network-input pixels."""
    from mmdet.structures import DetDataSample

    return DetDataSample(metainfo={"img_shape": (height, width), **metainfo})


def draw_shapes(
    seed: int = 0, height: int = 64, width: int = 96, count: int = 2
) -> tuple[np.ndarray, np.ndarray, list]:
    """Draw rectangles of plain colours on a grey ground.

    Returns:
        The picture (height, width, 3) uint8 RGB, the boxes (count, 4) float32 xyxy, and their colours' names.
    """
    rng = np.random.default_rng(seed)
    picture = rng.integers(110, 140, (height, width, 3)).astype(np.uint8)
    names = [list(COLOURS)[i] for i in rng.integers(len(COLOURS), size=count)]
    boxes = np.zeros((count, 4), np.float32)
    for i, name in enumerate(names):
        w, h = rng.integers(width // 6, width // 3), rng.integers(height // 5, height // 2)
        # Side by side, so that no shape hides another.
        x, y = i * width // count + rng.integers(1, max(2, width // count - w)), rng.integers(1, height - h)
        picture[y : y + h, x : x + w] = COLOURS[name]
        boxes[i] = (x, y, x + w, y + h)
    return picture, boxes, names
