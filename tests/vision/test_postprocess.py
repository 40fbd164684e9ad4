"""Suppression against a slow reference, its promises under random input, and the official implementation's results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou, nms

from regionclip_cli.errors import UsageError
from regionclip_cli.vision.postprocess import select_detections


def random_case(seed: int, count: int, classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 40
    size = torch.rand(count, 2, generator=generator) * 25 + 1
    return torch.cat([corner, corner + size], dim=1), torch.rand(count, classes, generator=generator)


cases = st.builds(random_case, st.integers(0, 10_000), st.integers(0, 25), st.integers(1, 6))


@given(case=cases, conf=st.floats(0, 0.9), iou=st.floats(0.05, 0.95), max_dets=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_hard_nms_is_torchvisions_class_by_class(
    case: tuple[Tensor, Tensor], conf: float, iou: float, max_dets: int
) -> None:
    boxes, scores = case
    expected = []
    for label in range(scores.shape[1]):
        index = (scores[:, label] > conf).nonzero().squeeze(1)
        kept = index[nms(boxes[index], scores[index, label], iou)]
        expected += [(float(scores[i, label]), label, int(i)) for i in kept]
    expected = sorted(expected, reverse=True)[:max_dets]
    found, values, labels, index = select_detections(boxes, scores, conf=conf, iou=iou, max_dets=max_dets)
    assert list(zip(values.tolist(), labels.tolist(), index.tolist(), strict=True)) == expected
    assert torch.equal(found, boxes[index])


@given(
    case=cases, conf=st.floats(0, 0.9), iou=st.floats(0.05, 0.95), mode=st.sampled_from(["class", "agnostic", "off"])
)
@settings(max_examples=60, deadline=None)
def test_promises(case: tuple[Tensor, Tensor], conf: float, iou: float, mode: str) -> None:
    boxes, scores = case
    found, values, labels, index = select_detections(boxes, scores, conf=conf, iou=iou, nms=mode, max_dets=1000)
    assert (values > conf).all()
    assert (values.diff() <= 0).all()
    assert torch.equal(values, scores[index, labels])
    rivals = (labels[:, None] == labels) if mode == "class" else torch.full((len(labels), len(labels)), mode != "off")
    overlap = box_iou(found, found).fill_diagonal_(0)
    assert (overlap[rivals] <= iou).all()

    alone = torch.zeros(len(found), scores.shape[1]).scatter_(1, labels[:, None], values[:, None])
    again = select_detections(found, alone, conf=conf, iou=iou, nms=mode, max_dets=1000)
    assert again[3].tolist() == list(range(len(found)))
    assert torch.equal(again[1], values)


def slow_soft(boxes: Tensor, score: Tensor, conf: float, iou: float, soft: str) -> list[tuple[float, int]]:
    left = {i: float(s) for i, s in enumerate(score) if s > conf}
    overlaps = box_iou(boxes, boxes)
    picked = []
    while left:
        best = max(left, key=lambda i: left[i])
        picked.append((left.pop(best), best))
        for i in list(left):
            overlap = float(overlaps[best, i])
            if soft == "gaussian":
                left[i] *= np.exp(-(overlap**2) / 0.5)
            elif overlap > iou:
                left[i] *= 1 - overlap
            if left[i] <= 0.1:
                del left[i]
    return picked


@pytest.mark.parametrize("soft", ["gaussian", "linear"])
@pytest.mark.parametrize("seed", range(4))
def test_soft_nms_is_the_slow_one(seed: int, soft: str) -> None:
    boxes, scores = random_case(seed, 30, 3)
    expected = [
        (value, label, i) for label in range(3) for value, i in slow_soft(boxes, scores[:, label], 0.2, 0.3, soft)
    ]
    expected = sorted(expected, reverse=True)[:60]
    _, values, labels, index = select_detections(
        boxes, scores, conf=0.2, iou=0.3, max_dets=60, soft=soft, min_score=0.1
    )
    assert list(zip(labels.tolist(), index.tolist(), strict=True)) == [(label, i) for _, label, i in expected]
    np.testing.assert_allclose(values, [value for value, _, _ in expected], rtol=1e-5)
    assert not torch.allclose(values, scores[index, labels])


def test_agnostic_gives_a_box_one_label() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 30, 30]])
    scores = torch.tensor([[0.9, 0.8], [0.1, 0.85], [0.2, 0.3]])
    _, values, labels, index = select_detections(boxes, scores, conf=0.05, iou=0.5, nms="agnostic", max_dets=9)
    assert index.tolist() == [0, 2]
    assert labels.tolist() == [0, 1]
    torch.testing.assert_close(values, torch.tensor([0.9, 0.3]))


@pytest.mark.parametrize("mode", ["class", "agnostic", "off"])
@pytest.mark.parametrize("soft", [None, "gaussian", "linear"])
def test_numbers_that_are_none_are_dropped(mode: str, soft: str | None) -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [5, 5, 6, 6], [8, 8, 8, 8], [8, 8, 8, 8], [torch.nan, 0, 1, 1]])
    scores = torch.tensor([[torch.nan, 0.5], [torch.inf, -torch.inf], [0.3, 0.0], [0.25, 0.0], [0.9, 0.9]])
    _, values, labels, index = select_detections(boxes, scores, conf=0.001, iou=0.5, nms=mode, max_dets=9, soft=soft)
    assert list(zip(values.tolist(), labels.tolist(), index.tolist(), strict=True)) == [
        (0.5, 1, 0),
        (pytest.approx(0.3), 0, 2),
        (0.25, 0, 3),
    ]


@pytest.mark.parametrize("mode", ["class", "agnostic", "off"])
@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (4, 3)])
def test_nothing_found_has_the_right_shapes(mode: str, shape: tuple[int, int]) -> None:
    boxes, scores = torch.rand(shape[0], 4), torch.zeros(shape)
    found = select_detections(boxes, scores, conf=0.5, iou=0.5, nms=mode, max_dets=9)
    assert [tuple(part.shape) for part in found] == [(0, 4), (0,), (0,), (0,)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    boxes, scores = random_case(0, 20, 3)
    found = select_detections(boxes, scores.to(dtype), conf=0.3, iou=0.5, max_dets=9, soft="gaussian")
    exact = select_detections(boxes, scores.to(dtype).float(), conf=0.3, iou=0.5, max_dets=9, soft="gaussian")
    assert found[1].dtype == dtype
    assert torch.equal(found[3], exact[3])


def test_inputs_are_left_alone() -> None:
    boxes, scores = random_case(0, 20, 3)
    before = boxes.clone(), scores.clone()
    select_detections(boxes, scores, conf=0.0, iou=0.5, max_dets=9, soft="gaussian")
    select_detections(boxes, scores, conf=0.0, iou=0.5, nms="agnostic", max_dets=9)
    assert torch.equal(boxes, before[0])
    assert torch.equal(scores, before[1])


@pytest.mark.parametrize(
    ("options", "word"), [({"nms": "none"}, "'none'"), ({"soft": "hard"}, "'hard'"), ({"sigma": 0.0}, "above 0")]
)
def test_wrong_words_are_refused(options: dict[str, str | float], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        select_detections(
            torch.rand(2, 4), torch.rand(2, 2), conf=0, iou=0.5, max_dets=9, **{"soft": "gaussian"} | options
        )
