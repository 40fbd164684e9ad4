"""Which names compete, and which classes are scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from regionclip_cli.data.detection_sets import DetectionSet, open_detection_set
from regionclip_cli.data.splits import split_labels
from regionclip_cli.errors import RegionClipError, UsageError
from regionclip_cli.evaluation.task import build_task, class_name_warnings
from regionclip_cli.recipe.schema import DetectionData, EvaluateSection


@pytest.fixture
def split(tmp_path: Path) -> str:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"base": ["green"], "novel": ["red"]}))
    return str(path)


def test_names_are_the_classes_of_the_set(truth: DetectionSet) -> None:
    task = build_task(truth, EvaluateSection())
    assert task.names.labels == truth.classes == ("red", "green", "blue")
    assert task.classes.tolist() == task.columns().tolist() == [0, 1, 2]
    assert (task.split, task.max_dets) == (None, 100)
    assert task.truth is truth


def test_split_drops_classes_outside_it(truth: DetectionSet, split: str) -> None:
    task = build_task(truth, EvaluateSection(split=split))
    assert task.names.labels == task.truth.classes == ("red", "green")
    assert task.split is not None
    assert (task.split.base, task.split.novel) == (("green",), ("red",))
    assert len(task.truth) == len(truth)  # images without an object of them still count


def test_official_scoring_drops_images_without_objects(truth: DetectionSet) -> None:
    having = sum("blue" in [truth.classes[label] for label in image.labels] for image in truth)
    assert 0 < having < len(truth)
    task = build_task(truth, EvaluateSection(vocabulary="blue", scoring="official"))
    assert len(task.truth) == having
    assert len(build_task(truth, EvaluateSection(vocabulary="blue")).truth) == len(truth)


def test_vocabulary_with_fewer_names(truth: DetectionSet, split: str) -> None:
    task = build_task(truth, EvaluateSection(vocabulary="Green,RED", split=split))
    assert task.names.labels == ("Green", "RED")
    assert task.truth.classes == ("red", "green")
    assert task.classes.tolist() == [1, 0]
    assert task.columns().tolist() == [1, 0]
    novel = build_task(truth, EvaluateSection(vocabulary="red", split=split))
    assert novel.split is not None
    assert (novel.split.base, novel.split.novel) == ((), ("red",))


def test_vocabulary_with_more_names(truth: DetectionSet) -> None:
    task = build_task(truth, EvaluateSection(vocabulary="kettle,red,blue,green,cat"))
    assert task.truth.classes == truth.classes
    assert task.classes.tolist() == [-1, 0, 2, 1, -1]
    assert task.columns().tolist() == [1, 3, 2]


def test_vocabulary_without_any_class_suggests_names(truth: DetectionSet) -> None:
    with pytest.raises(UsageError, match=r"boxes\.json has no class 'greem'") as told:
        build_task(truth, EvaluateSection(vocabulary="greem"))
    assert "'green'" in told.value.hint


@pytest.mark.parametrize("settings", [{"split": "coco-48-71"}, {"split": "nowhere.yaml"}, {"vocabulary": "@cocoa"}])
def test_unreadable_split_or_vocabulary(truth: DetectionSet, settings: dict[str, str]) -> None:
    with pytest.raises(RegionClipError):
        build_task(truth, EvaluateSection(**settings))


def test_lvis_defaults(tmp_path: Path) -> None:
    content = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}
            | {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 1, 4, 4], "area": 16}],
        "categories": [
            {"id": 1, "name": "bus_(vehicle)", "frequency": "c"},
            {"id": 2, "name": "alarm_clock", "frequency": "f"},
            {"id": 3, "name": "cellular_telephone", "frequency": "f"},
        ],
    }
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(content))
    few = open_detection_set(DetectionData(dataset="lvis", annotations=str(path)))
    free, official = (
        build_task(few, EvaluateSection(dataset="lvis")),
        build_task(few, EvaluateSection(scoring="official")),
    )
    assert (free.max_dets, build_task(few, EvaluateSection(max_dets=7)).max_dets) == (300, 7)
    telephone = few.classes.index("cellular telephone")
    assert "cellphone" in free.names.phrases[telephone]
    assert official.names.phrases[telephone] == ("cellular telephone",)
    assert len(official.truth) == 1
    assert official.truth.classes == few.classes


def test_class_spelt_differently_is_warned_about(truth: DetectionSet) -> None:
    labels = split_labels("coco-48-17")
    assert len(labels) == 65
    misspelt = replace(truth, name="my.json", classes=(*(set(labels) - {"umbrella"}), "umbrela"))
    assert class_name_warnings(misspelt, EvaluateSection(split="coco-48-17")) == [
        "my.json has 64 of the 65 classes of coco-48-17; left out: umbrella. Perhaps 'umbrella' is 'umbrela' there?"
    ]
    [told] = class_name_warnings(replace(truth, classes=("banana", "cat")), EvaluateSection(split="lvis-rare"))
    assert told.startswith("boxes.json has 2 of the 1,203 classes of lvis-rare; left out: ")
    assert "andanna" not in told  # bananas are meant
    whole = replace(truth, classes=tuple(label.title() for label in labels))
    assert class_name_warnings(whole, EvaluateSection(split="coco-48-17")) == []


def test_vocabulary_name_similar_to_a_class_is_warned_about(truth: DetectionSet) -> None:
    [told] = class_name_warnings(truth, EvaluateSection(vocabulary="red,gren,kettle"))
    assert told == "Not every name of the vocabulary is a class of boxes.json. Perhaps 'gren' is 'green' there?"
    assert class_name_warnings(truth, EvaluateSection(vocabulary="Red,kettle,greenhouse")) == []
    assert class_name_warnings(truth, EvaluateSection(vocabulary="gren,green")) == []
