"""Which classes take part in a step."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import InstanceData
from toys import build_detector, image_sample

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.federated import FederatedClasses
from regionclip_cli.vision.roi_training import RoiTraining, Sampled, classification_loss


def test_what_the_batch_shows_takes_part_and_the_count_is_kept():
    drawn = FederatedClasses([100] * 20, count=5).draw(torch.tensor([3, 3, 17]))
    assert drawn.sum().item() == 5
    assert drawn[3]
    assert drawn[17]


def test_more_classes_in_the_batch_than_the_count_all_take_part():
    drawn = FederatedClasses([100] * 20, count=2).draw(torch.tensor([1, 2, 3]))
    assert drawn.nonzero().flatten().tolist() == [1, 2, 3]


def test_frequent_classes_are_drawn_by_the_root_of_their_images():
    torch.manual_seed(0)
    federated = FederatedClasses([900, 100, 0], count=1)
    times = torch.stack([federated.draw(torch.tensor([], dtype=torch.long)) for _ in range(2000)]).float().mean(0)
    assert times[0].item() == pytest.approx(0.75, abs=0.03)  # 30 : 10
    assert times[2].item() == 0


def test_the_softmax_is_over_what_was_drawn_and_the_background():
    federated = FederatedClasses([5, 5, 0, 0], count=2)
    logits = torch.tensor([[1.0, 2.0, 50.0, 50.0, 0.0], [0.5, 0.0, 50.0, 50.0, 3.0]], requires_grad=True)
    box = torch.zeros(2, 4)
    sampled = [Sampled(box, torch.tensor([1]), box[:1], torch.tensor([0]))]
    settings = RoiTraining(loss="weighted", background_weight=1.0)
    loss = classification_loss(logits, sampled, 4, settings, federated)
    alone = torch.nn.functional.cross_entropy(logits[:, [0, 1, 4]], torch.tensor([1, 2]))
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[:, 2:4].abs().sum() == 0


def test_a_detector_uses_it():
    detector = build_detector(classes=6).train()
    detector.federated = FederatedClasses([1] * 6, count=2)
    sample = image_sample(64, 96)
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[5.0, 5.0, 40.0, 40.0]]), labels=torch.tensor([1]))
    seen = []
    draw = detector.federated.draw
    detector.federated.draw = lambda labels: seen.append(draw(labels)) or seen[-1]
    losses = detector(torch.rand(1, 3, 64, 96) * 255, [sample], mode="loss")
    assert losses["loss_cls"].isfinite()
    assert seen[0].sum().item() == 2


def test_numbers_that_are_none_are_refused():
    with pytest.raises(UsageError, match="number of images"):
        FederatedClasses([3, -1])
