"""Predictions from files: the formats of `detect`, and COCO result lists."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.errors import MissingError, RegionClipError, UsageError
from regionclip_cli.evaluation.load_predictions import LoadedPredictions
from regionclip_cli.evaluation.metrics import compute_metrics
from regionclip_cli.evaluation.task import Task, build_task
from regionclip_cli.recipe.detection import DetectSettings
from regionclip_cli.recipe.schema import DetectionData, EvaluateSection
from regionclip_cli.stages.detect import run as detect


@pytest.fixture
def task(truth: DetectionSet) -> Task:
    return build_task(truth, EvaluateSection())


@pytest.fixture(scope="session")
def detected(tmp_path_factory: pytest.TempPathFactory, shapes: DetectionData, toy_path: Path) -> Path:
    """Let `detect` look at the pictures, and return its folder."""
    out = tmp_path_factory.mktemp("detected") / "out"
    detect(
        DetectSettings(
            **{"inputs": (f"{shapes.images}/*.png",), "classes": "red,green,blue,kettle", "model": str(toy_path)},
            **{"out": out, "formats": ("jsonl", "coco"), "conf": 0.05, "device": "cpu"},
        )
    )
    return out


def records(task: Task) -> list[dict[str, Any]]:
    """Return perfect predictions as `detect` writes them."""
    made = []
    for image in task.truth:
        found = [
            {"label": task.truth.classes[label], "score": 0.9, "box": [float(x) for x in box]}
            for label, box in zip(image.labels, image.boxes, strict=True)
        ]
        made.append({"image": f"some/where/{image.name}", "width": 96, "height": 64, "detections": found})
    return made


def write_lines(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_jsonl_and_coco_give_the_same_predictions(detected: Path, task: Task) -> None:
    lines = LoadedPredictions(detected / "detections.jsonl", task)
    whole = LoadedPredictions(detected / "coco.json", task)
    for given in (lines, whole):
        assert given.unknown_names <= {"kettle"}
        assert (given.unknown_images, given.missing) == (0, 0)
    told = {each.image: each for each in lines.read()}
    for line in whole.read():
        assert np.allclose(line.boxes, told[line.image].boxes, atol=0.011)
        assert np.array_equal(line.scores, told[line.image].scores)
        assert np.array_equal(line.labels, told[line.image].labels)
    assert sum(len(line.scores) for line in told.values()) > 20
    assert compute_metrics(task, lines.read()).summary["AP"] is not None


def test_perfect_predictions_score_100(task: Task, tmp_path: Path) -> None:
    given = LoadedPredictions(write_lines(tmp_path / "p.jsonl", records(task)), task)
    assert compute_metrics(task, given.read()).summary["AP"] == pytest.approx(100)


def test_result_list_uses_ids_of_the_annotations(task: Task, tmp_path: Path, detected: Path) -> None:
    results = [
        {
            **{"image_id": image.id, "category_id": task.truth.category_ids[label], "score": 0.5},
            "bbox": [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])],
        }
        for image in task.truth
        for label, box in zip(image.labels, image.boxes, strict=True)
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps([*results[::-1], {**results[0], "image_id": 999}]))
    given = LoadedPredictions(path, task)
    assert given.unknown_images == 1
    assert compute_metrics(task, given.read()).summary["AP"] == pytest.approx(100)
    with pytest.raises(UsageError, match=r"coco_results\.json") as told:
        LoadedPredictions(detected / "coco_results.json", task)
    assert "coco.json" in told.value.hint


def test_missing_images_count_as_empty(task: Task, tmp_path: Path) -> None:
    some = [*records(task)[:2], {"image": "strange.png", "detections": []}]
    given = LoadedPredictions(write_lines(tmp_path / "p.jsonl", some), task)
    assert (given.missing, given.unknown_images) == (3, 1)
    summary = compute_metrics(task, given.read()).summary
    assert 0 < summary["AP"] < 100
    assert summary["images"] == 5


def as_coco(task: Task, names: list[str]) -> dict[str, Any]:
    """Return coco.json as `detect` writes it, with one detection on the first image and none on the others."""
    images = [{"id": number, "file_name": name, "width": 96, "height": 64} for number, name in enumerate(names, 1)]
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    return {"images": images, "annotations": [one], "categories": [{"id": 1, "name": "red"}]}


def test_images_in_coco_json_without_a_detection_are_not_missing(task: Task, tmp_path: Path) -> None:
    content = as_coco(task, ["0.png", "1.png", "2.png", "strange.png"])
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    given = LoadedPredictions(path, task)
    assert (given.missing, given.unknown_images) == (2, 1)
    assert [(line.image, len(line.scores)) for line in given.read()] == [(1, 1), (2, 0), (3, 0)]
    content["annotations"].clear()
    path.write_text(json.dumps(content))
    assert compute_metrics(task, LoadedPredictions(path, task).read()).summary["AP"] == 0


def test_ambiguous_file_names_are_refused(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(as_coco(task, ["a/1.png", "b/1.png"])))
    with pytest.raises(UsageError, match=r"'a/1\.png' and 'b/1\.png'"):
        LoadedPredictions(path, task)


def test_image_is_matched_by_longest_path_suffix(task: Task, tmp_path: Path) -> None:
    names = ("a/1.png", "b/1.png", "2.png", "3.png", "4.png")
    columns = replace(task.truth.columns, names=names)
    nested = replace(task, truth=replace(task.truth, columns=columns))
    lines = [{"image": f"x/{name}", "detections": []} for name in names]
    given = LoadedPredictions(write_lines(tmp_path / "p.jsonl", lines), nested)
    assert [line.image for line in given.read()] == [1, 2, 3, 4, 5]
    with pytest.raises(UsageError, match=r"'1\.png'"):
        LoadedPredictions(write_lines(tmp_path / "q.jsonl", [{"image": "1.png", "detections": []}]), nested)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda lines: [{"image": "0.png"}], r":1 has .*'detections'"),
        (
            lambda lines: [{"image": "1.png", "detections": [{"label": "red", "box": [1, 2, 3, 4]}]}],
            r":1 has .*'score'",
        ),
        (lambda lines: [*lines, lines[0]], r":6 is about the same image as line 1"),
        (lambda lines: [lines[0], 7], r":2 has .*'image'"),
        (lambda lines: [lines[0], {"image": "1.png", "detections": [{"label": "red", "box": [1, 2, 3]}]}], "3 numbers"),
        (
            lambda lines: [{"image": "1.png", "detections": [{"label": "red", "box": [1, 2, 3, 4], "score": "high"}]}],
            "'high'",
        ),
        (lambda lines: [{"image": "other.png", "detections": []}], r"boxes\.json"),
        (
            lambda lines: [{"image": "1.png", "detections": [{"label": "reed", "box": [1, 2, 3, 4], "score": 1}]}],
            r"boxes\.json has no class 'reed'\. Did you mean 'red'",
        ),
    ],
)
def test_wrong_entries_name_their_position(task: Task, tmp_path: Path, change: Any, sentence: str) -> None:
    path = write_lines(tmp_path / "p.jsonl", change(records(task)))
    with pytest.raises(UsageError, match=sentence):
        LoadedPredictions(path, task)


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", "{}"), ("b.json", '{"images": []}'), ("c.json", "cat"), ("d", "")]
)
def test_unknown_file_formats_are_refused(task: Task, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RegionClipError):
        LoadedPredictions(tmp_path / name, task)


def test_truncated_or_missing_file(task: Task, tmp_path: Path, detected: Path) -> None:
    with pytest.raises(MissingError, match=r"none\.jsonl"):
        LoadedPredictions(tmp_path / "none.jsonl", task)
    shutil.copy(detected / "detections.jsonl", tmp_path / "cut.jsonl")
    path = tmp_path / "cut.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match=r"cut\.jsonl:5 is not JSON"):
        LoadedPredictions(path, task)
