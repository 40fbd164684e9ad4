"""Every entry of an annotation file that is wrong gets a sentence that names it, and can be left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotation_toys import CONTENT, content, open_content

from regionclip_cli.data.detection_sets import validation
from regionclip_cli.errors import UsageError

Change = Callable[[dict[str, Any]], Any]


def change(part: str, index: int, **values: Any) -> Change:
    """Return what sets values of an entry; None takes the key away."""

    def apply(content: dict[str, Any]) -> None:
        entry = content[part][index]
        for key, value in values.items():
            if value is None:
                del entry[key]
            else:
                entry[key] = value

    return apply


def again(part: str, index: int, **values: Any) -> Change:
    """Return what adds an entry once more, with other values."""
    return lambda content: content[part].append({**content[part][index], **values})


ANNOTATIONS: list[tuple[Change, str]] = [
    (change("annotations", 0, bbox=None), "annotations[0] (id 1) has no 'bbox'"),
    (change("annotations", 0, id=None), "annotations[0] has no 'id'"),
    (change("annotations", 0, image_id=None), "annotations[0] (id 1) has no 'image_id'"),
    (change("annotations", 0, category_id=None), "annotations[0] (id 1) has no 'category_id'"),
    (change("annotations", 0, image_id=8), "annotations[0] (id 1) is of the image 8, which is not in the file"),
    (change("annotations", 0, category_id=1), "annotations[0] (id 1) is of the category 1, which is not in the file"),
    (
        change("annotations", 0, bbox=[90, 20, 12, 9]),
        "has the bbox [90, 20, 12, 9], which leaves the image 7 of 100 x 80",
    ),
    (change("annotations", 0, bbox=[-1.5, 0, 9, 9]), "which leaves the image 7"),
    (change("annotations", 0, bbox=[100.2, 0, 0.5, 9]), "which leaves the image 7"),
    (change("annotations", 0, bbox=[-0.8, 0, 0.5, 9]), "which leaves the image 7"),
    (change("annotations", 0, bbox=[1, 2, 0, 4]), "(id 1) has the bbox [1, 2, 0, 4], whose area is not above zero"),
    (change("annotations", 0, bbox=[1, 2, 3, -4]), "(id 1) has the bbox [1, 2, 3, -4], whose area is not above zero"),
    (change("annotations", 0, bbox=[1, 2, float("nan"), 4]), "(id 1) has the bbox [1, 2, NaN, 4], not four numbers"),
    (change("annotations", 0, bbox=[1, 2, float("inf"), 4]), "not four numbers"),
    (change("annotations", 0, bbox=[1, 2, 3]), "has the bbox [1, 2, 3], not four numbers"),
    (change("annotations", 0, bbox=["1", 2, 3, 4]), 'has the bbox ["1", 2, 3, 4], not four numbers'),
    (change("annotations", 0, bbox="none"), 'has the bbox "none", not four numbers'),
    (change("annotations", 0, area=0), "(id 1) has the area 0, which is not above zero"),
    (change("annotations", 0, area=float("nan")), "has the area NaN"),
    (change("annotations", 0, area="big"), 'has the area "big"'),
    (change("annotations", 0, iscrowd=2), "has the iscrowd 2, not 0 or 1"),
    (change("annotations", 0, iscrowd=[1]), "has the iscrowd [1], not 0 or 1"),
    (change("annotations", 0, image_id="7"), 'has the image_id "7", not a whole number'),
    (change("annotations", 0, id=True), "has the id true, not a whole number"),
    (change("annotations", 0, id=2**70), "not a whole number"),
    (again("annotations", 2, id=2, bbox=[1, 1, 2, 2]), "annotations[3] (id 2) has the id of an earlier annotation"),
    (lambda content: content["annotations"].append([1]), "annotations[3] is [1], not an object"),
]


@pytest.mark.parametrize(("apply", "words"), ANNOTATIONS, ids=[words[:60] for _, words in ANNOTATIONS])
def test_a_wrong_annotation_is_named_and_left_out_if_wanted(tmp_path: Path, apply: Change, words: str) -> None:
    changed = content()
    apply(changed)
    with pytest.raises(UsageError) as caught:
        open_content(tmp_path / "bad.json", changed)
    assert words in caught.value.message
    assert "bad.json" in caught.value.message
    assert "lenient" in caught.value.hint
    found = open_content(tmp_path / "bad.json", changed, lenient=True)
    assert found.dropped == 1
    assert words in found.problems[0]
    assert found.left_out() == f"bad.json: 1 wrong entry was left out: {found.problems[0]}"
    assert found.box_counts().sum() == len(changed["annotations"]) - 1


OTHERS: list[tuple[Change, str, list[int], int]] = [
    # what is changed, the sentence, the images that are left, the boxes that are left
    (change("images", 0, id=None), "images[0] has no 'id'", [3], 1),
    (change("images", 0, width=None), "images[0] (id 7) has no 'width'", [3], 1),
    (change("images", 0, height=0), "images[0] (id 7) has the size 100 x 0", [3], 1),
    (change("images", 0, width="100"), 'images[0] (id 7) has the width "100", not a whole number', [3], 1),
    (change("images", 0, file_name=None), "images[0] (id 7) has no 'file_name'", [3], 1),
    (change("images", 0, file_name=" "), 'images[0] (id 7) has the file_name " ", not a text', [3], 1),
    (again("images", 0), "images[2] has the id 7 of an earlier image", [7, 3], 3),
    (change("categories", 0, name=None), "categories[0] (id 5) has no 'name'", [7, 3], 2),
    (change("categories", 0, id="5"), 'categories[0] has the id "5", not a whole number', [7, 3], 2),
    (change("categories", 1, name="Tea Kettle"), "(id 2) has the name 'Tea Kettle' of category 5 again", [7, 3], 1),
    (again("categories", 0, name="x"), "categories[3] has the id 5 of an earlier category", [7, 3], 3),
    (change("categories", 0, frequency="often"), 'has the frequency "often", not r, c or f', [7, 3], 2),
]


@pytest.mark.parametrize(("apply", "words", "images", "boxes"), OTHERS, ids=[words[:60] for _, words, _, _ in OTHERS])
def test_a_wrong_image_or_category_is_named_and_left_out_if_wanted(
    tmp_path: Path, apply: Change, words: str, images: list[int], boxes: int
) -> None:
    changed = content()
    apply(changed)
    with pytest.raises(UsageError) as caught:
        open_content(tmp_path / "bad.json", changed)
    assert words in caught.value.message
    found = open_content(tmp_path / "bad.json", changed, lenient=True)
    assert words in found.problems[0]
    assert [image.id for image in found] == images
    assert found.box_counts().sum() == boxes


def test_what_hangs_on_a_wrong_entry_is_not_told_again(tmp_path: Path) -> None:
    changed = content()
    del changed["images"][0]["width"]
    del changed["categories"][1]["name"]
    found = open_content(tmp_path / "bad.json", changed, lenient=True)
    assert found.dropped == 2
    assert found.box_counts().tolist() == [0, 0]


def test_a_box_may_stand_out_by_a_pixel(tmp_path: Path) -> None:
    changed = content()
    changed["annotations"][0]["bbox"] = [-0.9, 20, 101.8, 61]
    found = open_content(tmp_path / "near.json", changed)
    assert found[0].boxes[0].tolist() == [0, 20, 100, 80]


def test_the_order_of_the_lists_does_not_matter(tmp_path: Path) -> None:
    first = open_content(tmp_path / "a.json", CONTENT)
    second = open_content(tmp_path / "b.json", dict(reversed(CONTENT.items())))
    assert first.fingerprint == second.fingerprint


def test_many_problems_are_counted_and_the_first_ones_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "KEPT", 3)
    changed = content()
    changed["annotations"] += [{"id": number} for number in range(10, 20)]
    with pytest.raises(UsageError, match=r"annotations\[3\] \(id 10\) has no 'image_id'\. 9 more entries are wrong"):
        open_content(tmp_path / "bad.json", changed)
    found = open_content(tmp_path / "bad.json", changed, lenient=True)
    assert found.dropped == 10
    assert found.problems[-1] == "And 7 more."
    assert found.left_out(1).startswith("bad.json: 10 wrong entries were left out: annotations[")
    assert found.left_out(1).endswith("; and 9 more.")
    assert len(found.problems) == 4


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_a_missing_or_wrong_list_is_told_even_to_the_lenient(tmp_path: Path, part: str) -> None:
    changed = content()
    changed[part] = {"id": 3}
    with pytest.raises(UsageError, match=f"'{part}' is .* not a list"):
        open_content(tmp_path / "bad.json", changed, lenient=True)
    del changed[part]
    with pytest.raises(UsageError, match=f"has no '{part}', so it is no annotation file"):
        open_content(tmp_path / "bad.json", changed, lenient=True)


def test_empty_lists_are_no_problem_but_no_classes_are(tmp_path: Path) -> None:
    changed = content()
    changed["annotations"] = []
    assert open_content(tmp_path / "empty.json", changed).box_counts().tolist() == [0, 0, 0]
    assert len(open_content(tmp_path / "empty.json", {**changed, "images": []})) == 0
    with pytest.raises(UsageError, match="has no categories"):
        open_content(tmp_path / "empty.json", {**changed, "categories": []})


@pytest.mark.parametrize("text", ["", "[]", "3", '"images"', '{"images": [1'])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"bad\.json"):
        open_content(tmp_path / "bad.json", text, lenient=True)
