from __future__ import annotations

import pytest
import torch
from torch import nn
from vision.backbones.backbone_toys import TOYS, toy_backbone

from regionclip_cli import plugins
from regionclip_cli.errors import UsageError
from regionclip_cli.vision.backbones import build_backbone
from regionclip_cli.vision.backbones.vit import attend_to_self

CUT = [family for family in TOYS if family != "vit"]


@pytest.mark.parametrize(
    "name", [name for name in plugins.names("backbones") if name.startswith(("clip", "regionclip"))]
)
def test_every_built_in_backbone_keeps_its_promises(name: str) -> None:
    spec = plugins.find("backbones", name)
    backbone = build_backbone(name, empty=True)
    found = (backbone.channels, backbone.stride, backbone.pool_size, backbone.embed_dim)
    assert found == (spec.channels, spec.stride, spec.pool_size, spec.embed_dim)
    assert tuple(backbone._pixel_mean) == spec.mean


@pytest.mark.parametrize("family", CUT)
def test_trunk_and_pool_together_are_the_tower(family: str) -> None:
    backbone = toy_backbone(family)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = backbone.trunk(images)
        assert features.shape == (2, backbone.channels, 4, 4)
        torch.testing.assert_close(backbone.pool(features), backbone.visual(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", list(TOYS))
def test_a_map_of_any_image_size_has_one_cell_per_stride(family: str) -> None:
    backbone = toy_backbone(family)
    with torch.no_grad():
        features = backbone.trunk(torch.randn(1, 3, 80, 96))
    assert features.shape == (1, backbone.channels, 5, 6)


def test_tiny_is_cut_before_its_last_two_blocks_and_keeps_open_clip_names() -> None:
    backbone = build_backbone("regionclip-tiny", pool_size=7)
    assert backbone.pool_size == 7
    keys = set(backbone.state_dict())
    assert {"visual.trunk.conv_stem.weight", "visual.trunk.bn2.weight", "visual.head.proj.weight"} <= keys
    assert all(key.startswith("visual.") for key in keys)
    trunk = backbone.visual.trunk
    assert backbone.early == tuple(trunk.blocks[:5])
    assert backbone.late == (*trunk.blocks[5:], trunk.conv_head, trunk.bn2)


@pytest.mark.parametrize("family", ["resnet", "efficientnet"])
def test_batch_norms_stay_frozen_in_training(family: str) -> None:
    backbone = toy_backbone(family).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.pool(backbone.trunk(torch.randn(2, 3, 64, 64))).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)


@pytest.mark.parametrize(
    ("family", "frozen", "trained"),
    [
        ("resnet", ("conv1.", "conv3.", "layer1."), ("layer2.", "layer4.", "attnpool.")),
        ("efficientnet", ("trunk.conv_stem.", "trunk.blocks.0."), ("trunk.blocks.1.", "head.")),
        ("convnext", ("trunk.stem.", "trunk.stages.0."), ("trunk.stages.1.", "trunk.head.", "head.")),
        ("vit", ("conv1.", "class_embedding", "transformer.resblocks.0."), ("transformer.resblocks.1.", "proj")),
    ],
)
def test_freezing_two_stages_leaves_the_rest_to_train(
    family: str, frozen: tuple[str, ...], trained: tuple[str, ...]
) -> None:
    backbone = toy_backbone(family)
    backbone.freeze(2)
    wanted = {name: p.requires_grad for name, p in backbone.visual.named_parameters() if "bn" not in name}
    for prefix in frozen:
        assert not any(grad for name, grad in wanted.items() if name.startswith(prefix)), prefix
    for prefix in trained:
        assert any(grad for name, grad in wanted.items() if name.startswith(prefix)), prefix


@pytest.mark.parametrize("family", list(TOYS))
def test_stages_hold_every_parameter_once(family: str) -> None:
    backbone = toy_backbone(family)
    listed = [id(parameter) for stage in backbone.stages() for parameter in stage]
    assert sorted(listed) == sorted(id(parameter) for parameter in backbone.parameters())
    with pytest.raises(UsageError, match="stages"):
        backbone.freeze(len(backbone.stages()) + 1)


def test_pixels_are_normalised_in_float32_and_come_in_the_type_of_the_weights() -> None:
    backbone = toy_backbone("efficientnet").to(torch.bfloat16)
    pixels = torch.tensor([0.0, 127.5, 255.0]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    scaled = backbone.normalise(pixels)
    assert scaled.dtype == torch.bfloat16
    expected = (torch.tensor([0.0, 0.5, 1.0]) - 0.498) / 0.502
    torch.testing.assert_close(scaled[0, 0, 0], expected.bfloat16(), rtol=0, atol=0)


def test_a_dense_token_attends_to_itself_only() -> None:
    block = toy_backbone("vit").visual.transformer.resblocks[-1]
    tokens = torch.randn(2, 5, 32)
    alone = torch.full((5, 5), float("-inf")).fill_diagonal_(0)
    torch.testing.assert_close(attend_to_self(block, tokens), block(tokens, attn_mask=alone), rtol=1e-4, atol=1e-5)


def test_vit_positions_follow_the_patches_to_other_sizes() -> None:
    backbone = toy_backbone("vit")
    ramp = torch.linspace(-1, 1, 4)
    with torch.no_grad():
        learned = torch.zeros(17, 32)
        learned[1:, 0], learned[1:, 1] = ramp.repeat_interleave(4), ramp.repeat(4)  # channel 0 rows, 1 columns
        backbone.visual.positional_embedding.copy_(learned)
        assert backbone._positions(4, 4) is backbone.visual.positional_embedding
        wide = backbone._positions(4, 8)[1:].unflatten(0, (4, 8))
    torch.testing.assert_close(wide[:, 0, 0], ramp, rtol=0, atol=0.02)
    assert (wide[0, :, 1].diff() > 0).all()


def test_vit_fills_up_images_that_are_no_multiple_of_its_patches() -> None:
    backbone = toy_backbone("vit")
    image = torch.randn(1, 3, 70, 90)
    filled = torch.zeros(1, 3, 80, 96)
    filled[..., :70, :90] = image
    with torch.no_grad():
        torch.testing.assert_close(backbone.trunk(image), backbone.trunk(filled))


def test_what_is_prepared_for_inference_follows_the_weights() -> None:
    backbone = toy_backbone("efficientnet")
    image = torch.randn(1, 3, 64, 64)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        plain = backbone.trunk(image).detach()  # with gradients, batch norms are run as they are
        with torch.no_grad():
            return backbone.trunk(image), plain

    first, plain = both()
    torch.testing.assert_close(first, plain, rtol=1e-4, atol=1e-5)
    names = set(backbone.state_dict())

    state = {key: value * 1.1 if value.is_floating_point() else value for key, value in backbone.state_dict().items()}
    backbone.visual.load_state_dict({key.removeprefix("visual."): value for key, value in state.items()})
    second, plain = both()
    torch.testing.assert_close(second, plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(second, first)

    backbone.train()
    with torch.no_grad():
        backbone.visual.trunk.conv_stem.weight.mul_(2)
    backbone.eval()
    third, plain = both()
    torch.testing.assert_close(third, plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(third, second)

    with torch.no_grad():
        assert backbone.to(torch.float64).trunk(image.double()).dtype == torch.float64
    assert set(backbone.state_dict()) == names
