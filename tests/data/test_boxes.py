from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regionclip_cli.data.boxes import read_boxes
from regionclip_cli.errors import InputError, MissingError, UsageError

BOX = [1, 2, 30, 40]


def write(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "boxes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_plain_boxes_with_and_without_objectness(tmp_path: Path) -> None:
    found = read_boxes(write(tmp_path, {"a.jpg": [BOX], "b.jpg": {"boxes": [BOX, BOX], "scores": [0.5, 1]}, "c": []}))
    assert found.find("a.jpg").boxes.tolist() == [BOX]
    assert found.find("a.jpg").scores is None
    assert found.find("b.jpg").scores.tolist() == [0.5, 1.0]  # type: ignore[union-attr]
    assert found.find("c").boxes.shape == (0, 4)
    assert len(found.find("unknown.jpg")) == 0
    assert found.unused() == []


def test_coco_boxes(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "annotations": [{"image_id": 7, "bbox": [1, 2, 29, 38], "score": 0.25}],
    }
    found = read_boxes(write(tmp_path, content))
    assert found.find("a.jpg").boxes.tolist() == [BOX]
    assert found.find("a.jpg").scores.tolist() == [0.25]  # type: ignore[union-attr]
    assert len(found.find("b.jpg")) == 0


def test_keys_match_by_path_then_by_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keys = ["a/1.jpg", str(tmp_path / "b/1.jpg"), "2.jpg", "deep/down/3.jpg"]
    boxes = {key: [[0, 0, index + 1, 1]] for index, key in enumerate(keys)}
    found = read_boxes(write(tmp_path, boxes))
    assert found.find("a/1.jpg").boxes[0, 2] == 1
    assert found.find("b/1.jpg").boxes[0, 2] == 2
    assert found.find("any/where/2.jpg").boxes[0, 2] == 3
    assert found.unused() == ["deep/down/3.jpg"]
    assert found.find("3.jpg").boxes[0, 2] == 4
    assert len(found.find("c/1.jpg")) == 0
    with pytest.raises(InputError, match=r"'2.jpg' .* fits any/where/2.jpg and other/2.jpg"):
        found.find("other/2.jpg")
    with pytest.raises(InputError, match=r"1\.jpg fits 2 entries"):
        found.find("1.jpg")


def test_boxes_are_clipped_to_the_image(tmp_path: Path) -> None:
    given = read_boxes(write(tmp_path, {"a": [[-5, 0, 10, 10], [1, 1, 5, 5]]})).find("a")
    inside, clipped = given.within("a", 20, 8)
    assert inside.boxes.tolist() == [[0, 0, 10, 8], [1, 1, 5, 5]]
    assert clipped == 1
    assert np.array_equal(given.within("a", 20, 20)[0].boxes[1], given.boxes[1])
    with pytest.raises(InputError, match=r"a: box 1 \[1.0, 1.0, 5.0, 5.0\] lies outside the image of 1 x 8 pixels"):
        given.within("a", 1, 8)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ([BOX], "holds a list, not an object"),
        ({"a": 3}, "'a' is a int, not a list"),
        ({"a": [BOX, [1, 2, 3]]}, "'a', box 1 is [1, 2, 3], not four numbers"),
        ({"a": [["1", 2, 3, 4]]}, "not four numbers"),
        ({"a": [[True, 2, 3, 4]]}, "not four numbers"),
        ('{"a": [[NaN, 2, 3, 4]]}', "not four numbers"),
        ({"a": [[5, 2, 5, 4]]}, "box 0 [5, 2, 5, 4] is empty"),
        ({"a": {"boxs": [BOX]}}, "has an unknown key 'boxs'. Did you mean 'boxes'?"),
        ({"a": {"scores": [1]}}, 'has no "boxes"'),
        ({"a": {"boxes": [BOX], "scores": []}}, "one score for each of its 1 boxes"),
        ({"a": {"boxes": [BOX], "scores": [1.5]}}, "has the score 1.5"),
        ({"a": {"boxes": [BOX], "scores": ["x"]}}, 'has the score "x"'),
        ({"images": {}, "annotations": []}, "must be lists"),
        ({"images": [{"id": 1}], "annotations": []}, "images[0] needs an id and a file_name"),
        ({"images": [], "annotations": [{"image_id": 5, "bbox": BOX}]}, "unknown image, image_id 5"),
        ({"images": [], "annotations": [{"image_id": 5}]}, "annotations[0] has no bbox"),
    ],
)
def test_wrong_files_are_refused_with_the_entry(tmp_path: Path, content: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_boxes(write(tmp_path, content))
    assert sentence in str(caught.value)


def test_half_scored_coco_and_missing_files_are_refused(tmp_path: Path) -> None:
    notes = [{"image_id": 1, "bbox": [0, 0, 5, 5], "score": 1}, {"image_id": 1, "bbox": [0, 0, 5, 5]}]
    with pytest.raises(UsageError, match="only some boxes of 'a' have a score"):
        read_boxes(write(tmp_path, {"images": [{"id": 1, "file_name": "a"}], "annotations": notes}))
    with pytest.raises(MissingError, match="There is no boxes file"):
        read_boxes(tmp_path / "none.json")
