from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torchvision.ops import roi_align
from vision.backbones.backbone_toys import TOYS, toy_backbone

from regionclip_cli.vision.region_encoder import RegionEncoder
from regionclip_cli.vision.roi_align import separable_roi_align


def random_boxes(count: int, width: float, height: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
    return (corners * torch.tensor([width, height])).flatten(1)


AWKWARD = torch.tensor(
    [
        [0.0, 0.0, 160.0, 112.0],  # the whole image
        [3.0, 5.0, 4.0, 6.0],  # inside one cell
        [40.0, 40.0, 40.0, 40.0],  # empty
        [60.0, 50.0, 20.0, 30.0],  # inside out
        [-90.0, -70.0, 30.0, 20.0],  # mostly beside the image
        [150.0, 100.0, 400.0, 300.0],
        [500.0, 500.0, 600.0, 600.0],  # beside the image
        [8.0, 8.0, 8.5, 112.0],
    ]
)


@pytest.mark.parametrize(("side", "average"), [(14, 1), (14, 2), (7, 7), (3, 1)])
def test_a_weighted_sum_is_roi_align(side: int, average: int) -> None:
    features = torch.randn(6, 7, 10)
    boxes = torch.cat([AWKWARD, random_boxes(30, 160, 112)])
    expected = functional.avg_pool2d(roi_align(features[None], [boxes], side, 1 / 16, 0, True), average)
    found = separable_roi_align(features.permute(1, 2, 0).contiguous(), boxes, 1 / 16, side, average)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-300, 500, allow_nan=False, width=32) for _ in range(4)]), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(1, 12),
    st.sampled_from([8, 16, 14]),
)
def test_a_weighted_sum_is_roi_align_for_any_box_and_map(
    boxes: list[tuple[float, ...]], height: int, width: int, stride: int
) -> None:
    features = torch.linspace(-1, 1, 2 * height * width).view(2, height, width).sin()
    placed = torch.tensor(boxes).unflatten(1, (2, 2)).sort(dim=1).values.flatten(1)
    expected = roi_align(features[None], [placed], 4, 1 / stride, 0, True)
    found = separable_roi_align(features.permute(1, 2, 0).contiguous(), placed, 1 / stride, 4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def test_a_box_that_is_inside_out_is_empty() -> None:
    boxes = torch.tensor([[60.0, 20.0, 20.0, 30.0], [20.0, 30.0, 60.0, 20.0]])
    assert separable_roi_align(torch.ones(7, 10, 3), boxes, 1 / 16, 4).eq(0).all()


def test_a_weighted_sum_has_the_gradient_of_roi_align() -> None:
    features = torch.randn(3, 7, 10, requires_grad=True)
    boxes = torch.cat([AWKWARD, random_boxes(5, 160, 112)])
    expected = roi_align(features[None], [boxes], 4, 1 / 16, 0, True)
    found = separable_roi_align(features.permute(1, 2, 0), boxes, 1 / 16, 4)
    (wanted,) = torch.autograd.grad(expected.square().sum(), features)
    (got,) = torch.autograd.grad(found.square().sum(), features)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [2, 60])  # few regions go round the map, many over it
@pytest.mark.parametrize("family", list(TOYS))
def test_the_fast_path_equals_the_plain_one(family: str, count: int) -> None:
    backbone = toy_backbone(family)
    boxes = [random_boxes(count, 160, 112), AWKWARD[:2], random_boxes(count, 160, 112, seed=1)]
    with torch.no_grad():
        features = backbone.trunk(torch.randn(3, 3, 112, 160))
        plain = RegionEncoder(backbone, path="plain")(features, boxes)
        assert plain.shape == (2 * count + 2, backbone.embed_dim)
        assert plain.std(dim=0).min() > 1e-4  # regions differ, or the comparison would say little
        for encoder in (RegionEncoder(backbone), RegionEncoder(backbone, chunk=7, path="fast")):
            torch.testing.assert_close(encoder(features, boxes), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", ["auto", "fast"])
@pytest.mark.parametrize("family", list(TOYS))
def test_gradients_are_those_of_the_plain_path(family: str, path: str) -> None:
    backbone = toy_backbone(family)
    parameters = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    image, boxes = torch.randn(1, 3, 112, 160), [random_boxes(30, 160, 112)]

    def gradients(which: str) -> tuple[torch.Tensor, ...]:
        embeddings = RegionEncoder(backbone, chunk=16, path=which)(backbone.trunk(image), boxes)
        return torch.autograd.grad(embeddings.square().mean(), parameters, allow_unused=True)

    for found, expected in zip(gradients(path), gradients("plain"), strict=True):
        if expected is not None and found is not None:  # the bias of the keys has no influence: one path never reads it
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6 + 1e-4 * float(expected.abs().max()))
        else:
            assert expected is None or expected.abs().max() < 1e-6


def test_many_regions_enter_layer4_on_the_map_and_few_do_not() -> None:
    backbone = toy_backbone("resnet")
    features = torch.zeros(1, 128, 7, 10)
    assert [len(backbone.plan(features, regions, True).grids) for regions in (1, 1000)] == [1, 2]
    assert len(backbone.plan(features, 1000, False).grids) == 1


def test_no_boxes_give_no_embeddings() -> None:
    backbone = toy_backbone("resnet")
    features = torch.zeros(2, 128, 4, 4)
    encoder = RegionEncoder(backbone)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert encoder(features, [torch.zeros(0, 4)] * 2).shape == (0, 16)
            assert encoder(features, [torch.zeros(0, 4), AWKWARD]).shape == (len(AWKWARD), 16)


def test_the_encoder_owns_no_parameters_so_that_names_stay_unique() -> None:
    assert not list(RegionEncoder(toy_backbone("vit")).parameters())


@pytest.mark.parametrize("family", list(TOYS))
def test_half_precision_stays_near_and_gives_float32(family: str) -> None:
    backbone = toy_backbone(family)
    image, boxes = torch.randn(1, 3, 112, 160), [random_boxes(40, 160, 112)]
    with torch.no_grad():
        exact = RegionEncoder(backbone)(backbone.trunk(image), boxes)
        backbone.to(torch.bfloat16)
        features = backbone.trunk(image.bfloat16())
        assert features.dtype == torch.bfloat16
        near = RegionEncoder(backbone)(features, boxes)
    assert near.dtype == torch.float32
    assert functional.cosine_similarity(near, exact).min() > 0.99
