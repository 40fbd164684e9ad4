"""What the pretrainer learns from, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pretraining_toys import ALL, CONCEPTS, batch, concepts, pretrainer, student, teacher, texts
from toys import DIM, image_sample

from regionclip_cli.errors import UsageError
from regionclip_cli.vision import losses
from regionclip_cli.vision.pretrainer import Objectives, RegionTextPretrainer
from regionclip_cli.vision.teacher import Knowledge, from_labels


def gradients(model: RegionTextPretrainer, images: torch.Tensor, samples: list) -> dict[str, torch.Tensor]:
    model.zero_grad()
    total, _ = model.parse_losses(model(images, samples, mode="loss"))
    total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_the_losses_are_those_of_the_paper() -> None:
    model = pretrainer()
    images, samples = batch()
    found = model(images, samples, mode="loss")
    assert set(found) == {"loss_region_text", "loss_distill", "loss_image_text", "regions"}
    known = model.keep(from_labels(samples, images.device))
    features = model.student.extract_feat(images, samples)
    regions = model.student.region_encoder(features, [its.boxes for its in known])
    targets = torch.cat([its.concepts[:, 0] for its in known])
    expected = losses.concept_contrastive(regions, concepts(), targets, 0.1)
    torch.testing.assert_close(found["loss_region_text"], expected)
    whole = model.student.region_encoder(features, [torch.tensor([[0.0, 0, 96, 64]])] * 4)
    captions = texts([sample.caption for sample in samples])
    torch.testing.assert_close(found["loss_image_text"], losses.image_text(whole, captions, 0.1))
    assert found["regions"] == len(targets) / 4


def test_weights_scale_losses_and_zero_leaves_them_out() -> None:
    images, samples = batch()
    one = pretrainer()(images, samples, mode="loss")
    half = pretrainer(replace(ALL, distill=0.5, region_text=0, image_text=0))(images, samples, mode="loss")
    assert set(half) == {"loss_distill", "regions"}
    torch.testing.assert_close(half["loss_distill"], one["loss_distill"] / 2)
    alone = pretrainer(replace(ALL, distill=0, region_text=0))(images, samples, mode="loss")
    assert set(alone) == {"loss_image_text"}
    torch.testing.assert_close(alone["loss_image_text"], one["loss_image_text"])


def test_only_what_is_not_frozen_learns() -> None:
    found = gradients(pretrainer(teacher=teacher()), *batch())
    assert any(name.startswith("student.backbone.visual.layer4") for name in found)
    assert any(name.startswith("student.backbone.visual.attnpool") for name in found)
    assert all(name.startswith("student.backbone.visual.") for name in found)
    frozen = ("conv1.", "conv2.", "conv3.", "bn1.", "bn2.", "bn3.", "layer1.")  # the stem and the first stage
    assert not any(name.startswith(f"student.backbone.visual.{part}") for name in found for part in frozen)
    assert all(value.isfinite().all() for value in found.values())


def test_regions_below_the_score_are_left_out_unless_all_are() -> None:
    def known(scores: list[float]) -> Knowledge:
        count = len(scores)
        return Knowledge(torch.zeros(count, 4), torch.zeros(count, 1, dtype=torch.long), torch.tensor(scores)[:, None])

    model = pretrainer(replace(ALL, min_score=0.3))
    kept = model.keep([known([0.2, 0.4]), known([0.1]), known([0.3, 0.9, 0.5])])
    assert [len(its.boxes) for its in kept] == [1, 0, 2]
    kept = model.keep([known([0.2, 0.1]), known([])])
    assert [len(its.boxes) for its in kept] == [2, 0]


def test_an_image_without_regions_is_no_trouble() -> None:
    images, samples = batch(2)
    for sample in samples:
        sample.regions = sample.regions[:0]
    for objectives in (ALL, replace(ALL, image_text=0)):
        found = gradients(pretrainer(objectives), images, samples)
        assert any(name.startswith("student.backbone.visual.layer4") for name in found)
        assert all(value.isfinite().all() for value in found.values())


def test_a_teacher_runs_along_and_draws_regions_by_the_seed() -> None:
    images, samples = batch(2)
    found = teacher()
    first, again = found(images, samples), found(images, samples)
    assert [its.boxes.shape for its in first] == [(4, 4)] * 2
    assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(first, again, strict=True))
    assert torch.allclose(first[0].full.sum(dim=1), torch.ones(4))
    assert torch.equal(first[0].full.argmax(dim=1), first[0].concepts[:, 0])
    samples[0].set_metainfo({"seed": 99})
    assert not torch.equal(found(images, samples)[0].boxes, first[0].boxes)
    losses_found = pretrainer(teacher=found)(images, samples, mode="loss")
    assert losses_found["loss_distill"] > 0
    assert not any(parameter.requires_grad for parameter in found.parameters())
    assert not found.train().training


def test_the_teacher_keeps_full_precision() -> None:
    images, samples = batch(2)
    found = teacher()
    full = found(images, samples)[0].full
    with torch.autocast("cpu", torch.bfloat16):
        same = found(images, samples)[0].full
    assert torch.equal(full, same)


def test_whole_image_region_is_the_image_or_the_canvas_of_the_batch() -> None:
    samples = [image_sample(40, 50), image_sample(64, 30), image_sample(10, 96)]
    images = [torch.zeros(3, *sample.img_shape) for sample in samples]
    valid = pretrainer().whole_images(images, samples)[0]
    padded = pretrainer(replace(ALL, whole_image="padded")).whole_images(images, samples)[0]
    assert valid.tolist() == [[0, 0, 50, 40]]
    assert padded.tolist() == [[0, 0, 96, 64]]


def test_activation_checkpointing_changes_memory_and_nothing_else() -> None:
    images, samples = batch()
    plain, saving = pretrainer(), pretrainer()
    saving.checkpoint_activations()
    expected, found = gradients(plain, images, samples), gradients(saving, images, samples)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    assert saved_bytes(saving, images, samples) < saved_bytes(plain, images, samples) / 2


def saved_bytes(model: RegionTextPretrainer, images: torch.Tensor, samples: list) -> int:
    """Return how much the forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        keep = model(images, samples, mode="loss")
    del keep
    return sum(kept.values())


def test_mixed_precision_gives_nearly_the_same_losses() -> None:
    images, samples = batch()
    full = pretrainer()(images, samples, mode="loss")
    with torch.autocast("cpu", torch.bfloat16):
        mixed = pretrainer()(images, samples, mode="loss")
    for name, value in full.items():
        assert mixed[name].dtype == torch.float32
        torch.testing.assert_close(mixed[name], value, rtol=0.05, atol=0.05)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="9 dimensions cannot teach a student of 16"):
        RegionTextPretrainer(student(), torch.randn(3, 9), Objectives(image_text=0))
    with pytest.raises(UsageError, match="needs a text encoder"):
        RegionTextPretrainer(student(), concepts())
    images, samples = batch(1)
    del samples[0].regions
    with pytest.raises(UsageError, match="without region labels"):
        pretrainer()(images, samples, mode="loss")
    assert concepts().shape == (CONCEPTS, DIM)
