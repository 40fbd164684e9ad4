"""Metrics against pycocotools, and for LVIS against a reference implementation of its rules."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_toys import open_content, random_content, random_found
from lvis_protocol import lvis_numbers
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.data.splits import Split
from regionclip_cli.evaluation import coco_eval
from regionclip_cli.evaluation.metrics import score_detections
from regionclip_cli.evaluation.predictions import ImagePrediction

KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")


def rows_of(truth: DetectionSet, found: dict[int, ImagePrediction]) -> list[dict[str, Any]]:
    """Return detections as COCO's result list has them."""
    return [
        {
            "image_id": number,
            "category_id": truth.category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for number, one in found.items()
        for (x1, y1, x2, y2), score, label in zip(
            one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True
        )
    ]


def by_pycocotools(path: Path, rows: list[dict[str, Any]], limits: tuple[int, ...], classes: Any = None) -> Any:
    """Return pycocotools' twelve numbers in 0..100; None for its -1, which says that there is no object."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        judge = COCOeval(truth, truth.loadRes(rows), "bbox")
        judge.params.maxDets = list(limits)
        if classes is not None:
            judge.params.catIds = classes
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [None if value == -1 else 100 * value for value in judge.stats.tolist()]


@pytest.mark.parametrize("portions", [False, True], ids=["at once", "in portions"])
@pytest.mark.parametrize("seed", range(4))
def test_coco_metrics_equal_pycocotools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, portions: bool
) -> None:
    if portions:
        monkeypatch.setattr(coco_eval, "BOXES", 40)
    path = tmp_path / "boxes.json"
    truth = open_content(path, random_content(seed))
    assert truth.columns.crowd.any()
    found = random_found(truth, seed)
    assert len(np.unique(np.concatenate([one.scores for one in found.values()]))) <= 11  # many ties
    split = Split(("class 0", "class 3"), ("class 1", "class 5"))
    summary = score_detections(truth, found.values(), split=split).summary()
    rows = rows_of(truth, found)
    assert [summary[key] for key in KEYS] == pytest.approx(by_pycocotools(path, rows, (1, 10, 100)), abs=1e-4)
    for part, names in (("base", [1, 10]), ("novel", [4, 16]), ("all", [1, 4, 10, 16])):
        theirs = by_pycocotools(path, rows, (1, 10, 100), classes=names)
        shared = [key for key in KEYS if key not in ("AR1", "AR10")]
        assert [summary[part][key] for key in shared] == pytest.approx(
            [value for key, value in zip(KEYS, theirs, strict=True) if key in shared], abs=1e-4
        )
    assert 5 < summary["AP"] < 60


def test_detection_limit_equals_pycocotools(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    truth = open_content(path, random_content(5, images=8))
    found = random_found(truth, 5, false=40)
    summary = score_detections(truth, found.values(), max_dets=3).summary()
    # AP of pycocotools is of 100 detections in any case, so recall is compared.
    theirs = by_pycocotools(path, rows_of(truth, found), (1, 2, 3))
    assert [summary["AR1"], summary["AR"]] == pytest.approx([theirs[6], theirs[8]], abs=1e-4)
    assert summary["AR"] < score_detections(truth, found.values()).summary()["AR"]
    assert "AR10" not in summary


@pytest.mark.parametrize("portions", [False, True], ids=["at once", "in portions"])
@pytest.mark.parametrize("seed", range(4))
def test_lvis_metrics_equal_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, portions: bool
) -> None:
    if portions:
        monkeypatch.setattr(coco_eval, "PAIRS", 60)
    content = random_content(seed, classes=7, lvis=True)
    truth = open_content(tmp_path / "lvis.json", content, dataset="lvis")
    found = random_found(truth, seed, false=12)
    summary = score_detections(truth, found.values()).summary()
    expected = lvis_numbers(content, rows_of(truth, found))
    assert {key: summary[key] for key in expected} == pytest.approx(expected, abs=1e-4)
    assert {"APr", "APc", "APf"} <= expected.keys()
    assert "AR1" not in summary


def test_lvis_limit_counts_all_classes_of_an_image(tmp_path: Path) -> None:
    content = random_content(9, classes=5, lvis=True)
    truth = open_content(tmp_path / "lvis.json", content, dataset="lvis")
    found = random_found(truth, 9, false=12)
    scores = score_detections(truth, found.values(), max_dets=5)
    expected = lvis_numbers(content, rows_of(truth, found), best=5)
    assert {key: scores.summary()[key] for key in expected} == pytest.approx(expected, abs=1e-4)
    assert scores.left_out == {
        "beyond the 5 best of an image": sum(max(len(one.scores) - 5, 0) for one in found.values())
    }


def without(content: dict[str, Any], key: str) -> dict[str, Any]:
    return {**content, "images": [{**image, key: []} for image in content["images"]]}


@pytest.mark.parametrize("key", ["neg_category_ids", "not_exhaustive_category_ids"])
def test_lvis_negative_and_not_exhaustive_classes_matter(tmp_path: Path, key: str) -> None:
    content = random_content(1, classes=5, lvis=True)
    truth = open_content(tmp_path / "lvis.json", content, dataset="lvis")
    found = random_found(truth, 1, false=12)
    told = score_detections(truth, found.values()).summary()["AP"]
    blind = open_content(tmp_path / "blind.json", without(content, key), dataset="lvis")
    untold = score_detections(blind, found.values()).summary()["AP"]
    # More known to be absent is more that can be a mistake; more not annotated is less.
    assert told < untold if key == "neg_category_ids" else told > untold


def test_order_of_images_does_not_matter(tmp_path: Path) -> None:
    content = random_content(2)
    truth = open_content(tmp_path / "a.json", content)
    found = random_found(truth, 2)
    content["images"].reverse()
    turned = open_content(tmp_path / "b.json", content)
    assert (
        score_detections(truth, found.values()).summary()
        == score_detections(turned, reversed(found.values())).summary()
    )
