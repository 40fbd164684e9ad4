import json
from pathlib import Path

import pytest
import torch

from regionclip_cli.hub.backbones import BACKBONES
from regionclip_cli.specs import BackboneSpec
from regionclip_cli.training.checkpoints.checking import clip_shapes

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"

TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 100, "width": 8, "heads": 1, "layers": 1},
}


def marked(shapes):
    """Return tensors of the given shapes that take no memory: the i-th is full of the number i."""
    return {key: torch.tensor(float(i)).expand(shape) for i, (key, shape) in enumerate(shapes.items())}


def mark(tensor):
    return round(float(tensor.flatten()[0])) if tensor.numel() else None


@pytest.fixture(params=["rn50", "rn50x4"])
def official(request):
    """The tensors of a released pre-training checkpoint, and the name of its backbone."""
    shapes = json.loads((PARITY / f"checkpoint_keys_{request.param}.json").read_text())
    return marked({key: tuple(shape) for key, shape in shapes.items()}), f"clip-{request.param}"


@pytest.fixture
def official_rn50():
    shapes = json.loads((PARITY / "checkpoint_keys_rn50.json").read_text())
    return marked({key: tuple(shape) for key, shape in shapes.items()})


@pytest.fixture
def tiny_backbone(monkeypatch):
    """A built-in backbone so small that whole files of it can be written; returns its open_clip state dict."""
    spec = BackboneSpec("toy-resnet", "A toy.", TINY, BACKBONES["clip-rn50"].network, 128, 16, 4, 16)
    monkeypatch.setitem(BACKBONES, "toy-resnet", spec)
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.tensor(0) if key.endswith("num_batches_tracked") else torch.rand(shape, generator=generator)
        for key, shape in clip_shapes(TINY).items()
    }
