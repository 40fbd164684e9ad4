"""A timm tower that is read at three strides at once."""

from __future__ import annotations

import pytest
import torch
from vision.backbones.backbone_toys import CONVNEXT, EFFICIENTNET, RESNET, shake

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.backbones import build_backbone
from regionclip_cli.vision.backbones.timm_pyramid import TimmPyramid
from regionclip_cli.vision.feature_levels import unpack_levels
from regionclip_cli.vision.region_encoder import RegionEncoder

TOYS = {"efficientnet": EFFICIENTNET, "convnext": CONVNEXT}


def toy(family: str = "efficientnet") -> TimmPyramid:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone("tiny-pyramid", TOYS[family])
        assert isinstance(backbone, TimmPyramid)
        torch.nn.init.normal_(backbone.visual.region_head.place.weight)
    shake(backbone)
    return backbone.eval()


@pytest.mark.parametrize("family", list(TOYS))
def test_the_map_holds_the_stages_of_three_strides(family: str) -> None:
    backbone = toy(family)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        packed = backbone.trunk(images)
        assert packed.shape == (2, backbone.channels, 4, 6)
        *_, last = unpack_levels(packed, backbone.levels, backbone.stride)
        expected = backbone.visual.trunk.forward_features(images)
        for module in backbone._ending:
            last = module(last)
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)


def test_training_and_inference_compute_the_same_map() -> None:
    backbone, images = toy(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        folded = backbone.trunk(images)
    torch.testing.assert_close(backbone.trunk(images), folded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("regions", [1, 40])
def test_the_fast_path_is_the_plain_one(regions: int) -> None:
    backbone = toy()
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(regions, 2, 2, generator=generator) * torch.tensor([96.0, 64.0])
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1) + 2], dim=1)
    with torch.no_grad():
        features = backbone.trunk(torch.randn(1, 3, 64, 96))
        fast = RegionEncoder(backbone, path="fast")(features, [boxes])
        plain = RegionEncoder(backbone, path="plain")(features, [boxes])
    assert fast.shape == (regions, 16)
    torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-4)


def test_everything_but_norms_and_frozen_stages_learns() -> None:
    backbone = toy().train()
    backbone.freeze(1)
    boxes = [torch.tensor([[4.0, 4.0, 40.0, 60.0]])]
    RegionEncoder(backbone)(backbone.trunk(torch.randn(1, 3, 64, 64)), boxes).sum().backward()
    learned = {name for name, p in backbone.named_parameters() if p.grad is not None}
    assert {"visual.region_head.reduce.weight", "visual.region_head.place.weight"} <= learned
    assert {"visual.head.proj.weight", "visual.trunk.conv_head.weight"} <= learned
    assert not [name for name in learned if "conv_stem" in name or ".bn" in name]
    assert len(backbone.stages()) == len(backbone.visual.trunk.blocks) + 2


def test_another_tower_is_refused() -> None:
    with pytest.raises(UsageError):
        build_backbone("tiny-pyramid", RESNET)
