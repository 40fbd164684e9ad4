"""A proposal head that brings its own trunk along, and so proposes boxes for any model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from vision.backbones.backbone_toys import EFFICIENTNET, shake

from regionclip_cli.errors import UsageError
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.vision.backbones import build_backbone
from regionclip_cli.vision.model_io import load_detector
from regionclip_cli.vision.proposals import build_proposals
from regionclip_cli.vision.proposals.training import ProposalTraining

SIZE = (64, 96)


def head_config() -> dict[str, Any]:
    levels = [list(level) for level in build_backbone("tiny-pyramid", EFFICIENTNET).levels]
    return {"type": "fpn-trunk", "levels": levels, "channels": 16, "num_convs": 1, "max_proposals": 20}


def model_file(path: Path) -> Path:
    """Write a toy detector with a pyramid and `fpn-trunk`, made for images of 64 pixels."""
    torch.manual_seed(0)
    config = head_config()
    backbone, head = build_backbone("tiny-pyramid", EFFICIENTNET), build_proposals(config)
    shake(backbone), shake(head)
    card = ModelCard(
        name="lender",
        backbone="tiny-pyramid",
        clip=EFFICIENTNET,
        proposals=config,
        parts=("visual", "proposals"),
        short_side=64,
        max_side=128,
    )
    tensors = {f"clip.visual.{key}": value for key, value in backbone.visual.state_dict().items()}
    tensors |= {f"proposals.{key}": value for key, value in head.state_dict().items()}
    write_model(path, card, tensors)
    return path


def image_sample(height: int, width: int) -> DetDataSample:
    return DetDataSample(metainfo={"img_shape": (height, width)})


def test_a_borrower_gets_the_boxes_that_the_lender_proposes(tmp_path: Path) -> None:
    path = model_file(tmp_path / "lender.safetensors")
    lender, _ = load_detector(path)
    lent, _ = load_detector(path, proposals_from=path)
    assert type(lent.proposals) is type(lender.proposals)
    borrower, _ = load_detector(other_model(tmp_path / "other.safetensors"), proposals_from=path)
    images, samples = torch.rand(1, 3, *SIZE) * 255, [image_sample(*SIZE)]
    with torch.no_grad():
        expected = lender.propose(images, samples, lender.extract_feat(images, samples))[0]
        found = borrower.propose(images, samples, torch.zeros(0))[0]
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-3, atol=1e-3)


def other_model(path: Path) -> Path:
    torch.manual_seed(1)
    backbone = build_backbone("regionclip-tiny", EFFICIENTNET)
    card = ModelCard(name="other", backbone="regionclip-tiny", clip=EFFICIENTNET, parts=("visual",))
    write_model(path, card, {f"clip.visual.{k}": v for k, v in backbone.visual.state_dict().items()})
    return path


def test_it_works_at_its_own_size_and_answers_in_pixels_of_the_image() -> None:
    torch.manual_seed(0)
    source = build_proposals(
        {"type": "own-trunk", "backbone": "tiny-pyramid", "clip": EFFICIENTNET, "head": head_config(), "short_side": 32}
    )
    images = torch.zeros(1, 3, 160, 200)
    images[:, :, :128, :192] = 255
    (found,) = source(images, [image_sample(128, 192)])
    assert len(found.boxes)
    assert (found.boxes[:, 2] <= 192.001).all()
    assert found.boxes[:, 2].max() > 48
    assert not any(p.requires_grad for p in source.parameters())
    assert not source.train().training


def test_a_head_that_stands_on_nothing_is_refused() -> None:
    with pytest.raises(UsageError):
        build_proposals({"type": "own-trunk", "backbone": "tiny-pyramid", "head": {"type": "random"}})


def test_it_learns_with_its_trunk() -> None:
    torch.manual_seed(0)
    source = build_proposals(
        {"type": "own-trunk", "backbone": "tiny-pyramid", "clip": EFFICIENTNET, "head": head_config()}
    )
    source.learn(freeze=1)
    target = image_sample(*SIZE)
    target.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 60.0, 50.0]]), labels=torch.tensor([3]))
    model = ProposalTraining(source).train()
    losses = model(torch.rand(1, 3, *SIZE) * 255, [target], mode="loss")
    model.parse_losses(losses)[0].backward()
    learned = {name for name, p in source.named_parameters() if p.grad is not None}
    assert "head.neck.laterals.0.conv.weight" in learned
    assert any(name.startswith("trunk.trunk.blocks") for name in learned)
    assert not [name for name in learned if name.startswith("trunk.") and (".bn" in name or "conv_stem" in name)]
    assert not any(m.training for m in source.trunk.modules() if isinstance(m, torch.nn.BatchNorm2d))
