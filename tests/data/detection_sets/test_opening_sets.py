"""Sets of COCO and LVIS, of scenes and of plugins."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_toys import CONTENT, content, open_content
from distributions import install, install_example
from photos import write_photos
from PIL import Image

from regionclip_cli.data.detection_sets import open_detection_set
from regionclip_cli.data.pixels import decode
from regionclip_cli.data.scenes import SCENE_CLASSES, draw_scene
from regionclip_cli.errors import InputError, MissingError, PluginError, UsageError
from regionclip_cli.language import vocabularies
from regionclip_cli.recipe.schema import DetectionData


def test_a_coco_file_is_read(tmp_path: Path) -> None:
    found = open_content(tmp_path / "boxes.json", CONTENT)
    assert found.style == "coco"
    assert found.classes == ("Cat", "tea kettle", "dog")
    assert found.category_ids == (2, 5, 9)
    assert found.frequencies is None
    assert found.problems == ()
    first, second = found
    assert (first.id, first.name, first.path, first.width, first.height) == (7, "a.jpg", None, 100, 80)
    assert first.boxes.tolist() == [[10, 20, 40, 60], [50, 10, 70, 30]]
    assert first.boxes.dtype == np.float32
    assert first.labels.tolist() == [1, 0]
    assert first.area.tolist() == [900.5, 400]
    assert second.crowd.tolist() == [True]
    assert second.boxes.tolist() == [[0, 0, 60, 50]]  # clipped: half a pixel stood out
    assert second.area.tolist() == [60.5 * 50]  # the file does not tell it
    assert found.image_counts().tolist() == [2, 1, 0]
    assert found.box_counts().tolist() == [2, 1, 0]


def test_places_count_like_a_list(tmp_path: Path) -> None:
    found = open_content(tmp_path / "boxes.json", CONTENT)
    assert found[-1].id == 3
    assert [image.id for image in found] == [7, 3]
    assert found.places_by_id == {7: 0, 3: 1}
    with pytest.raises(IndexError):
        found[2]


def test_images_are_read_from_their_folder(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", ("a.jpg", "b.jpg"))
    found = open_content(tmp_path / "boxes.json", CONTENT, images=str(folder))
    assert found[0].path == folder / "a.jpg"
    assert found[0].read() == (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"a\.jpg cannot be read"):
        found[0].read()


def test_a_set_without_a_folder_has_no_pixels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder of images"):
        open_content(tmp_path / "boxes.json", CONTENT)[0].read()


def test_missing_images_are_told_and_left_out_if_wanted(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", ("b.jpg",))
    with pytest.raises(UsageError, match=r"the file a\.jpg of image 7 is not in"):
        open_content(tmp_path / "boxes.json", CONTENT, images=str(folder))
    found = open_content(tmp_path / "boxes.json", CONTENT, images=str(folder), lenient=True)
    assert [image.id for image in found] == [3]
    assert found.dropped == 1  # the boxes of the image are not told one by one
    assert found[0].read() == (folder / "b.jpg").read_bytes()
    assert found.box_counts().tolist() == [1, 0, 0]


def test_a_wrong_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="None of the 2 images"):
        open_content(tmp_path / "boxes.json", CONTENT, images=str(tmp_path), lenient=True)
    with pytest.raises(MissingError, match="no folder of images"):
        open_content(tmp_path / "boxes.json", CONTENT, images=str(tmp_path / "none"))


def test_the_limit_takes_the_first_images_and_looks_for_no_others(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", ("a.jpg",))
    found = open_content(tmp_path / "boxes.json", CONTENT, images=str(folder), limit=1)
    assert [image.id for image in found] == [7]
    assert found.box_counts().tolist() == [1, 1, 0]


def test_segmentations_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    changed = content()
    changed["annotations"][2]["segmentation"] = [[50, 10, 70, 10, 70, 30]]
    changed["annotations"][0]["note"] = "é日"
    path = tmp_path / "boxes.json"
    found = open_content(path, changed)
    path.write_text(json.dumps(changed, ensure_ascii=False), encoding="utf-8")
    found = open_detection_set(DetectionData(annotations=str(path)))
    assert found[0].segmentation == [None, [[50, 10, 70, 10, 70, 30]]]
    assert found[1].segmentation is None
    assert found.subset(["Cat"])[0].segmentation == [[[50, 10, 70, 10, 70, 30]]]
    path.write_text("{}")
    with pytest.raises(UsageError, match="has changed"):
        _ = found[0].segmentation


def test_a_set_travels_to_loader_processes(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", ("a.jpg", "b.jpg"))
    found = open_content(tmp_path / "boxes.json", CONTENT, images=str(folder))
    copy = pickle.loads(pickle.dumps(found))  # noqa: S301 - what a data loader does
    assert copy.fingerprint == found.fingerprint
    assert copy[1].read() == found[1].read()


def lvis_content() -> dict[str, Any]:
    changed = content()
    for image in changed["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{image.pop('file_name')}"
        image |= {"neg_category_ids": [9], "not_exhaustive_category_ids": [5, 2]}
    names = [("bus_(vehicle)", "f"), ("bow_(weapon)", "r"), ("magic_lamp_(old)", "c")]
    for category, (name, frequency) in zip(changed["categories"], names, strict=True):
        category |= {"name": name, "frequency": frequency}
    return changed


def test_an_lvis_file_is_read(tmp_path: Path) -> None:
    found = open_content(tmp_path / "lvis.json", lvis_content(), dataset="lvis")
    assert found.style == "lvis"
    assert found.classes == ("bow (weapon)", "bus", "magic lamp")
    assert found.frequencies == ("r", "f", "c")
    assert found[0].name == "val2017/a.jpg"
    assert found[0].neg == {2}
    assert found[0].not_exhaustive == {0, 1}
    kept = found.subset(["magic lamp", "bus"])
    assert kept[0].neg == {0}
    assert kept[0].not_exhaustive == {1}
    assert kept.frequencies == ("c", "f")


@pytest.mark.parametrize("name", ["val2017/a.jpg", "a.jpg"])
def test_images_of_lvis_lie_in_one_folder_or_in_two(tmp_path: Path, name: str) -> None:
    folder = write_photos(tmp_path / "photos", (name, name.replace("a.jpg", "b.jpg")))
    found = open_content(tmp_path / "lvis.json", lvis_content(), dataset="lvis", images=str(folder))
    assert found[0].path == folder / name


def test_lvis_is_not_taken_for_coco(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is an LVIS file"):
        open_content(tmp_path / "lvis.json", lvis_content())
    with pytest.raises(UsageError, match=r"\(id 7\) has no 'neg_category_ids'"):
        open_content(tmp_path / "coco.json", CONTENT, dataset="lvis")


def test_the_names_of_all_lvis_are_those_of_the_built_in_list(tmp_path: Path) -> None:
    changed = lvis_content()
    changed["categories"] = [{"id": number, "name": name} for number, name in enumerate(vocabularies.lvis_labels(), 1)]
    changed["annotations"] = []
    found = open_content(tmp_path / "lvis.json", changed, dataset="lvis")
    assert found.classes == tuple(label for label, _ in vocabularies.classes("lvis"))
    assert found.frequencies == vocabularies.lvis_frequencies()


def test_scenes_are_a_set_too() -> None:
    found = open_detection_set(DetectionData(dataset="scenes", options={"count": 4, "seed": 3}, limit=3))
    assert len(found) == 3
    assert found.classes == SCENE_CLASSES
    scene = draw_scene(2, 3)
    assert np.array_equal(found[2].boxes, scene.boxes)
    assert found[2].labels.tolist() == scene.labels.tolist()
    assert np.array_equal(decode(found[2].read(), "scene"), scene.pixels)
    assert len({image.name for image in found}) == 3
    assert pickle.loads(pickle.dumps(found))[1].read() == found[1].read()  # noqa: S301 - what a data loader does


def test_a_plugin_is_a_set_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_example(tmp_path, "regionclip-shapes")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = open_detection_set(DetectionData(dataset="shapes", options={"images": 5, "side": 64}, limit=4))
    assert len(found) == 4
    assert found.classes[0] == "red circle"
    assert (found[0].width, found[0].height) == (64, 64)
    assert decode(found[3].read(), "shape").shape == (64, 64, 3)
    assert pickle.loads(pickle.dumps(found))[1].read() == found[1].read()  # noqa: S301 - what a data loader does
    with pytest.raises(UsageError, match="no option 'sid'"):
        open_detection_set(DetectionData(dataset="shapes", options={"sid": 64}))


RECORDS = """
from regionclip_cli.specs import DatasetSpec
SPEC = DatasetSpec(name="mine", summary="Mine.", loader="mine:load", classes=("cat", "dog"))
def load(records=None):
    return eval(records)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what opens the plugin's data set with records written as Python."""
    site = tmp_path / "site"
    site.mkdir()
    install(site, "mine", {"regionclip.datasets": {"mine": "mine:SPEC"}}, RECORDS)
    monkeypatch.syspath_prepend(str(site))
    Image.new("RGB", (40, 30)).save(tmp_path / "p.png")
    path = repr(str(tmp_path / "p.png"))

    def opened(records: str, **settings: Any) -> Any:
        options = {"records": records.replace("PATH", path)}
        return open_detection_set(DetectionData(dataset="mine", options=options, **settings))

    return opened


def test_records_may_be_asked_for_by_number(mine: Any) -> None:
    record = "{'image': PATH, 'boxes': [[1, 2, 30, 20]], 'labels': [1], 'crowd': [1], 'key': 'a/p.png'}"
    for records in (f"[{record}]", f"iter([{record}])"):
        found = mine(records)
        assert found[0].name == "a/p.png"
        assert found[0].crowd.tolist() == [True]
        assert found[0].path is not None
        assert found[0].path.name == "p.png"
        assert (found[0].width, found[0].height) == (40, 30)
        assert found[0].read() == found[0].path.read_bytes()


@pytest.mark.parametrize(
    ("record", "kind", "words"),
    [
        ("3", PluginError, "is no mapping"),
        ("{'image': PATH, 'boxes': []}", PluginError, "no 'labels'"),
        ("{'image': PATH, 'boxes': [[1, 2, 3]], 'labels': [0]}", UsageError, "not rows of four numbers"),
        ("{'image': PATH, 'boxes': [[1, 2, 30, 20]], 'labels': [2]}", UsageError, "the label 2; there are 2 classes"),
        ("{'image': PATH, 'boxes': [[1, 2, 30, 20]], 'labels': ['cat']}", UsageError, "not whole numbers"),
        ("{'image': PATH, 'boxes': [[1, 2, 30, 20]], 'labels': []}", UsageError, "1 boxes and 0 labels"),
        ("{'image': PATH, 'boxes': [[1, 2, 1, 20]], 'labels': [0]}", UsageError, "empty or leaves 40 x 30"),
        ("{'image': PATH, 'boxes': [[1, 2, 50, 20]], 'labels': [0]}", UsageError, "empty or leaves 40 x 30"),
        ("{'image': b'no', 'boxes': [[1, 2, 3, 4]], 'labels': [0]}", UsageError, "image that cannot be read"),
    ],
)
def test_records_that_are_wrong_are_named(mine: Any, record: str, kind: type[Exception], words: str) -> None:
    good = "{'image': PATH, 'boxes': [[1, 2, 30, 20]], 'labels': [0]}"
    with pytest.raises(kind, match=words):
        mine(f"[{good}, {record}]")
    if kind is UsageError:
        assert len(mine(f"[{good}, {record}]", lenient=True)) == 1


def test_a_set_of_captions_detects_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = RECORDS.replace(', classes=("cat", "dog")', "")
    install(tmp_path, "mine", {"regionclip.datasets": {"mine": "mine:SPEC"}}, code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    with pytest.raises(UsageError, match="no classes"):
        open_detection_set(DetectionData(dataset="mine"))


def test_an_unknown_set_has_near_names() -> None:
    with pytest.raises(UsageError, match="'coko'"):
        open_detection_set(DetectionData(dataset="coko"))
    with pytest.raises(UsageError, match="needs an annotation file"):
        open_detection_set(DetectionData(dataset="coco"))
