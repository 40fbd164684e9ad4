"""Proposal networks: their anchors, what they do with padding and precision, and a head that learns."""

from __future__ import annotations

import copy
import functools
import math

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import box_iou

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.proposals import ProposalSource, build_proposals
from regionclip_cli.vision.proposals.nms import Selection, select


def sample(height: int, width: int, boxes: list[list[float]] | None = None) -> DetDataSample:
    made = DetDataSample(metainfo={"img_shape": (height, width)})
    if boxes is not None:
        made.gt_instances = InstanceData(bboxes=torch.tensor(boxes).view(-1, 4), labels=torch.ones(len(boxes)).long())
    return made


def tamed(network: ProposalSource) -> ProposalSource:
    """Give a fresh network norms that do something, logits near one and boxes near their anchors."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    pixels = network.prepare(image(64, 96))
    maps = network.backbone(pixels) if network.neck is None else network.neck(network.backbone(pixels))
    for layer, spread in ((network.rpn_head.rpn_cls, 1.0), (network.rpn_head.rpn_reg, 0.2)):
        torch.nn.init.normal_(layer.weight, std=1e-3)
        dense = torch.cat([level.flatten() for level in network.rpn_head(maps)[layer is network.rpn_head.rpn_reg]])
        layer.weight.mul_(spread / dense.std())
    return network


@functools.cache
def network(kind: str) -> ProposalSource:
    """Build each network once: their backbones have twenty million weights."""
    with torch.no_grad():
        return tamed(build_proposals({"type": kind}))


@pytest.fixture
def fpn() -> ProposalSource:
    shared = network("rpn-fpn")
    shared.configure(nms_iou=0.7, pre_nms=1000, max_proposals=200)
    return shared


def image(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(7)) * 255


def detectron2_anchors(size: float) -> list[list[float]]:
    """Anchors of one size around the origin: area size^2, height by width 0.5, 1 and 2."""
    found = []
    for ratio in (0.5, 1.0, 2.0):
        width = math.sqrt(size**2 / ratio)
        height = ratio * width
        found.append([-width / 2, -height / 2, width / 2, height / 2])
    return found


@pytest.mark.parametrize("kind", ["rpn-fpn", "rpn-c4"])
def test_anchors_are_detectron2s(kind: str) -> None:
    generator = network(kind).rpn_head.prior_generator
    sizes = {"rpn-fpn": [[32], [64], [128], [256], [512]], "rpn-c4": [[32, 64, 128, 256, 512]]}[kind]
    assert [stride[0] for stride in generator.strides] == {"rpn-fpn": [4, 8, 16, 32, 64], "rpn-c4": [16]}[kind]
    for level, expected in zip(generator.base_anchors, sizes, strict=True):
        flat = torch.tensor([anchor for size in expected for anchor in detectron2_anchors(size)])
        torch.testing.assert_close(level, flat)


def test_lsj_has_norms_in_the_pyramid_and_two_convolutions() -> None:
    keys = set(network("rpn-fpn-lsj").state_dict())
    assert {"neck.lateral_convs.0.bn.weight", "rpn_head.rpn_conv.1.conv.weight"} <= keys
    assert "neck.lateral_convs.0.conv.bias" not in keys


@pytest.mark.parametrize("kind", ["rpn-fpn", "rpn-fpn-lsj", "rpn-c4"])
def test_networks_propose_inside_the_image(kind: str) -> None:
    network(kind).configure(max_proposals=50)
    (found,) = network(kind)(image(70, 100), [sample(70, 100)])
    assert found.boxes.shape == (len(found.logits), 4)
    assert 0 < len(found.boxes) <= 50
    assert (found.logits.diff() <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([100, 70, 100, 70])).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_folded_norms_change_nothing(fpn: ProposalSource) -> None:
    pixels = fpn.prepare(image(64, 96))
    plain = fpn.neck(fpn.backbone(pixels))
    fpn(image(64, 96), [sample(64, 96)])
    backbone, neck = fpn._folded
    assert backbone is not fpn.backbone
    for ours, theirs in zip(neck(backbone(pixels)), plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_loading_weights_after_a_run_counts() -> None:
    c4 = network("rpn-c4")
    first = c4(image(64, 96), [sample(64, 96)])[0]
    weights = {name: weight.clone() for name, weight in c4.state_dict().items()}
    c4.load_state_dict({name: -w if name == "backbone.conv1.weight" else w for name, w in weights.items()})
    second = c4(image(64, 96), [sample(64, 96)])[0]
    c4.load_state_dict(weights)
    third = c4(image(64, 96), [sample(64, 96)])[0]
    assert not torch.equal(second.logits[:5], first.logits[:5])
    assert torch.equal(third.logits, first.logits)


def test_what_lies_around_an_image_does_not_matter(fpn: ProposalSource) -> None:
    alone = fpn(image(64, 90), [sample(64, 90)])[0]
    batch = torch.full((2, 3, 128, 160), 99.0)
    batch[0, :, :64, :90] = image(64, 90)[0]
    batch[1, :, :60, :96] = image(60, 96)[0]
    for found in (fpn(batch[:1], [sample(64, 90)])[0], fpn(batch, [sample(64, 90), sample(60, 96)])[0]):
        torch.testing.assert_close(found.boxes, alone.boxes, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(found.logits, alone.logits, rtol=1e-3, atol=1e-3)
    neighbour = fpn(batch, [sample(64, 90), sample(60, 96)])[1]
    assert neighbour.boxes.max(dim=0).values.tolist()[2:] == [96, 60]


def test_bf16_finds_the_same(fpn: ProposalSource) -> None:
    exact = fpn(image(64, 96), [sample(64, 96)])[0]
    rough = copy.deepcopy(fpn).to(torch.bfloat16)(image(64, 96), [sample(64, 96)])[0]
    assert rough.boxes.dtype == rough.logits.dtype == torch.float32
    assert (box_iou(exact.boxes[:20], rough.boxes).max(dim=1).values > 0.8).float().mean() > 0.8
    torch.testing.assert_close(rough.logits[:20], exact.logits[:20], rtol=0.1, atol=0.1)


def test_switches_decide_what_survives(fpn: ProposalSource) -> None:
    fpn.configure(nms_iou=0.3, pre_nms=40, max_proposals=30)
    strict = fpn(image(64, 96), [sample(64, 96)])[0].boxes
    assert len(strict) <= 30
    fpn.configure(nms_iou=0.9)
    assert fpn.selection == Selection(0.9, 40, 30)
    loose = fpn(image(64, 96), [sample(64, 96)])[0].boxes
    assert len(strict) < len(loose) <= 30
    with pytest.raises(UsageError, match=r"between 0 and 1, not 7"):
        fpn.configure(nms_iou=7)
    with pytest.raises(UsageError, match="At least one"):
        build_proposals({"type": "rpn-fpn", "max_proposals": 0})


def test_logits_beyond_the_sigmoid_keep_their_order() -> None:
    head = build_proposals({"type": "rpn-trunk", "channels": 4, "sizes": [32], "ratios": [1.0]}).rpn_head
    logits = torch.tensor([[[[30.0, 60.0], [-50.0, 45.0]]]])
    (found,) = select(head, [logits], [torch.zeros(1, 4, 2, 2)], [(32, 32)], Selection(1.0))
    assert found.logits.tolist() == [60.0, 45.0, 30.0, -50.0]


def test_sizes_are_limited_and_nonsense_is_dropped() -> None:
    head = build_proposals({"type": "rpn-trunk", "channels": 4, "sizes": [16], "ratios": [1.0]}).rpn_head
    deltas = torch.zeros(1, 4, 1, 3)
    deltas[0, 2:, 0, 0] = 50.0  # As wide and high as it gets: 1000 / 16 times the anchor.
    deltas[0, 0, 0, 1] = torch.nan
    deltas[0, 0, 0, 2] = -100.0  # Left of the image: empty once clipped.
    (found,) = select(head, [torch.tensor([[[[1.0, 2.0, 3.0]]]])], [deltas], [(4000, 4000)], Selection())
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0, 500, 500]]))


def test_frozen_networks_stay_frozen(fpn: ProposalSource) -> None:
    fpn.train()
    assert not any(module.training for module in fpn.modules())
    assert not any(parameter.requires_grad for parameter in fpn.parameters())
    assert not hasattr(fpn, "loss")


def test_the_head_on_the_trunk_learns() -> None:
    torch.manual_seed(0)
    head = build_proposals({"type": "rpn-trunk", "channels": 8, "feat_channels": 16, "sizes": [32], "ratios": [1.0]})
    features = torch.zeros(2, 8, 6, 6)
    features[0, 0, 2, 3] = features[1, 0, 4, 1] = 5.0
    boxes = [[32.0, 16, 64, 48]], [[0.0, 48, 32, 80]]
    samples = [sample(96, 96, each) for each in boxes]
    optimiser = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(40):
        losses = head.loss(features, samples)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_bbox"}
    assert sum(losses.values()) < 0.3
    for found, expected in zip(head(torch.zeros(2, 3, 96, 96), samples, features), boxes, strict=True):
        assert box_iou(found.boxes[:1], torch.tensor(expected)) > 0.7


def test_images_without_objects_can_be_learned_from() -> None:
    head = build_proposals({"type": "rpn-trunk", "channels": 8, "sizes": [32]})
    losses = head.loss(torch.randn(1, 8, 4, 4), [sample(64, 64, [])])
    assert losses["loss_rpn_bbox"] == 0
    assert torch.isfinite(losses["loss_rpn_cls"])
    sum(losses.values()).backward()


def test_the_head_on_the_trunk_needs_it() -> None:
    head = build_proposals({"type": "rpn-trunk", "channels": 8})
    assert head.needs_features
    with pytest.raises(ValueError, match="needs the trunk's feature map"):
        head(image(32, 32), [sample(32, 32)], None)
