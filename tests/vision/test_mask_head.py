"""Masks: the head's shape, its targets, and masks laid back into an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData
from toys import build_detector, image_sample

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.mask_head import RegionMaskHead, mask_loss, paste_masks
from regionclip_cli.vision.roi_training import Sampled


def one_object(masks) -> tuple[Sampled, object]:
    sample = image_sample(32, 32)
    sample.gt_instances = InstanceData(masks=masks)
    box = torch.tensor([[8.0, 8.0, 24.0, 24.0]])
    return Sampled(box, torch.tensor([0]), box, torch.tensor([0])), sample


def test_one_mask_of_twice_the_resolution_for_any_class():
    head = RegionMaskHead(12, width=6)
    assert head(torch.randn(5, 12, 7, 7)).shape == (5, 14, 14)
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == {
        "deconv.weight": (12, 6, 2, 2),
        "deconv.bias": (6,),
        "predictor.weight": (1, 6, 1, 1),
        "predictor.bias": (1,),
    }


@pytest.mark.parametrize("kind", ["polygon", "bitmap"])
def test_the_target_is_the_objects_mask_inside_the_box(kind):
    left = np.zeros((1, 32, 32), np.uint8)
    left[:, 8:24, 8:16] = 1  # the left half of the box
    polygon = [[np.array([8, 8, 16, 8, 16, 24, 8, 24], np.float64)]]
    sampled, sample = one_object(BitmapMasks(left, 32, 32) if kind == "bitmap" else PolygonMasks(polygon, 32, 32))
    right = torch.zeros(1, 14, 14)
    right[:, :, :7] = 20
    right[:, :, 7:] = -20
    assert mask_loss(right, [sampled], [sample]).item() < 0.01
    assert mask_loss(-right, [sampled], [sample]).item() > 15


def test_no_object_is_a_zero_loss_and_no_masks_is_a_sentence():
    empty = torch.zeros(0, 14, 14, requires_grad=True)
    assert mask_loss(empty, [], []).item() == 0
    sampled, sample = one_object(BitmapMasks(np.ones((1, 32, 32), np.uint8), 32, 32))
    del sample.gt_instances.masks
    sample.set_metainfo({"key": "photo 7"})
    with pytest.raises(UsageError, match="photo 7 comes without masks"):
        mask_loss(torch.zeros(1, 14, 14), [sampled], [sample])


def test_a_mask_is_stretched_to_its_box():
    logits = torch.full((1, 4, 4), -9.0)
    logits[:, :, :2] = 9.0
    drawn = paste_masks(logits, torch.tensor([[4.0, 2.0, 12.0, 10.0]]), 12, 16)
    expected = torch.zeros(1, 12, 16, dtype=torch.bool)
    expected[:, 2:10, 4:8] = True
    assert torch.equal(drawn, expected)


def test_more_masks_than_are_drawn_together():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).repeat(40, 1)
    assert paste_masks(torch.full((40, 4, 4), 9.0), boxes, 8, 8).sum().item() == 40 * 16
    assert paste_masks(torch.zeros(0, 4, 4), boxes[:0], 8, 8).shape == (0, 8, 8)


@pytest.mark.parametrize("family", ["resnet", "timm", "vit"])
def test_a_detector_learns_and_predicts_masks(family):
    detector = build_detector(family, mask_head=True, box_head=True, test_cfg={"conf": 0.0, "max_dets": 7}).train()
    sample = image_sample(64, 96, ori_shape=(128, 192), scale_factor=(0.5, 0.5))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[5.0, 5.0, 40.0, 40.0]]),
        labels=torch.tensor([1]),
        masks=BitmapMasks(np.ones((1, 64, 96), np.uint8), 64, 96),
    )
    image = torch.rand(1, 3, 64, 96) * 255
    losses = detector(image, [sample], mode="loss")
    assert losses["loss_mask"].item() == pytest.approx(np.log(2), rel=0.1)
    detector.parse_losses(losses)[0].backward()
    assert detector.mask_head.predictor.weight.grad.abs().sum() > 0
    detector.eval()
    (found,) = detector(image, [sample], mode="predict")
    assert found.pred_instances.masks.shape == (7, 128, 192)
    assert found.pred_instances.masks.dtype == torch.bool


@pytest.mark.parametrize("family", ["resnet", "timm", "vit"])
def test_embeddings_of_shared_maps_are_the_embeddings(family):
    detector = build_detector(family)
    boxes = [torch.tensor([[5.0, 5.0, 40.0, 40.0], [0.0, 10.0, 90.0, 60.0]])]
    with torch.no_grad():
        features = detector.extract_feat(torch.rand(1, 3, 64, 96) * 255)
        maps = detector.region_encoder.maps(features, boxes)
        shared = detector.backbone.embed_maps(maps)
        torch.testing.assert_close(shared, detector.region_encoder(features, boxes), rtol=1e-4, atol=1e-5)
