"""The classifier against scores worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.classifier import ConceptClassifier, calibrate, cosine, fuse, match_concepts


def classifier(embeddings, groups=None, num_classes=None, temperature=1.0) -> ConceptClassifier:
    made = ConceptClassifier(temperature)
    made.set_concepts(torch.tensor(embeddings), None if groups is None else torch.tensor(groups), num_classes)
    return made


def test_logits_are_cosines_over_temperature_and_a_zero_for_background():
    made = classifier([[2.0, 0.0], [3.0, 4.0]], temperature=0.5)
    logits = made(torch.tensor([[5.0, 0.0], [0.0, 0.1]]))
    torch.testing.assert_close(logits, torch.tensor([[2.0, 1.2, 0.0], [0.0, 1.6, 0.0]]))


def test_probabilities_are_the_softmax_without_its_background_column():
    made = classifier([[1.0, 0.0], [0.0, 1.0]])
    probabilities = made.probabilities(torch.tensor([[1.0, 0.0]]))
    total = math.e + 1 + 1
    torch.testing.assert_close(probabilities, torch.tensor([[math.e / total, 1 / total]]))


def test_the_best_phrase_speaks_for_its_class():
    made = classifier([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], groups=[0, 0, 1])
    logits = made(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    torch.testing.assert_close(logits, torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))


def test_phrases_of_a_class_need_not_be_neighbours():
    made = classifier([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], groups=[1, 0, 1])
    torch.testing.assert_close(made(torch.tensor([[-1.0, 0.0]])), torch.tensor([[0.0, 1.0, 0.0]]))


def test_distractors_take_their_share_and_are_not_reported():
    region = torch.tensor([[1.0, 0.2]])
    alone = classifier([[1.0, 0.0]]).probabilities(region)
    rivalled = classifier([[1.0, 0.0], [1.0, 0.2]], groups=[0, 1], num_classes=1)
    assert rivalled.probabilities(region).shape == (1, 1)
    assert rivalled(region).shape == (1, 3)
    assert rivalled.probabilities(region).item() < alone.item()


def test_zero_vectors_are_cosine_zero_and_never_nan():
    assert torch.equal(cosine(torch.zeros(2, 3), torch.randn(4, 3)), torch.zeros(2, 4))
    made = classifier([[0.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(made.probabilities(torch.zeros(1, 2)), torch.full((1, 2), 1 / 3))


def test_cosine_stays_in_float32_inside_autocast_and_for_bfloat16():
    regions, concepts = torch.randn(5, 64), torch.randn(7, 64)
    plain = cosine(regions, concepts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(cosine(regions, concepts), plain, rtol=0, atol=0)
    assert cosine(regions.bfloat16(), concepts).dtype == torch.float32


def test_classes_change_without_a_rebuild():
    made = classifier([[1.0, 0.0]])
    made.set_concepts(torch.randn(1500, 2))
    assert made(torch.randn(3, 2)).shape == (3, 1501)
    made.set_concepts(torch.randn(2, 8))
    assert made.probabilities(torch.randn(3, 8)).shape == (3, 2)


def test_concepts_are_not_weights():
    made = classifier([[1.0, 0.0]])
    assert not list(made.parameters())
    assert not made.state_dict()


@pytest.mark.parametrize(
    ("embeddings", "groups", "num_classes", "words"),
    [
        ([[1.0]], [0, 1], None, "group numbers"),
        ([[1.0], [1.0]], [0, 2], None, "needs a phrase"),
        ([[1.0], [1.0]], [0, 1], 3, "3 classes"),
        ([1.0], None, None, r"shape \(N, D\)"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(embeddings, groups, num_classes, words):
    with pytest.raises(UsageError, match=words):
        classifier(embeddings, groups, num_classes)


def test_no_concepts_and_another_dimension_are_refused():
    with pytest.raises(UsageError, match="no concepts"):
        ConceptClassifier()(torch.zeros(1, 2))
    with pytest.raises(UsageError, match="2 dimensions"):
        classifier([[1.0, 0.0]])(torch.zeros(1, 3))
    with pytest.raises(UsageError, match="temperature"):
        ConceptClassifier(temperature=0)


def test_match_concepts_has_no_background():
    matched = match_concepts(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), temperature=1.0)
    torch.testing.assert_close(matched, torch.tensor([[math.e, 1.0]]) / (math.e + 1))


def test_fusion_is_the_geometric_mean_with_objectness():
    p, logits = torch.tensor([[0.25, 1.0], [0.5, 0.5]]), torch.tensor([4.0, -2.0])
    torch.testing.assert_close(fuse(p, logits, "logit"), torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    sigmoid = torch.sigmoid(logits)
    torch.testing.assert_close(fuse(p, logits, "sigmoid"), torch.sqrt(p * sigmoid[:, None]))
    assert torch.equal(fuse(p, logits, "none"), p)
    assert torch.equal(fuse(p, None, "sigmoid"), p)
    with pytest.raises(UsageError, match="fusion"):
        fuse(p, logits, "product")


def test_sigmoid_scores_stay_between_zero_and_one():
    scores = fuse(torch.rand(50, 3), 100 * torch.randn(50))
    assert scores.isfinite().all()
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_calibration_keeps_the_ranking_and_stays_in_0_to_1():
    scores = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    found = calibrate(scores, 3.0, 1.0)
    assert (found.diff() > 0).all()
    assert 0 <= found[0] < 1e-3
    assert 1 - 1e-3 < found[-1] <= 1
    torch.testing.assert_close(found[2], torch.tensor(1.0).sigmoid())
    torch.testing.assert_close(calibrate(scores, 1.0, 0.0), scores, rtol=0, atol=1e-5)
