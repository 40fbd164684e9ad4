"""Regions as pictures of their own, held against open_clip's own way to prepare pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from toys import DIM, VISION, Family, draw_shapes, toy_clip

from regionclip_cli.vision.backbones import Backbone, build_backbone
from regionclip_cli.vision.crop_encoder import CropEncoder, whole_pixels


def toy(family: Family) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(VISION[family][0], toy_clip(family)).eval()


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return toy("timm")


PIXELS = draw_shapes(height=120, width=150)[0]
IMAGE = torch.from_numpy(PIXELS).permute(2, 0, 1)
BOXES = torch.tensor([[10.0, 20.0, 110.0, 120.0], [3.2, 4.7, 40.0, 100.4], [0.0, 0.0, 150.0, 120.0]])


@pytest.mark.parametrize("family", ["resnet", "timm", "vit"])
@torch.no_grad()
def test_a_crop_is_what_open_clip_makes_of_it(family: Family) -> None:
    network = toy(family)
    mean, std = tuple(network.mean.flatten().tolist()), tuple(network.std.flatten().tolist())
    squash = image_transform_v2(PreprocessCfg(64, mean=mean, std=std, resize_mode="squash"), is_train=False)
    corners = [(10, 20, 110, 120), (3, 4, 40, 101), (0, 0, 150, 120)]
    prepared = torch.stack([squash(Image.fromarray(PIXELS).crop(corner)) for corner in corners])
    encoder = CropEncoder(network).eval()
    ours = network.normalise(torch.stack([encoder.crop(IMAGE, *corner) for corner in corners]))
    assert (ours - prepared).abs().max() < 1.5 / 255 / min(std)  # a grey value, where filters round differently
    found = encoder(IMAGE, BOXES)
    assert found.shape == (3, DIM)
    expected = network.visual(prepared)
    assert torch.cosine_similarity(found, expected).min() > 0.9995
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * float(expected.abs().max()))


@torch.no_grad()
def test_a_square_crop_is_open_clips_default_too(backbone: Backbone) -> None:
    mean, std = tuple(backbone.mean.flatten().tolist()), tuple(backbone.std.flatten().tolist())
    default = image_transform_v2(PreprocessCfg(64, mean=mean, std=std), is_train=False)
    expected = default(Image.fromarray(PIXELS).crop((10, 20, 110, 120)))
    ours = backbone.normalise(CropEncoder(backbone).crop(IMAGE, 10, 20, 110, 120)[None])[0]
    assert (ours - expected).abs().max() < 1.5 / 255 / min(std)


@torch.no_grad()
def test_number_types_and_chunks_change_nothing(backbone: Backbone) -> None:
    whole = CropEncoder(backbone)(IMAGE, BOXES)
    torch.testing.assert_close(CropEncoder(backbone, chunk=2)(IMAGE, BOXES), whole)
    floats = CropEncoder(backbone)(IMAGE.float(), BOXES)
    assert torch.cosine_similarity(floats, whole).min() > 0.999


@torch.no_grad()
def test_overshooting_stays_a_pixel(backbone: Backbone) -> None:
    edge = torch.zeros(3, 20, 20)
    edge[:, :, 10:] = 255
    crop = CropEncoder(backbone).crop(edge, 0, 0, 20, 20)
    assert (crop.min(), crop.max()) == (0, 255)


@torch.no_grad()
def test_bfloat16(backbone: Backbone) -> None:
    exact = CropEncoder(backbone)(IMAGE, BOXES)
    half = CropEncoder(toy("timm").to(torch.bfloat16))(IMAGE, BOXES)
    assert half.dtype == torch.float32
    assert torch.cosine_similarity(half, exact).min() > 0.98


@pytest.mark.parametrize("family", ["resnet", "timm"])
def test_the_quick_copy_computes_what_the_tower_does(family: Family) -> None:
    network = toy(family)
    for name, buffer in network.visual.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 2)
    encoder = CropEncoder(network)
    with torch.no_grad():
        quick = encoder(IMAGE, BOXES)
    torch.testing.assert_close(quick, encoder(IMAGE, BOXES).detach(), rtol=1e-3, atol=1e-4)
    assert encoder(IMAGE, BOXES).requires_grad
    network.double()
    with torch.no_grad():
        assert encoder(IMAGE, BOXES).isfinite().all()


@torch.no_grad()
def test_another_side(backbone: Backbone) -> None:
    encoder = CropEncoder(backbone, side=32)
    assert encoder.crop(IMAGE, 0, 0, 9, 9).shape == (3, 32, 32)
    assert encoder(IMAGE, BOXES).shape == (3, DIM)


@torch.no_grad()
def test_no_boxes(backbone: Backbone) -> None:
    found = CropEncoder(backbone)(IMAGE, torch.zeros(0, 4))
    assert found.shape == (0, DIM)
    assert found.dtype == torch.float32


def test_every_box_has_a_pixel() -> None:
    boxes = torch.tensor(
        [
            *([-5.0, -5.0, 4.2, 3.0], [7.5, 2.5, 7.5, 2.5], [99.0, 99.0, 120.0, 130.0], [-9.0, -9.0, -3.0, -2.0]),
            *([6.0, 6.0, 2.0, 2.0], [1.999, 2.0, 4.002, 5.02], [float("nan"), 0.0, 3.0, float("inf")]),
        ]
    )
    found = whole_pixels(boxes, 8, 10)
    assert found.tolist()[:3] == [[0, 0, 5, 3], [7, 2, 8, 3], [9, 7, 10, 8]]
    assert found.tolist()[3:6] == [[0, 0, 1, 1], [6, 6, 7, 7], [2, 2, 4, 6]]
    assert (found[:, 2:] > found[:, :2]).all()
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= torch.tensor([10, 8])).all()


def test_the_backbone_stays_the_callers(backbone: Backbone) -> None:
    encoder = CropEncoder(backbone)
    assert not list(encoder.parameters())
    assert encoder.backbone is backbone
    assert np.prod(encoder.size) == 64 * 64
