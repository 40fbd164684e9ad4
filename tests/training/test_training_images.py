"""Views of images, what is left out, and rare classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from box_toys import write_shapes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from toys import COLOURS

from regionclip_cli.data.detection_sets import open_detection_set
from regionclip_cli.errors import InputError, UsageError
from regionclip_cli.training.augment import Augment
from regionclip_cli.training.dataset import TrainingImages, with_objects
from regionclip_cli.training.masks import as_masks
from regionclip_cli.training.sampler import draw_epoch, repeat_factors


def test_a_view_keeps_pixels_and_boxes_together(tmp_path):
    images = open_detection_set(write_shapes(tmp_path))
    plain = TrainingImages(images, Augment((0,), 1000, 0.0)).draw(2, seed=1)
    mirrored = TrainingImages(images, Augment((0,), 1000, 1.0)).draw(2, seed=1)
    assert torch.equal(plain["inputs"].flip(2), mirrored["inputs"])
    width = plain["inputs"].shape[2]
    here, there = plain["data_samples"].gt_instances.bboxes, mirrored["data_samples"].gt_instances.bboxes
    torch.testing.assert_close(there, torch.stack([width - here[:, 2], here[:, 1], width - here[:, 0], here[:, 3]], 1))
    doubled = TrainingImages(images, Augment((128,), 1000, 0.0)).draw(2, seed=1)
    assert doubled["inputs"].shape == (3, 128, 192)
    torch.testing.assert_close(doubled["data_samples"].gt_instances.bboxes, here * 2)
    sample = doubled["data_samples"]
    assert sample.img_shape == (128, 192)
    assert sample.ori_shape == (64, 96)
    assert sample.scale_factor == (2.0, 2.0)
    assert sample.key == "2.png"
    assert doubled["inputs"].dtype == torch.uint8


def test_what_is_drawn_depends_on_the_seed_alone(tmp_path):
    images = TrainingImages(open_detection_set(write_shapes(tmp_path)), Augment((48, 64, 80), 200, 0.5))
    first = [images.draw(0, seed) for seed in range(40)]
    again = [images.draw(0, seed) for seed in range(40)]
    assert all(torch.equal(a["inputs"], b["inputs"]) for a, b in zip(first, again, strict=True))
    assert {item["inputs"].shape[1] for item in first} == {48, 64, 80}
    assert {item["data_samples"].flip for item in first} == {True, False}
    assert max(TrainingImages(images.images, Augment((500,), 200, 0.5)).draw(0, 0)["inputs"].shape) == 200


def test_masks_go_along(tmp_path):
    images = open_detection_set(write_shapes(tmp_path, masks=True))
    for flip in (0.0, 1.0):
        view = TrainingImages(images, Augment((128,), 1000, flip), masks=True).draw(0, 0)["data_samples"].gt_instances
        assert isinstance(view.masks, PolygonMasks)
        box, ring = view.bboxes[0].tolist(), view.masks.masks[0][0].reshape(-1, 2)
        middle = (box[0] + box[2]) / 2
        left, right = ring[:, 0].min(), ring[:, 0].max()
        assert (left, right) == pytest.approx((middle, box[2]) if flip else (box[0], middle), abs=1e-3)
    without = open_detection_set(write_shapes(tmp_path / "no"))
    with pytest.raises(UsageError, match="without masks"):
        TrainingImages(without, Augment(), masks=True).draw(0, 0)


def test_run_length_masks_become_bitmaps():
    square = [[2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]]
    counts = {"counts": [0, 16, 64 - 16], "size": [8, 8]}  # the two leftmost columns
    masks = as_masks([square, counts], 8, 8, "photo")
    assert isinstance(masks, BitmapMasks)
    assert masks.masks[0].sum() == 16
    assert masks.masks[1][:, :2].all()
    assert masks.masks[1].sum() == 16
    with pytest.raises(InputError, match="photo: object 1 has no mask"):
        as_masks([square, None], 8, 8, "photo")


def test_images_without_an_object_of_the_classes_and_crowds_are_left_out(tmp_path):
    data = write_shapes(tmp_path, images=8)
    content = json.loads(Path(data.annotations).read_text())
    for each in content["annotations"]:
        if each["image_id"] == 1:
            each["iscrowd"] = 1
    Path(data.annotations).write_text(json.dumps(content))
    images = open_detection_set(data)
    red = with_objects(images.subset(["red"]))
    names = {each["image_id"] for each in content["annotations"] if each["category_id"] == 10 and not each["iscrowd"]}
    assert [image.id for image in red] == sorted(names)
    assert 0 < len(red) < 8
    crowd = TrainingImages(images, Augment((0,), 1000, 0)).draw(0, 0)["data_samples"].gt_instances
    assert len(crowd.bboxes) == len(crowd.labels) == 0
    content["annotations"] = [each | {"iscrowd": 1} for each in content["annotations"]]
    Path(data.annotations).write_text(json.dumps(content))
    with pytest.raises(UsageError, match="no box of the 3 classes"):
        with_objects(open_detection_set(data))


def test_a_picture_of_another_size_is_refused(tmp_path):
    data = write_shapes(tmp_path)
    content = json.loads(Path(data.annotations).read_text())
    content["images"][0]["width"] = 97
    Path(data.annotations).write_text(json.dumps(content))
    images = TrainingImages(open_detection_set(data), Augment())
    with pytest.raises(InputError, match=r"0\.png has 96 x 64 pixels, and its annotations are for 97 x 64"):
        images.draw(0, 0)
    with pytest.raises(UsageError, match="one length"):
        TrainingImages(images.images, Augment(()))


def test_rare_classes_are_repeated_by_the_root(tmp_path):
    images = open_detection_set(write_shapes(tmp_path, images=30))
    counts = images.image_counts()
    factors = repeat_factors(images, threshold=1.0)
    for place, image in enumerate(images):
        expected = max(np.sqrt(30 / counts[label]) for label in image.labels)
        assert factors[place] == pytest.approx(expected)
    assert (repeat_factors(images, threshold=1e-6) == 1).all()


def test_an_epoch_rounds_by_chance_and_keeps_the_mean():
    factors = np.array([1.0, 2.5, 1.25])
    epochs = [draw_epoch(factors, np.random.default_rng([0, epoch])) for epoch in range(400)]
    times = np.array([np.bincount(epoch, minlength=3) for epoch in epochs])
    assert (times[:, 0] == 1).all()
    assert set(times[:, 1]) == {2, 3}
    assert times.mean(0) == pytest.approx(factors, abs=0.1)
    assert np.array_equal(epochs[7], draw_epoch(factors, np.random.default_rng([0, 7])))


def test_large_scale_jitter_cuts_a_square(tmp_path):
    images = open_detection_set(write_shapes(tmp_path, masks=True))
    views = TrainingImages(images, Augment(jitter=(0.5, 2.0), canvas=64, flip=0.5), masks=True)
    sizes, counts = set(), set()
    for seed in range(60):
        item = views.draw(3, seed)
        _, height, width = item["inputs"].shape
        found = item["data_samples"].gt_instances
        sizes.add((height, width))
        counts.add(len(found.labels))
        assert max(height, width) <= 64
        assert len(found.masks) == len(found.labels)
        x1, y1, x2, y2 = found.bboxes.unbind(1)
        assert ((x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height) & (x2 > x1) & (y2 > y1)).all()
        for box, label in zip(found.bboxes.round().int().tolist(), found.labels.tolist(), strict=True):
            if box[2] - box[0] > 8 and box[3] - box[1] > 8:  # the middle of a box has its colour
                colour = item["inputs"][:, (box[1] + box[3]) // 2, (box[0] + box[2]) // 2].int()
                assert (colour - torch.tensor(list(COLOURS.values())[label])).abs().max() < 12
    assert len(sizes) > 10
    assert counts == {1, 2}
    with pytest.raises(UsageError, match="jitter"):
        Augment(jitter=(2.0, 1.0))
