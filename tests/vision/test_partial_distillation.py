"""Distilling from a teacher's best concepts alone."""

from __future__ import annotations

import pytest
import torch

from regionclip_cli.vision.losses import concept_contrastive, partial_distillation, region_distillation

R, C, D = 5, 12, 8


def made(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    regions = torch.randn(R, D, generator=generator).requires_grad_()
    concepts = torch.randn(C, D, generator=generator)
    teacher = (3 * torch.randn(R, C, generator=generator)).softmax(dim=1)
    return regions, concepts, teacher


def test_with_all_concepts_it_is_the_full_loss() -> None:
    regions, concepts, teacher = made()
    probs, best = teacher.topk(C, dim=1)
    part = partial_distillation(regions, concepts, best, probs, 0.1)
    full = region_distillation(regions, concepts, teacher, 0.1)
    torch.testing.assert_close(part, full)
    torch.testing.assert_close(*(torch.autograd.grad(loss, regions)[0] for loss in (part, full)))


@pytest.mark.parametrize("k", [1, 3, C - 1])
def test_it_is_the_divergence_of_the_best_and_the_rest(k: int) -> None:
    regions, concepts, teacher = made(k)
    probs, best = teacher.topk(k, dim=1)
    student = (
        torch.nn.functional.cosine_similarity(regions.detach()[:, None], concepts[None], dim=2).div(0.1).softmax(dim=1)
    )
    expected = 0.0
    for row in range(R):
        p = [float(student[row, concept]) for concept in best[row]]
        q = [float(prob) for prob in probs[row]]
        for ours, theirs in zip([*p, 1 - sum(p)], [*q, 1 - sum(q)], strict=True):
            expected += theirs * torch.log(torch.tensor(theirs / ours)).item() / R
    part = partial_distillation(regions, concepts, best, probs, 0.1)
    assert part.item() == pytest.approx(expected, rel=1e-4)
    assert part.item() <= region_distillation(regions, concepts, teacher, 0.1).item() + 1e-6


def test_more_concepts_never_know_less() -> None:
    regions, concepts, teacher = made()
    ranks = [teacher.topk(k, dim=1) for k in range(1, C + 1)]
    losses = [partial_distillation(regions, concepts, best, probs, 0.1).item() for probs, best in ranks]
    assert losses == sorted(losses)


def test_rounded_probabilities_break_nothing() -> None:
    regions, concepts, _ = made()
    best = torch.tensor([[0, 1]]).repeat(R, 1)
    for row in ([0.6, 0.4002], [1.0, 0.0], [0.0, 0.0]):
        loss = partial_distillation(regions, concepts, best, torch.tensor([row]).repeat(R, 1))
        (gradient,) = torch.autograd.grad(loss, regions)
        assert loss.isfinite()
        assert loss >= 0
        assert gradient.isfinite().all()
    assert partial_distillation(regions[:0], concepts, best[:0], torch.zeros(0, 2)).item() == 0


def test_counts_stand_for_the_regions_of_others() -> None:
    regions, concepts, _ = made()
    targets = torch.tensor([3, 3, 0, 7, 11])
    counts = targets.bincount(minlength=C)
    parts = [(regions[:2], targets[:2]), (regions[2:], targets[2:])]
    whole = concept_contrastive(regions, concepts, targets, 0.1)
    shared = sum(len(t) / R * concept_contrastive(r, concepts, t, 0.1, counts) for r, t in parts)
    torch.testing.assert_close(shared, whole)
    columns = torch.nn.functional.cosine_similarity(regions[:, None], concepts[targets][None], dim=2) / 0.1
    same = targets[:, None] == targets[None]
    plain = (columns.logsumexp(1) - columns.masked_fill(~same, -torch.inf).logsumexp(1)).mean()
    torch.testing.assert_close(whole, plain)
