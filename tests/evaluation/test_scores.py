"""Scores of classes and images, confusions, and unusual detections."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from annotation_toys import CONTENT, content, open_content, random_content, random_found

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.data.splits import Split
from regionclip_cli.errors import UsageError
from regionclip_cli.evaluation.metrics import score_detections
from regionclip_cli.evaluation.predictions import ImagePrediction


@pytest.fixture
def truth(tmp_path: Path) -> DetectionSet:
    """Two photos: a tea kettle and a cat on one (id 7), a crowd of cats on the other (id 3)."""
    return open_content(tmp_path / "boxes.json", CONTENT)


def found(*rows: tuple[list[float], float, int], image: int = 7) -> ImagePrediction:
    boxes, scores, labels = ([row[part] for row in rows] for part in range(3))
    return ImagePrediction(
        image,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
    )


KETTLE, CAT = [10.0, 20, 40, 60], [50.0, 10, 70, 30]
PERFECT = [found((KETTLE, 0.9, 1), (CAT, 0.8, 0))]


def test_perfect_detections_score_100(truth: DetectionSet) -> None:
    scores = score_detections(truth, PERFECT, split=Split(("Cat",), ("tea kettle", "dog")))
    summary = scores.summary()
    assert {summary[key] for key in ("AP", "AP50", "AP75", "APs", "AR", "AR1")} == {100}
    assert summary["APl"] is None  # nothing is large
    assert summary["base"]["AP50"] == summary["novel"]["AP"] == summary["all"]["AR"] == 100
    json.dumps(summary, allow_nan=False)


def test_class_without_objects_has_no_score(truth: DetectionSet) -> None:
    noisy = [found((KETTLE, 0.9, 1), (CAT, 0.8, 0), (CAT, 0.95, 2))]
    scores = score_detections(truth, noisy, split=Split(("Cat", "tea kettle"), ("dog",)))
    assert scores.summary()["AP"] == 100
    assert scores.summary()["novel"] == dict.fromkeys(scores.summary()["novel"])
    dog = scores.per_class[2]
    assert (dog.AP, dog.objects, dog.images, dog.detections, dog.group) == (None, 0, 0, 1, "novel")
    cat = scores.per_class[0]
    assert (cat.name, cat.AP50, cat.objects, cat.images, cat.group) == ("Cat", 100, 1, 2, "base")  # one is a crowd


def test_no_detections_score_zero(truth: DetectionSet) -> None:
    for nothing in ([], [found()], [ImagePrediction(7, np.zeros(0), np.zeros(0), np.zeros(0))]):
        scores = score_detections(truth, nothing)
        assert scores.summary()["AP"] == scores.summary()["AR"] == 0
        assert scores.confusion[:, -1].tolist() == [1, 1, 0]
        assert [photo.id for photo in scores.worst_images()] == [7]


def test_set_without_objects_has_no_metrics(tmp_path: Path) -> None:
    empty = content()
    empty["annotations"] = []
    truth = open_content(tmp_path / "empty.json", empty)
    scores = score_detections(truth, PERFECT)
    assert set(scores.summary().values()) == {None}
    assert scores.worst_images() == []
    assert scores.curve() is None
    with pytest.raises(UsageError, match="no image to score"):
        score_detections(open_content(tmp_path / "none.json", {**empty, "images": []}), [])


def test_nan_detections_are_left_out_and_counted(truth: DetectionSet) -> None:
    nan, inf = float("nan"), float("inf")
    odd = [found((KETTLE, 0.9, 1), (CAT, 0.8, 0), (CAT, nan, 0), (CAT, inf, 0), ([nan, 0, 9, 9], 1, 0))]
    scores = score_detections(truth, odd)
    assert scores.summary()["AP"] == 100
    assert scores.left_out == {"score is not a number": 2, "box is not four numbers": 1}
    assert scores.broken == 3


def test_scores_may_be_of_any_range(truth: DetectionSet) -> None:
    far = [found((KETTLE, -3.5, 1), (CAT, 700, 0), (KETTLE, -9, 0))]
    assert score_detections(truth, far).summary()["AP"] == 100


@pytest.mark.parametrize(
    ("detections", "words"),
    [
        ([found(image=8)], "image 8, which is not in boxes.json"),
        ([found(), found()], "[Ii]mage 7"),
        ([found((KETTLE, 0.5, 3))], "label 3; boxes.json has 3 classes"),
        ([found((KETTLE, 0.5, -1))], "label -1"),
        ([ImagePrediction(7, np.zeros((2, 4)), np.zeros(1), np.zeros(1))], "do not fit together"),
        ([ImagePrediction(7, np.zeros((1, 5)), np.zeros(1), np.zeros(1))], "do not fit together"),
    ],
)
def test_invalid_detections_are_refused(truth: DetectionSet, detections: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        score_detections(truth, detections)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="At least one"):
        score_detections(truth, [], max_dets=0)


def test_streamed_detections(truth: DetectionSet) -> None:
    assert score_detections(truth, iter(PERFECT)).summary() == score_detections(truth, PERFECT).summary()


def test_summary_is_the_mean_over_classes(tmp_path: Path) -> None:
    truth = open_content(tmp_path / "boxes.json", random_content(4))
    scores = score_detections(truth, random_found(truth, 4).values())
    for key in ("AP", "AP50", "AP75", "AR"):
        own = [getattr(one, key) for one in scores.per_class if getattr(one, key) is not None]
        assert np.mean(own) == pytest.approx(scores.summary()[key])
    assert sum(one.detections for one in scores.per_class) == sum(
        len(d.scores) for d in random_found(truth, 4).values()
    )


def test_curves_are_precision_over_recall(tmp_path: Path) -> None:
    truth = open_content(tmp_path / "boxes.json", random_content(4))
    scores = score_detections(truth, random_found(truth, 4).values())
    curve = scores.curve()
    assert curve is not None
    assert curve.shape == scores.curves.recalls.shape == (101,)
    assert 100 * curve.mean() == pytest.approx(scores.summary()["AP50"])
    assert (np.diff(curve) <= 1e-12).all()
    one = scores.curve(["class 1"], overlap=0.75)
    assert one is not None
    assert 100 * one.mean() == pytest.approx(scores.per_class[1].AP75)
    assert scores.curve(["class 5"]) is None


def test_groups_of_a_split(truth: DetectionSet) -> None:
    split = Split(("Cat",), ("tea kettle",), {"pets": ("Cat", "dog")})
    told = score_detections(truth, [found((CAT, 0.8, 0))], split=split).summary()
    assert told["groups"]["pets"]["AP"] == 100
    assert told["novel"]["AP"] == 0


def test_confusion_counts(truth: DetectionSet) -> None:
    swapped = [found((KETTLE, 0.9, 2), (KETTLE, 0.3, 1), ([51, 10, 70, 30], 0.5, 2), ([0, 0, 5, 5], 0.99, 0))]
    scores = score_detections(truth, swapped)
    assert scores.confusion.tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_worst_images_come_first(tmp_path: Path) -> None:
    truth = open_content(tmp_path / "boxes.json", random_content(6))
    scores = score_detections(truth, random_found(truth, 6).values())
    worst = scores.worst_images(1000)
    assert [photo.score for photo in worst] == sorted(photo.score for photo in worst)
    assert len(worst) == sum(bool((~image.crowd).any()) for image in truth)
    assert all(0 <= photo.score <= 100 and photo.found <= photo.objects for photo in worst)
    assert {photo.score for photo in worst if photo.id % 7 == 3} == {0}
