"""Stand-ins for released weights: of the right names and shapes without their size, and a backbone of 50 kB."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from regionclip_cli.conversion.shapes import clip_shapes
from regionclip_cli.hub.backbones import BACKBONES
from regionclip_cli.specs import BackboneSpec

PARITY = Path(__file__).parent / "fixtures" / "parity"
TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 100, "width": 8, "heads": 1, "layers": 1},
}


def marked(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return tensors of the given shapes that take no memory: the i-th is full of the number i."""
    return {key: torch.tensor(float(i)).expand(shape) for i, (key, shape) in enumerate(shapes.items())}


def mark(tensor: torch.Tensor) -> int:
    """Return the number that a marked tensor is full of."""
    return round(float(tensor.flatten()[0]))


def official(name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a released pre-training checkpoint, `rn50` or `rn50x4`."""
    shapes = json.loads((PARITY / f"checkpoint_keys_{name}.json").read_text())
    return marked({key: tuple(shape) for key, shape in shapes.items()})


def finetuned(
    tensors: dict[str, torch.Tensor], dim: int, trained: int = 48, tested: int = 65, mask_channels: int = 0
) -> dict[str, torch.Tensor]:
    """Return what a fine-tuned detector's file holds, made from a pre-training checkpoint's tensors."""
    head = {
        "cls_score.weight": torch.full((trained, dim), 7001.0),
        "test_cls_score.weight": torch.full((tested, dim), 7002.0),
        "cls_bg_score.weight": torch.zeros(1, dim),
        "bbox_pred.weight": torch.full((4, dim), 7003.0),
        "bbox_pred.bias": torch.full((4,), 7004.0),
    }
    found = without(tensors, "teacher_backbone.", "lang_encoder.")
    found |= {f"roi_heads.box_predictor.{key}": value for key, value in head.items()}
    if mask_channels:
        found |= {
            "roi_heads.mask_head.deconv.weight": torch.ones(()).expand(mask_channels, 256, 2, 2),
            "roi_heads.mask_head.deconv.bias": torch.ones(256),
            "roi_heads.mask_head.predictor.weight": torch.ones(1, 256, 1, 1),
            "roi_heads.mask_head.predictor.bias": torch.ones(1),
        }
    return found


def proposal_network(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the file of the proposal network inside a pre-training checkpoint: a Mask R-CNN job with heads."""
    found = {key.removeprefix("offline_"): value for key, value in tensors.items() if key.startswith("offline_")}
    return found | {
        "proposal_generator.anchor_generator.cell_anchors.0": torch.ones(3, 4),
        "roi_heads.box_head.fc1.weight": torch.ones(4, 4),
        "roi_heads.box_predictor.cls_score.weight": torch.ones(4, 4),
        "roi_heads.mask_head.predictor.weight": torch.ones(4, 4),
    }


def without(tensors: dict[str, torch.Tensor], *prefixes: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin otherwise."""
    return {key: value for key, value in tensors.items() if not key.startswith(prefixes)}


def add_tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Add `toy-resnet` to the built-in backbones, so small that whole files of it can be written.

    Returns:
        An open_clip state dict of it.
    """
    spec = BackboneSpec("toy-resnet", "A toy.", TINY, BACKBONES["clip-rn50"].network, 128, 16, 4, 16)
    monkeypatch.setitem(BACKBONES, "toy-resnet", spec)
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.tensor(0) if key.endswith("num_batches_tracked") else torch.rand(shape, generator=generator)
        for key, shape in clip_shapes(TINY).items()
    }
