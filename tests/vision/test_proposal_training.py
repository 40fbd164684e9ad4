"""A proposal network learns alone, from pixels or from a detector's features."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import InstanceData
from toys import build_detector, image_sample

from regionclip_cli.conversion.imagenet_resnet import read_resnet
from regionclip_cli.errors import UsageError
from regionclip_cli.vision.proposals.build import build_proposals
from regionclip_cli.vision.proposals.training import ProposalTraining


def annotated():
    sample = image_sample(64, 96)
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[5.0, 5.0, 40.0, 40.0]]), labels=torch.tensor([7]))
    return sample


def test_a_network_on_pixels_learns_what_is_not_frozen():
    source = build_proposals({"type": "rpn-c4", "style": "pytorch"})
    source.learn(freeze=2, norms=False)
    model = ProposalTraining(source).train()
    losses = model(torch.rand(1, 3, 64, 96) * 255, [annotated()], mode="loss")
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_bbox"}
    model.parse_losses(losses)[0].backward()
    trained = {name for name, p in source.named_parameters() if p.grad is not None}
    assert "backbone.layer2.0.conv1.weight" in trained
    assert "rpn_head.rpn_cls.weight" in trained
    assert not [name for name in trained if ".bn" in name or "layer1" in name or "backbone.conv1" in name]
    assert not source.backbone.layer2[0].bn1.training


def test_a_network_that_begins_at_random_learns_its_norms_too():
    source = build_proposals({"type": "rpn-c4"})
    source.learn(freeze=0, norms=True)
    source.train()
    assert source.backbone.layer2[0].bn1.training
    assert source.backbone.layer2[0].bn1.weight.requires_grad
    with pytest.raises(UsageError, match="9 stages"):
        source.learn(freeze=9)


def test_what_it_learned_shows_in_its_proposals():
    source = build_proposals({"type": "rpn-c4"})
    source.learn(freeze=2, norms=False)
    model = ProposalTraining(source).eval()
    image = torch.rand(1, 3, 64, 96) * 255
    before = model(image, [annotated()], mode="predict")[0].pred_instances
    model.train()
    with torch.no_grad():
        source.rpn_head.rpn_cls.bias += 1.0
        source.backbone.layer3[0].conv1.weight *= 1.5
    after = model.eval()(image, [annotated()], mode="predict")[0].pred_instances
    assert after.scores.mean() > before.scores.mean()
    assert before.bboxes.shape[1] == 4


def test_a_network_that_was_not_told_to_learn_stays_frozen():
    source = build_proposals({"type": "rpn-c4"}).train()
    assert not source.training
    assert not any(p.requires_grad for p in source.parameters())


def test_a_head_on_a_trunk_learns_and_the_trunk_does_not():
    detector = build_detector()
    model = ProposalTraining(detector.proposals, detector).train()
    assert all(name.startswith("source.") for name in model.state_dict())
    losses = model(torch.rand(1, 3, 64, 96) * 255, [annotated()], mode="loss")
    model.parse_losses(losses)[0].backward()
    assert detector.proposals.rpn_head.rpn_cls.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in detector.backbone.parameters())
    found = model.eval()(torch.rand(1, 3, 64, 96) * 255, [annotated()], mode="predict")[0].pred_instances
    assert len(found.bboxes) == len(found.scores) > 0


def test_imagenet_weights_compute_what_they_did(tmp_path):
    """torchvision's ResNet-50 on normalised RGB, and ours on BGR minus mean, have the same third map."""
    from torchvision.models import resnet50

    theirs = resnet50(weights=None).eval()
    for norm in (m for m in theirs.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    source = build_proposals({"type": "rpn-c4", "style": "pytorch"})
    weights = read_resnet(tmp_path / "resnet50.pth", source.backbone.state_dict())
    source.backbone.load_state_dict(weights)

    image = torch.randint(0, 256, (1, 3, 64, 96)).float()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        x = (image / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        expected = theirs.layer3(theirs.layer2(theirs.layer1(x)))
        (ours,) = source.backbone(source.prepare(image))
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)

    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="ResNet-50"):
        read_resnet(tmp_path / "other.pth", source.backbone.state_dict())
