"""Four images in one square, with their boxes; the same seed gives the same square."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from box_toys import write_shapes

from regionclip_cli.data.detection_sets import DetectionSet, open_detection_set
from regionclip_cli.errors import UsageError
from regionclip_cli.training.augment import Augment, View, stitch, vary_colour
from regionclip_cli.training.dataset import TrainingImages

MOSAIC = Augment(mosaic=1.0, canvas=64, jitter=(0.8, 1.2))


@pytest.fixture
def shapes(tmp_path: Path) -> DetectionSet:
    return open_detection_set(write_shapes(tmp_path / "train", images=5))


def test_views_meet_at_the_centre() -> None:
    views = [View(torch.full((3, 4, 6), number, dtype=torch.uint8), (1.0, 1.0)) for number in range(1, 5)]
    canvas, corners = stitch(views, 20)
    assert corners == [(4, 6), (10, 6), (4, 10), (10, 10)]
    assert canvas[0, 9:11, 9:11].tolist() == [[1, 2], [3, 4]]
    assert not canvas[:, :6].any()


def test_a_mosaic_is_a_square_with_the_boxes_of_four_images(shapes: DetectionSet) -> None:
    images = TrainingImages(shapes, MOSAIC)
    first, again, other = images.draw(0, 3), images.draw(0, 3), images.draw(0, 4)
    assert first["inputs"].shape == (3, 64, 64)
    assert torch.equal(first["inputs"], again["inputs"])
    assert not torch.equal(first["inputs"], other["inputs"])
    boxes = first["data_samples"].gt_instances.bboxes
    assert len(boxes) == len(first["data_samples"].gt_instances.labels) > 0
    assert boxes.min() >= 0
    assert boxes.max() <= 64
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_crowds_are_told_apart(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "train", images=2)
    content = json.loads(Path(data.annotations).read_text())
    content["annotations"][0]["iscrowd"] = 1
    Path(data.annotations).write_text(json.dumps(content))
    shapes = open_detection_set(data)
    samples = [TrainingImages(shapes, Augment(short_sides=(64,)), crowds=True).draw(i, 0) for i in range(2)]
    ignored = [sample["data_samples"].ignored_instances for sample in samples]
    assert sum(map(len, ignored)) == 1
    assert all(each.crowd.all() for each in ignored)


def test_a_mosaic_has_no_masks(shapes: DetectionSet) -> None:
    with pytest.raises(UsageError):
        TrainingImages(shapes, MOSAIC, masks=True)


def test_colours_vary_by_the_factor_at_most() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    varied = [vary_colour(grey, 0.3, np.random.default_rng(seed)).mean() for seed in range(20)]
    assert min(varied) >= 69
    assert max(varied) <= 131
    assert len(set(varied)) > 5
