"""The proposal network with several levels: it learns, respects what is ignored, and stays inside the image."""

from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import box_iou

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.feature_levels import Level, pack_levels
from regionclip_cli.vision.proposals import build_proposals
from regionclip_cli.vision.proposals.fpn_trunk import FpnTrunk

LEVELS = ((8, 4), (16, 6), (32, 8))
OBJECTS = [[8.0, 8.0, 40.0, 48.0], [60.0, 20.0, 120.0, 90.0]]


def network(**options: object) -> FpnTrunk:
    torch.manual_seed(0)
    made = build_proposals({"type": "fpn-trunk", "levels": LEVELS, "channels": 16, "num_convs": 1} | options)
    assert isinstance(made, FpnTrunk)
    return made


def features(images: int = 1, size: int = 128) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(images, c, size // stride, size // stride, generator=generator) for stride, c in LEVELS]
    return pack_levels(maps, [Level(*each) for each in LEVELS], 16)


def sample(
    height: int = 128, width: int = 128, boxes: list[list[float]] | None = None, ignored: InstanceData | None = None
) -> DetDataSample:
    made = DetDataSample(metainfo={"img_shape": (height, width)})
    objects = torch.tensor(OBJECTS if boxes is None else boxes).view(-1, 4)
    made.gt_instances = InstanceData(bboxes=objects, labels=torch.full((len(objects),), 7))
    if ignored is not None:
        made.ignored_instances = ignored
    return made


def propose(source: FpnTrunk, maps: Tensor, *samples: DetDataSample) -> list:
    return source.eval()(torch.zeros(len(samples), 3, 128, 128), samples, maps)


def test_it_learns_where_objects_are_and_ranks_them_first() -> None:
    source, maps, target = network().train(), features(), sample()
    optimiser = torch.optim.AdamW(source.parameters(), lr=1e-2)
    for _ in range(60):
        losses = source.loss(maps, [target])
        assert set(losses) == {"loss_objectness", "loss_proposal_box"}
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    for module in source.modules():  # statistics of one image: let inference see those of the last step
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    source.loss(maps, [target])
    (found,) = propose(source, maps, target)
    overlaps = box_iou(found.boxes[:2], torch.tensor(OBJECTS)).amax(dim=0)
    assert (overlaps > 0.8).all()
    assert torch.equal(found.logits, found.logits.sort(descending=True).values)


def test_all_of_it_learns() -> None:
    source = network().train()
    sum(source.loss(features(2), [sample(), sample()]).values()).backward()
    assert all(parameter.grad is not None for parameter in source.parameters())


def test_an_image_without_objects_teaches_background_alone() -> None:
    losses = network().train().loss(features(), [sample(boxes=[])])
    assert losses["loss_objectness"] > 0
    assert losses["loss_proposal_box"] == 0


@pytest.mark.parametrize(("crowd", "lower"), [(False, False), (True, True)])
def test_what_is_ignored_is_no_background(crowd: bool, lower: bool) -> None:
    """A crowd takes every prediction inside it out of the loss, another ignored box only those that look like it."""
    source, maps = network().train(), features()
    ignored = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 128.0, 128.0]]), crowd=torch.tensor([crowd]))
    plain = source.loss(maps, [sample(boxes=[])])["loss_objectness"]
    spared = source.loss(maps, [sample(boxes=[], ignored=ignored)])["loss_objectness"]
    assert (spared < 0.01 * plain) == lower
    assert (spared == plain) == (not lower)


def test_predictions_like_an_ignored_box_have_no_weight() -> None:
    source, maps = network().train(), features()
    _, distances = source.dense(maps)
    cell = source.head.prior_generator.grid_priors([(16, 16)] + [(1, 1)] * 3, device="cpu")[0][5 * 16 + 5]
    sides = distances[0][0, :, 5, 5]
    box = torch.cat([cell - sides[:2], cell + sides[2:]]).detach()[None]
    plain = source.loss(maps, [sample(boxes=[])])["loss_objectness"]
    spared = source.loss(maps, [sample(boxes=[], ignored=InstanceData(bboxes=box))])["loss_objectness"]
    assert spared < plain


def test_proposals_stay_inside_the_image_and_not_in_its_padding() -> None:
    small, large = propose(network(), features(2), sample(50, 70), sample())
    assert (small.boxes[:, 2] <= 70).all()
    assert (small.boxes[:, 3] <= 50).all()
    assert (small.boxes[:, 2:] > small.boxes[:, :2]).all()
    assert large.boxes[:, 2].max() > 70


def test_levels_suppress_one_another() -> None:
    (found,) = propose(network(nms_iou=0.5), features(), sample())
    overlaps = box_iou(found.boxes, found.boxes).fill_diagonal_(0)
    assert overlaps.max() <= 0.5


def test_settings_limit_what_is_proposed() -> None:
    source = network()
    source.configure(max_proposals=7)
    assert len(propose(source, features(), sample())[0].boxes) == 7


def test_a_trunk_with_one_map_gets_finer_and_coarser_levels() -> None:
    source = network(levels=[(16, 5)])
    logits, distances = source.dense(torch.randn(1, 5, 8, 8))
    assert [tuple(each.shape) for each in logits] == [(1, 1, side, side) for side in (16, 8, 4, 2)]
    assert [each.shape[1] for each in distances] == [4, 4, 4, 4]


@pytest.mark.parametrize("levels", [[(8, 4), (32, 4)], [(16, 4), (128, 4)]])
def test_levels_that_do_not_fit_are_refused(levels: list[tuple[int, int]]) -> None:
    with pytest.raises(UsageError):
        network(levels=levels)


def test_it_needs_the_trunks_features() -> None:
    with pytest.raises(ValueError, match="feature map"):
        network().dense(None)
    with pytest.raises(ValueError, match="channels"):
        network().dense(torch.zeros(1, 3, 8, 8))
