"""Recall of proposals against faster-coco-eval, region accuracy, latency."""

from __future__ import annotations

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from regionclip_cli.evaluation.matching import count_hits
from regionclip_cli.evaluation.metrics import Latency, ProposalRecall, RegionAccuracy
from regionclip_cli.evaluation.predictions import ImagePrediction

LIMITS = (5, 20, 60)
NONE = np.zeros(0)


def images(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw objects (G, 4) and proposals (K, 4) near and far from them for some images."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(6):
        objects = rng.uniform(0, 80, (rng.integers(0, 8), 4)).astype(np.float32)
        objects[:, 2:] = objects[:, :2] + rng.uniform(4, 60, (len(objects), 2))
        near = np.repeat(objects, 7, axis=0) + rng.normal(0, 4, (7 * len(objects), 4)).astype(np.float32)
        far = rng.uniform(0, 60, (20, 4)).astype(np.float32)
        far[:, 2:] += far[:, :2]
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        proposals = np.concatenate([near, far])
        made.append((objects, proposals[rng.permutation(len(proposals))]))
    return made


def library_recall(made: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    def wide(box: np.ndarray) -> list[float]:
        x1, y1, x2, y2 = (float(x) for x in box)
        return [x1, y1, x2 - x1, y2 - y1]

    truth, found = [], []
    for image, (objects, proposals) in enumerate(made, 1):
        for box in objects:
            more = {"area": wide(box)[2] * wide(box)[3], "iscrowd": 0, "category_id": 1}
            truth.append({"id": len(truth) + 1, "image_id": image, "bbox": wide(box), **more})
        for rank, box in enumerate(proposals):
            found.append({"image_id": image, "category_id": 1, "bbox": wide(box), "score": 1 - rank / 1000})
    frame = {"images": [{"id": image} for image in range(1, len(made) + 1)], "categories": [{"id": 1}]}
    known = COCO({**frame, "annotations": truth})
    judge = COCOeval_faster(known, known.loadRes(found), "bbox")
    judge.params.useCats, judge.params.maxDets = 0, list(LIMITS)
    judge.evaluate()
    judge.accumulate()
    return [100 * float(judge.eval["recall"][:, 0, 0, limit].mean()) for limit in range(len(LIMITS))]


@pytest.mark.parametrize("seed", range(4))
def test_recall_equals_faster_coco_eval(seed: int) -> None:
    made = images(seed)
    tally = ProposalRecall(LIMITS)
    for objects, proposals in made:
        none = np.zeros((0, 4), np.float32)
        line = ImagePrediction(1, none, NONE, NONE, hits=count_hits(objects, proposals, LIMITS))
        tally.add(line, len(objects))
    expected = library_recall(made)
    assert 5 < expected[0] < expected[1] < 100
    assert list(tally.summary().values()) == pytest.approx(expected, abs=1e-9)
    assert list(tally.summary()) == ["AR@5", "AR@20", "AR@60"]


def test_no_objects_or_no_proposals() -> None:
    box, none = np.array([[0, 0, 9, 9]], np.float32), np.zeros((0, 4), np.float32)
    assert count_hits(none, box, LIMITS).sum() == count_hits(box, none, LIMITS).sum() == 0
    assert (count_hits(box, box, LIMITS) == 1).all()
    assert ProposalRecall().summary() == {}


def test_region_accuracy_by_class() -> None:
    tally = RegionAccuracy(classes=3, names=4)
    truths, guesses, ranks = np.array([0, 0, 1, 1]), np.array([0, 3, 1, 0]), np.array([0, 1, 0, 7])
    tally.add(ImagePrediction(1, NONE, NONE, NONE, truths, guesses, ranks))
    assert tally.summary() == {"top1": 50.0, "top5": 75.0, "mean_class_accuracy": 50.0}
    assert tally.summary([1]) == {"top1": 50.0, "top5": 50.0, "mean_class_accuracy": 50.0}
    assert set(tally.summary([2]).values()) == {None}
    assert tally.confusion.tolist() == [[1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_latency_median_and_rate() -> None:
    tally = Latency()
    assert set(tally.summary().values()) == {None}
    for seconds in (0.1, 0.2, 0.9):
        tally.add(ImagePrediction(1, NONE, NONE, NONE, seconds=seconds))
    assert tally.summary() == {"seconds_per_image": 0.2, "images_per_second": pytest.approx(3 / 1.2)}
