"""Files cut into base, novel and both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from annotation_toys import content, write

from regionclip_cli.data.detection_sets import open_detection_set
from regionclip_cli.data.detection_sets.open_vocabulary_coco import cut, cut_paths
from regionclip_cli.data.splits import read_split
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.language import vocabularies
from regionclip_cli.recipe.schema import DetectionData


def coco_content() -> dict[str, Any]:
    """All 80 classes of COCO and one image each for base, novel, both, neither and nothing."""
    names = [label for label, _ in vocabularies.classes("coco")]
    shown = {1: ["person"], 2: ["cat"], 3: ["dog", "car", "traffic light"], 4: ["hot dog"], 5: []}
    annotations = [(image, names.index(name) + 1) for image, own in shown.items() for name in own]
    return {
        "info": {"description": "é"},
        "licenses": [{"id": 1}],
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 50, "height": 50, "licence": 1} for i in shown],
        "annotations": [
            {
                "id": number,
                "image_id": i,
                "category_id": c,
                "bbox": [1, 1, 9.25, 9],
                "area": 80,
                "segmentation": [[1, 2]],
            }
            for number, (i, c) in enumerate(annotations, 1)
        ],
        "categories": [{"id": number, "name": name, "supercategory": "x"} for number, name in enumerate(names, 1)],
    }


def test_a_file_is_cut_as_open_vocabulary_coco_is(tmp_path: Path) -> None:
    source = write(tmp_path / "instances_val2017.json", coco_content())
    made = cut("coco-48-17", [source], tmp_path / "out")
    assert [each.path.name for each in made] == [f"ovd_ins_val2017_{part}.json" for part in ("all", "b", "t")]
    assert [(each.classes, each.images, each.annotations) for each in made] == [(65, 3, 4), (48, 2, 2), (17, 2, 2)]
    both, base, novel = (json.loads(each.path.read_text()) for each in made)
    assert [image["id"] for image in both["images"]] == [1, 2, 3]
    assert [image["id"] for image in base["images"]] == [1, 3]
    assert [image["id"] for image in novel["images"]] == [2, 3]
    before = coco_content()
    assert both["info"] == before["info"]
    assert base["licenses"] == before["licenses"]
    assert base["annotations"][0] == before["annotations"][0]
    assert base["categories"][0] == {"id": 1, "name": "person", "supercategory": "x", "split": "seen"}
    assert {category["split"] for category in novel["categories"]} == {"unseen"}
    assert {category["split"] for category in both["categories"]} == {"seen", "unseen"}


def test_the_files_open_as_sets_with_the_split(tmp_path: Path) -> None:
    source = write(tmp_path / "instances_val2017.json", coco_content())
    made = cut("coco-48-17", [source], tmp_path)
    for each, sides in zip(made, ((48, 17), (48, 0), (0, 17)), strict=True):
        found = open_detection_set(DetectionData(annotations=str(each.path)))
        split = read_split("coco-48-17", found.classes)
        assert (len(split.base), len(split.novel)) == sides
        assert len(found) == each.images


def test_a_split_file_cuts_any_coco_file(tmp_path: Path) -> None:
    split = write(tmp_path / "mine.json", {"base": ["dog", "cat"], "novel": ["tea kettle"]})
    made = cut(str(split), [write(tmp_path / "boxes.json", content())], tmp_path / "new")
    assert [(each.path.name, each.images, each.annotations) for each in made] == [
        ("boxes_all.json", 2, 3),
        ("boxes_b.json", 2, 2),
        ("boxes_t.json", 1, 1),
    ]


def test_nothing_that_exists_is_written_over(tmp_path: Path) -> None:
    source = write(tmp_path / "instances_val2017.json", coco_content())
    cut("coco-48-17", [source], tmp_path)
    with pytest.raises(UsageError, match="exists already"):
        cut("coco-48-17", [source], tmp_path)
    (tmp_path / "sub").mkdir()
    twin = write(tmp_path / "sub" / source.name, coco_content())
    with pytest.raises(UsageError, match="would be cut into"):
        cut("coco-48-17", [source, twin], tmp_path / "other")


@pytest.mark.parametrize(
    ("apply", "words"),
    [
        (lambda c: c["annotations"][0].pop("image_id"), r"annotations\[0\] has no 'image_id'"),
        (lambda c: c["categories"][0].pop("name"), r"categories\[0\] has no 'name'"),
        (lambda c: c["images"].append(3), r"images\[5\] is 3, not an object"),
        (lambda c: c.pop("annotations"), "has no 'annotations'"),
        (lambda c: c["annotations"].clear(), "no box of the classes"),
        (lambda c: c["images"][0].update(neg_category_ids=[]), r"images\[0\] is of LVIS"),
    ],
)
def test_a_wrong_entry_stops_the_cut_and_leaves_nothing(tmp_path: Path, apply: Any, words: str) -> None:
    changed = coco_content()
    apply(changed)
    source = write(tmp_path / "instances_val2017.json", changed)
    with pytest.raises(UsageError, match=words):
        cut("coco-48-17", [source], tmp_path / "out")
    assert list(tmp_path.glob("out/*")) == []


def test_a_missing_file_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        cut("coco-48-17", [tmp_path / "none.json"], tmp_path / "out")
    assert not any(path.exists() for path in cut_paths(tmp_path / "none.json", tmp_path / "out").values())
