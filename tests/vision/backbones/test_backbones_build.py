from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from vision.backbones.backbone_toys import EFFICIENTNET, RESNET, VIT, shake

from regionclip_cli import plugins
from regionclip_cli.errors import PluginError, UsageError
from regionclip_cli.vision.backbones import build_backbone, build_clip
from regionclip_cli.vision.backbones.attention_pool import one_query_attention
from regionclip_cli.vision.backbones.folding import conv_norm, fold


@pytest.mark.parametrize("config", [RESNET, EFFICIENTNET, VIT])
def test_an_empty_model_that_is_filled_equals_the_original(config: dict) -> None:
    original = build_clip(config).eval()
    shake(original)
    empty = build_clip(config, empty=True).eval()
    assert all(parameter.is_meta for parameter in empty.parameters())
    weights = {key: value for key, value in original.state_dict().items() if "num_batches_tracked" not in key}
    empty.load_state_dict(weights, strict=False, assign=True)
    image, text = torch.randn(1, 3, 64, 64), torch.randint(1, 49408, (2, 77))
    with torch.no_grad():
        torch.testing.assert_close(empty.encode_image(image), original.encode_image(image))
        torch.testing.assert_close(empty.encode_text(text), original.encode_text(text))


def test_building_never_asks_for_pretrained_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    config = copy.deepcopy(EFFICIENTNET)
    config["vision_cfg"]["timm_model_pretrained"] = True
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was used"))
    build_clip(config)
    assert config["vision_cfg"]["timm_model_pretrained"] is True  # the caller's config is left alone


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (RESNET | {"text_cfg": {"hf_model_name": "someone/bert"}}, "text tower"),
        (RESNET | {"custom_text": True}, "text tower"),
        ({"vision_cfg": {}, "text_cfg": {}}, "cannot be built"),
        (RESNET | {"vision_cfg": {"wings": 2}}, "wings"),
    ],
)
def test_other_kinds_of_config_are_refused(config: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_clip(config)


def test_unknown_names_get_near_ones() -> None:
    with pytest.raises(UsageError, match="clip-rn50"):
        build_backbone("clip-rn5")


def test_an_attention_pool_has_one_grid_size() -> None:
    with pytest.raises(UsageError, match="4 x 4 cells, not 7"):
        build_backbone("clip-rn50", RESNET, pool_size=7)
    assert build_backbone("clip-rn50", RESNET).pool_size == 4


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("clip-rn50", VIT, "CLIP ResNet is needed here, not a VisionTransformer"),
        ("clip-vit-b-16", RESNET, "vision transformer is needed here, not a ModifiedResNet"),
        ("regionclip-tiny", RESNET, "timm tower is needed here, not a ModifiedResNet"),
        ("regionclip-tiny", EFFICIENTNET | {"vision_cfg": {"timm_model_name": "test_vit"}}, "VisionTransformer cannot"),
        ("clip-vit-b-16", VIT | {"vision_cfg": VIT["vision_cfg"] | {"attentional_pool": True}}, "dense tokens"),
    ],
)
def test_a_tower_of_another_family_is_refused(name: str, config: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_backbone(name, config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": 111}, "promises channels 111, but its network has 112"),
        ({"network": {"type": "nowhere.to.be.Found"}}, "cannot be imported"),
        ({"network": {"type": "pathlib.Path"}}, "not a Backbone"),
        ({"open_clip": "RN5000"}, "not installed"),
    ],
)
def test_a_spec_that_breaks_its_promise_is_the_plugins_fault(
    change: dict, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(plugins.find("backbones", "regionclip-tiny"), **change)
    monkeypatch.setattr(plugins, "find", lambda *_: spec)
    with pytest.raises(PluginError, match=words):
        build_backbone("regionclip-tiny")


def test_a_folded_norm_gives_the_same_values_and_gradients() -> None:
    conv, norm = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(5).eval()
    shake(norm)
    image = torch.randn(2, 3, 9, 9)
    plain, folded = norm(conv(image)), conv_norm(image, conv, norm)
    torch.testing.assert_close(folded, plain)
    (expected,) = torch.autograd.grad(plain.square().sum(), conv.weight)
    (found,) = torch.autograd.grad(folded.square().sum(), conv.weight)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="statistics"):
        fold(conv, nn.BatchNorm2d(5, affine=False))


def test_one_query_gives_the_same_values_and_gradients() -> None:
    pool = build_backbone("clip-rn50", RESNET).visual.attnpool
    shake(pool)
    cells = torch.randn(3, 256, 2, 2, requires_grad=True)
    wanted = [cells, *(p for name, p in pool.named_parameters() if not name.startswith("k_proj.bias"))]
    plain, short = pool(cells), one_query_attention(pool, cells)
    torch.testing.assert_close(short, plain, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(out.square().sum(), wanted) for out in (short, plain)]
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
