"""Boxes without a network, and sources by name."""

from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.proposals import build_proposals

IMAGES = torch.zeros(2, 3, 64, 128)


def samples(*sizes: tuple[int, int]) -> list[DetDataSample]:
    return [DetDataSample(metainfo={"img_shape": size}) for size in sizes]


def test_given_boxes_keep_their_order_and_number() -> None:
    (one,) = samples((64, 128))
    one.proposals = InstanceData(bboxes=torch.tensor([[5, 5, 9, 9], [0, 0, 128, 64], [5, 5, 9, 9]]))
    source = build_proposals({"type": "given"})
    source.configure(max_proposals=1, nms_iou=0.1)
    (found,) = source(IMAGES[:1], [one], None)
    assert found.boxes.tolist() == [[5, 5, 9, 9], [0, 0, 128, 64], [5, 5, 9, 9]]
    assert found.boxes.dtype == torch.float32
    assert found.logits is None


def test_given_scores_become_finite_logits() -> None:
    (one,) = samples((64, 128))
    one.proposals = InstanceData(bboxes=torch.zeros(3, 4), scores=torch.tensor([0.25, 1.0, 0.0]))
    (found,) = build_proposals({"type": "given"})(IMAGES[:1], [one], None)
    assert torch.isfinite(found.logits).all()
    torch.testing.assert_close(found.logits.sigmoid(), one.proposals.scores)


def test_given_boxes_must_be_given() -> None:
    with pytest.raises(UsageError, match="none were given"):
        build_proposals({"type": "given"})(IMAGES[:1], samples((64, 128)), None)


def test_random_boxes_are_one_draw_for_the_batch() -> None:
    source = build_proposals({"type": "random", "count": 200, "seed": 3}).eval()
    small, large = source(IMAGES, samples((64, 64), (64, 128)), None)
    torch.testing.assert_close(small.boxes * torch.tensor([2.0, 1, 2, 1]), large.boxes)
    assert torch.equal(small.boxes % 8, torch.zeros(200, 4))  # Corners lie on an 8 x 8 grid.
    assert (small.boxes[:, 2:] > small.boxes[:, :2]).all()
    assert small.boxes.min() == 0
    assert small.boxes.max() == 64
    assert len(small.boxes.unique(dim=0)) > 150


def test_random_boxes_repeat_in_evaluation_and_change_in_training() -> None:
    source = build_proposals({"type": "random"}).eval()
    draw = [source(IMAGES[:1], samples((64, 64)), None)[0].boxes for _ in range(2)]
    assert torch.equal(*draw)
    source.train()
    draw = [source(IMAGES[:1], samples((64, 64)), None)[0].boxes for _ in range(2)]
    assert not torch.equal(*draw)
    other = build_proposals({"type": "random", "seed": 1}).eval()
    assert not torch.equal(draw[0], other(IMAGES[:1], samples((64, 64)), None)[0].boxes)


def test_random_boxes_can_be_fewer() -> None:
    source = build_proposals({"type": "random", "count": 10})
    source.configure(max_proposals=4)
    assert len(source(IMAGES[:1], samples((64, 64)), None)[0].boxes) == 4


def test_grid_boxes_tile_the_image() -> None:
    (found,) = build_proposals({"type": "grid", "cells": [1, 2]})(IMAGES[:1], samples((64, 128)), None)
    assert found.boxes.tolist() == [
        [0, 0, 128, 64],
        [0, 0, 64, 32],
        [64, 0, 128, 32],
        [0, 32, 64, 64],
        [64, 32, 128, 64],
    ]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"type": "rpn-fpm"}, ["'rpn-fpm'", "Did you mean 'rpn-fpn'"]),
        ({}, ["None", "Known are rpn-fpn"]),
        ({"type": "rpn-trunk"}, ["'channels'", "It takes channels, feat_channels"]),
        ({"type": "given", "count": 3}, ["'count'", "It takes no options"]),
        ({"type": "random", "count": 0}, ["at least one box"]),
        ({"type": "grid", "cells": []}, ["at least one cell"]),
    ],
)
def test_wrong_configs_are_explained(config: dict, words: list[str]) -> None:
    with pytest.raises(UsageError) as failure:
        build_proposals(config)
    for word in words:
        assert word in str(failure.value)
