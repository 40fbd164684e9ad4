"""Small towers whose every weight matters, for tests of backbones."""

from __future__ import annotations

import torch
from torch import nn

from regionclip_cli.vision.backbones import Backbone, build_backbone

RESNET = {
    "embed_dim": 16,
    "vision_cfg": {"layers": [1, 1, 1, 2], "width": 8, "head_width": 32, "image_size": 64},
    "text_cfg": {"width": 8, "heads": 2, "layers": 1},
}
EFFICIENTNET = {
    "embed_dim": 16,
    "vision_cfg": {
        "timm_model_name": "test_efficientnet",
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": 64,
    },
    "text_cfg": {"width": 8, "heads": 2, "layers": 1},
}
CONVNEXT = {
    "embed_dim": 16,
    "vision_cfg": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear", "image_size": 64},
    "text_cfg": {"width": 8, "heads": 2, "layers": 1},
}
VIT = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 64},
    "text_cfg": {"width": 8, "heads": 2, "layers": 1},
}
TOYS = {
    "resnet": ("clip-rn50", RESNET),
    "efficientnet": ("regionclip-tiny", EFFICIENTNET),
    "convnext": ("clip-convnext-base", CONVNEXT),
    "vit": ("clip-vit-b-16", VIT),
}


def shake(module: nn.Module, seed: int = 0) -> None:
    """Give norms and biases random values: at their usual start of 0 and 1 an error in them would not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point() and tensor.dim() == 1:
                offset = 1.0 if name.endswith("weight") else 0.0
                tensor.normal_(generator=generator).mul_(0.2).add_(offset)


def toy_backbone(family: str) -> Backbone:
    """Return a toy of one family, in evaluation mode, always the same."""
    name, config = TOYS[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone(name, config)
    shake(backbone)
    return backbone.eval()
