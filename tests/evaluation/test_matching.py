"""Matching of detections to the objects of one image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from regionclip_cli.data.detection_sets import DetectionImage
from regionclip_cli.evaluation.matching import iou, match_image
from regionclip_cli.evaluation.predictions import ImagePrediction

A, B, FAR = [0, 0, 10, 10], [20, 20, 40, 40], [60, 60, 70, 70]


def photo(*objects: tuple[list[float], int, bool], neg: Any = (), open_classes: Any = ()) -> DetectionImage:
    boxes, labels, crowd = ([each[part] for each in objects] for part in range(3))
    return DetectionImage(
        **{"id": 1, "name": "a.jpg", "path": None, "width": 80, "height": 80},
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        crowd=np.array(crowd, bool),
        area=np.ones(len(labels), np.float32),
        neg=frozenset(neg),
        not_exhaustive=frozenset(open_classes),
        _read=lambda: b"",
        _segmentation=lambda: None,
    )


def found(*rows: tuple[list[float], float, int]) -> ImagePrediction:
    boxes, scores, labels = ([row[part] for row in rows] for part in range(3))
    return ImagePrediction(1, np.array(boxes, np.float64).reshape(-1, 4), np.array(scores), np.array(labels, np.int64))


BOTH = photo((A, 0, False), (B, 1, False))


@pytest.mark.parametrize(
    ("detections", "called", "right", "score"),
    [
        ([(A, 0.9, 0), (B, 0.8, 1)], [0, 1], 2, 1.0),
        ([(FAR, 0.9, 0), (A, 0.8, 0), (B, 0.7, 1)], [0, 1], 2, (1 / 2 + 2 / 3) / 2),
        ([(A, 0.9, 0), (B, 0.8, 1), (FAR, 0.7, 0)], [0, 1], 2, 1.0),
        ([(A, 0.9, 0)], [0, -1], 1, 0.5),
        ([(A, 0.9, 1), (A, 0.8, 0), (B, 0.7, 0)], [1, 0], 1, 1 / 4),  # the surest name counts as its name
        ([(A, 0.9, 0), (A, 0.8, 0), (B, 0.7, 1)], [0, 1], 2, (1 + 2 / 3) / 2),  # found twice is a mistake
        ([], [-1, -1], 0, 0.0),
    ],
)
def test_image_score(detections: Any, called: list[int], right: int, score: float) -> None:
    matched = match_image(BOTH, found(*detections), lvis=False)
    assert matched.called.tolist() == called
    assert matched.found == right
    assert matched.score == pytest.approx(score)


def test_detection_on_a_crowd_of_its_class_is_ignored() -> None:
    crowded = photo((A, 0, False), (B, 1, True))
    inside = [25.0, 25, 30, 30]
    assert match_image(crowded, found((inside, 0.9, 1), (A, 0.5, 0)), lvis=False).score == 1
    assert match_image(crowded, found((inside, 0.9, 0), (A, 0.5, 0)), lvis=False).score == 0.5
    assert match_image(crowded, found((A, 0.5, 0)), lvis=False).labels.tolist() == [0]


def test_lvis_ignores_unverified_classes() -> None:
    known = photo((A, 0, False), neg=[2], open_classes=[0])
    assert match_image(known, found((FAR, 0.9, 3), (A, 0.5, 0)), lvis=True).score == 1  # nobody looked for class 3
    assert (
        match_image(known, found((FAR, 0.9, 2), (A, 0.5, 0)), lvis=True).score == 0.5
    )  # class 2 is known to be absent
    assert match_image(known, found((FAR, 0.9, 0), (A, 0.5, 0)), lvis=True).score == 1  # class 0 may be there too


def test_image_without_objects_has_no_score() -> None:
    assert np.isnan(match_image(photo(), found((A, 0.9, 0)), lvis=False).score)
    assert np.isnan(match_image(photo((A, 0, True)), found((A, 0.9, 0)), lvis=False).score)


CORNERS = st.lists(st.tuples(*[st.integers(0, 30)] * 4), max_size=5)


@given(CORNERS, CORNERS)
def test_iou_equals_torchvision(first: list[tuple[int, ...]], second: list[tuple[int, ...]]) -> None:
    a, b = (np.array([(x, y, x + w, y + h) for x, y, w, h in each], float).reshape(-1, 4) for each in (first, second))
    theirs = box_iou(torch.from_numpy(a), torch.from_numpy(b)).nan_to_num().numpy()
    assert iou(a, b) == pytest.approx(theirs)


def test_iou_with_crowd_is_the_share_inside() -> None:
    assert iou(np.array([A]), np.array([[5, 0, 100, 100]]), crowd=True).tolist() == [[0.5]]
