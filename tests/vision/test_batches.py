"""What a network makes of an image does not depend on the batch that it comes in."""

from __future__ import annotations

import pytest
import torch
from toys import build_detector, draw_shapes, image_sample

from regionclip_cli.vision.batches import groups_by_shape, run_by_shape, unpadded

SIZES = [(64, 96), (80, 64), (64, 96), (33, 47), (128, 64), (80, 64), (64, 96), (50, 110)]


def images() -> list[torch.Tensor]:
    return [torch.from_numpy(draw_shapes(seed, *size)[0]).permute(2, 0, 1) for seed, size in enumerate(SIZES)]


def predict(detector, batch: int) -> list:
    found = []
    for start in range(0, len(SIZES), batch):
        chosen = slice(start, start + batch)
        samples = [image_sample(*size) for size in SIZES[chosen]]
        found += detector.test_step({"inputs": images()[chosen], "data_samples": samples})
    return [sample.pred_instances for sample in found]


@pytest.mark.parametrize("family", ["resnet", "timm", "vit"])
@pytest.mark.parametrize("threads", [1, 2])
def test_detections_are_the_same_in_every_batch(family, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        detector = build_detector(family)
        alone = predict(detector, 1)
        for batch in (2, 3, 8):
            for one, other in zip(alone, predict(detector, batch), strict=True):
                assert torch.equal(one.labels, other.labels)
                torch.testing.assert_close(one.bboxes, other.bboxes, rtol=0, atol=1e-4)
                torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-4)
    finally:
        torch.set_num_threads(before)


def test_region_embeddings_do_not_depend_on_the_batch():
    detector = build_detector()
    boxes = [torch.tensor([[2.0, 3.0, 30.0, 25.0], [0.0, 0.0, 33.0, 40.0]])] * len(SIZES)
    together = detector.region_embeddings(images(), boxes)
    for image, its_boxes, expected in zip(images(), boxes, together, strict=True):
        torch.testing.assert_close(detector.region_embeddings([image], [its_boxes])[0], expected, rtol=0, atol=1e-5)


def test_groups_hold_equal_shapes_in_order():
    tensors = [torch.zeros(1, size) for size in (3, 4, 3, 3, 5)]
    assert groups_by_shape(tensors) == [[0, 2, 3], [1], [4]]
    assert groups_by_shape(tensors, largest=2) == [[0, 2], [1], [3], [4]]
    assert groups_by_shape([]) == []


def test_outputs_come_in_the_order_of_the_images():
    found = run_by_shape(lambda stacked: stacked.sum(dim=(1, 2, 3))[:, None], [image.float() for image in images()])
    assert [each.item() for each in found] == [image.float().sum().item() for image in images()]


def test_padding_is_cut_off():
    padded = torch.zeros(2, 3, 80, 96)
    cut = unpadded(padded, [image_sample(64, 96), image_sample(80, 64)])
    assert [tuple(image.shape) for image in cut] == [(3, 64, 96), (3, 80, 64)]
