"""Every loss against an example worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from regionclip_cli.vision import losses

X, Y = [1.0, 0.0], [0.0, 1.0]


def test_distillation_is_the_kl_divergence_averaged_over_regions():
    regions, concepts = torch.tensor([X, X]), torch.tensor([X, Y])
    teacher = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    # Student: softmax([1, 0]) at temperature 1.
    p, q = math.e / (math.e + 1), 1 / (math.e + 1)
    first = -math.log(p)
    second = 0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / q)
    loss = losses.region_distillation(regions, concepts, teacher, temperature=1.0)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_distillation_is_zero_where_the_student_agrees():
    regions, concepts = torch.randn(6, 4), torch.randn(9, 4)
    teacher = (torch.nn.functional.normalize(regions) @ torch.nn.functional.normalize(concepts).T / 0.1).softmax(-1)
    assert losses.region_distillation(3 * regions, concepts, teacher, 0.1).item() == pytest.approx(0, abs=1e-6)


def test_regions_of_one_concept_are_positives_of_each_other():
    regions, concepts = torch.tensor([X, X, Y]), torch.tensor([X, Y])
    targets = torch.tensor([0, 0, 1])
    # Row X: columns X X Y have logits 1 1 0, of which two are right; row Y: 0 0 1, the last is right.
    row_x = -math.log(2 * math.e / (2 * math.e + 1))
    row_y = -math.log(math.e / (math.e + 2))
    loss = losses.concept_contrastive(regions, concepts, targets, temperature=1.0)
    assert loss.item() == pytest.approx((2 * row_x + row_y) / 3, abs=1e-6)


def test_contrast_of_a_single_concept_is_zero():
    loss = losses.concept_contrastive(torch.randn(4, 3), torch.randn(2, 3), torch.tensor([1, 1, 1, 1]))
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_image_text_loss_averages_both_directions():
    images, texts = torch.tensor([X, Y]), torch.tensor([X, X])
    # Images to texts: rows [1, 1] and [0, 0]; texts to images: rows [1, 0] and [1, 0].
    there = math.log(2)
    back = (-math.log(math.e / (math.e + 1)) - math.log(1 / (math.e + 1))) / 2
    assert losses.image_text(images, texts, 1.0).item() == pytest.approx((there + back) / 2, abs=1e-6)


def test_focal_scaling_weighs_the_unsure_and_averages_over_all_regions():
    logits = torch.tensor([[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0]])
    labels = torch.tensor([2, 0])
    background = 0.2 * math.sqrt(2 / 3) * math.log(3)
    foreground = math.sqrt(1 / 2) * math.log(2)
    loss = losses.focal_scaled_cross_entropy(logits, labels, gamma=0.5, background_weight=0.2)
    assert loss.item() == pytest.approx((background + foreground) / 2, abs=1e-6)


def test_focal_scaling_has_a_finite_gradient_where_a_region_is_certain():
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    losses.focal_scaled_cross_entropy(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_gamma_zero_is_cross_entropy():
    logits, labels = torch.randn(20, 5), torch.randint(5, (20,))
    loss = losses.focal_scaled_cross_entropy(logits, labels, gamma=0, background_weight=1.0)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, labels))


def test_weighted_cross_entropy_divides_by_the_weights():
    logits = torch.tensor([[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0]])
    labels = torch.tensor([2, 0])
    loss = losses.weighted_cross_entropy(logits, labels, background_weight=0.8)
    assert loss.item() == pytest.approx((0.8 * math.log(3) + math.log(2)) / 1.8, abs=1e-6)


def test_box_regression_divides_by_all_sampled_regions():
    deltas = torch.tensor([[0.5, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.25]])
    assert losses.box_regression(deltas, torch.zeros(2, 4), num_regions=7).item() == pytest.approx(1.75 / 7)


@pytest.mark.parametrize(
    "loss",
    [
        lambda e: losses.region_distillation(e, torch.randn(3, 4), torch.zeros(0, 3)),
        lambda e: losses.concept_contrastive(e, torch.randn(3, 4), torch.zeros(0, dtype=torch.long)),
        lambda e: losses.image_text(e, e),
        lambda e: losses.focal_scaled_cross_entropy(e, torch.zeros(0, dtype=torch.long)),
        lambda e: losses.weighted_cross_entropy(e, torch.zeros(0, dtype=torch.long)),
        lambda e: losses.box_regression(e, e.detach(), 0),
    ],
)
def test_no_region_is_a_zero_loss_that_can_be_differentiated(loss):
    empty = torch.zeros(0, 4, requires_grad=True)
    value = loss(empty)
    value.backward()
    assert value.item() == 0
