"""VOC, YOLO, CVAT, Label Studio and Open Images annotations."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regionclip_cli.data.detection_sets import DetectionSet, open_detection_set
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.recipe.detection import DetectSettings
from regionclip_cli.recipe.schema import DetectionData
from regionclip_cli.stages.detect import run

SIZES = {"a.png": (80, 60), "sub/b.png": (40, 50), "c.png": (30, 30)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name, size in SIZES.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "white").save(path)
    return tmp_path / "images"


def open_set(dataset: str, annotations: Path, images: Path | None = None, **more: Any) -> DetectionSet:
    return open_detection_set(
        DetectionData(
            dataset=dataset, annotations=str(annotations), images=None if images is None else str(images), **more
        )
    )


def content(found: DetectionSet) -> dict[str, list[tuple[str, list[float], bool]]]:
    return {
        image.name: [
            (found.classes[label], [round(float(x), 1) for x in box], bool(crowd))
            for label, box, crowd in zip(image.labels, image.boxes, image.crowd, strict=True)
        ]
        for image in found
    }


VOC = """<annotation><filename>{name}</filename><size><width>{w}</width><height>{h}</height></size>
{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"""


def write_voc(folder: Path, **objects: str) -> Path:
    for name, (width, height) in SIZES.items():
        path = (folder / name).with_suffix(".xml")
        path.parent.mkdir(parents=True, exist_ok=True)
        key = name.partition(".")[0].replace("/", "_")
        path.write_text(VOC.format(name=Path(name).name, w=width, h=height, objects=objects.get(key, "")))
    return folder


def test_voc(tmp_path: Path, images: Path) -> None:
    cat = OBJECT.format(name="cat", difficult=0, x1=1, y1=11, x2=20, y2=30)
    dog = OBJECT.format(name="dog", difficult=1, x1=5, y1=5, x2=40, y2=50)
    found = open_set("voc", write_voc(tmp_path / "Annotations", a=cat, sub_b=dog + cat), images)
    assert found.classes == ("cat", "dog")
    assert content(found) == {
        "a.png": [("cat", [0, 10, 20, 30], False)],
        "c.png": [],
        "sub/b.png": [("dog", [4, 4, 40, 50], True), ("cat", [0, 10, 20, 30], False)],
    }
    assert found[2].path == images / "sub/b.png"
    assert found[0].segmentation is None


def test_voc_finds_images_beside_annotations(tmp_path: Path, images: Path) -> None:
    images.rename(tmp_path / "JPEGImages")
    write_voc(tmp_path / "Annotations")
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nzebra:1,2,3::\nant:::\n"
    )
    found = open_set("voc", tmp_path)
    assert found.classes == ("zebra", "ant")
    assert [image.name for image in found] == ["a.png", "c.png", "sub/b.png"]


def test_yolo(tmp_path: Path, images: Path) -> None:
    (tmp_path / "labels" / "sub").mkdir(parents=True)
    (tmp_path / "labels" / "a.txt").write_text("\ufeff1 0.5 0.5 0.25 0.5\r\n\r\n")
    (tmp_path / "labels" / "sub" / "b.txt").write_text("0 0 0 0.5 0.2 0.25 0.6\n")
    (tmp_path / "data.yaml").write_text("val: images\ntrain: list.txt\nnames: {0: cat, 1: dog}\n")
    (tmp_path / "list.txt").write_text("./images/a.png\n")
    found = open_set("yolo", tmp_path / "data.yaml")
    assert found.classes == ("cat", "dog")
    assert content(found) == {
        "a.png": [("dog", [30, 15, 50, 45], False)],
        "c.png": [],
        "sub/b.png": [("cat", [0, 0, 20, 30], False)],
    }
    train = open_detection_set(DetectionData(dataset="yolo", annotations=str(tmp_path / "data.yaml")), "train")
    assert [image.name for image in train] == ["a.png"]


def test_yolo_without_val_is_not_evaluated_on_train(tmp_path: Path, images: Path) -> None:
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    with pytest.raises(UsageError):
        open_set("yolo", tmp_path / "data.yaml")


CVAT = """<annotations><version>1.1</version><meta><task><labels><label><name>dog</name></label>
<label><name>cat</name></label></labels></task></meta>
<image id="0" name="a.png" width="80" height="60"><box label="cat" xtl="1.5" ytl="2" xbr="30" ybr="40"/>
<polygon label="dog" points="10,10;20,12;15,30"/><points label="dog" points="1,1"/></image>
<image id="1" name="sub/b.png" width="40" height="50"/></annotations>"""


@pytest.mark.parametrize("zipped", [False, True])
def test_cvat(tmp_path: Path, images: Path, zipped: bool) -> None:
    path = tmp_path / "export"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("annotations.xml", CVAT)
    else:
        path.write_text(CVAT)
    found = open_set("cvat", path, images)
    assert found.classes == ("dog", "cat")
    assert content(found) == {
        "a.png": [("cat", [1.5, 2, 30, 40], False), ("dog", [10, 10, 20, 30], False)],
        "sub/b.png": [],
    }


def studio_task(image: str, *boxes: dict[str, Any], key: str = "annotations", **more: Any) -> dict[str, Any]:
    results = [
        {"type": "rectanglelabels", "value": {"rotation": 0, "rectanglelabels": ["cat"], **box}} for box in boxes
    ]
    return {"data": {"image": image}, key: [{"result": results, **more}]}


def test_label_studio(tmp_path: Path, images: Path) -> None:
    box = {"x": 25, "y": 50, "width": 50, "height": 50}
    cancelled = studio_task("/data/upload/c.png", box, was_cancelled=True)
    tasks = [
        studio_task("/data/local-files/?d=a.png", box),
        studio_task("sub/b.png", box, key="predictions"),
        cancelled,
    ]
    tasks[2]["data"]["name"] = "c.png"
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    assert content(open_set("label-studio", path, images)) == {
        "a.png": [("cat", [20, 30, 60, 60], False)],
        "sub/b.png": [("cat", [10, 25, 30, 50], False)],
        "c.png": [],
    }


def test_open_images(tmp_path: Path, images: Path) -> None:
    Image.new("RGB", (100, 200)).save(images / "0a1b.jpg")
    path = tmp_path / "boxes.csv"
    path.write_text(
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n"
        "0a1b,xclick,/m/01,1,0.1,0.5,0.2,0.4,0,0,0\n0a1b,xclick,/m/02,1,0,1,0,1,0,0,1\n"
    )
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/01,Cat\n/m/02,Dog\n/m/03,Bird\n")
    found = open_set("openimages", path, images)
    assert found.classes == ("Cat", "Dog")
    assert content(found) == {"0a1b.jpg": [("Cat", [10, 40, 50, 80], False), ("Dog", [0, 0, 100, 200], True)]}


@pytest.mark.parametrize("form", ["voc", "yolo", "cvat", "label-studio"])
def test_written_detections_read_back(form: str, toy_model: Path, photos: Path) -> None:
    settings = DetectSettings(
        inputs=("photos",), recursive=True, classes="cat,dog", model=str(toy_model), formats=(form,), out="out"
    )
    run(settings)
    place = {
        "voc": "out/voc",
        "yolo": "out/yolo/data.yaml",
        "cvat": "out/cvat.xml",
        "label-studio": "out/label-studio.json",
    }
    found = open_set(form, Path(place[form]), None if form in ("voc", "yolo") else Path())
    written = [json.loads(line) for line in Path("out/detections.jsonl").read_text().splitlines()]
    assert set(found.classes) <= {"cat", "dog"}
    assert sum(map(len, found)) == sum(len(image["detections"]) for image in written) > 0
    for image in written:
        (same,) = (one for one in found if image["image"].endswith(one.name))
        assert np.allclose(
            same.boxes, [one["box"] for one in image["detections"]], atol=0.51 if form == "voc" else 0.02
        )
        assert [found.classes[label] for label in same.labels] == [one["label"] for one in image["detections"]]
        assert same.read()


def broken(folder: Path, dataset: str) -> Path:
    path = folder / "broken"
    if dataset == "voc":
        path.mkdir()
        (path / "a.xml").write_text("<annotation>")
    else:
        path.write_bytes(b"\xff<{[")
    return path


@pytest.mark.parametrize("dataset", ["voc", "yolo", "cvat", "label-studio", "openimages"])
def test_damaged_or_missing(dataset: str, tmp_path: Path, images: Path) -> None:
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/01,Cat\n")
    with pytest.raises(UsageError):
        open_set(dataset, broken(tmp_path, dataset), images)
    with pytest.raises(MissingError):
        open_set(dataset, tmp_path / "nothing", images)
    with pytest.raises(MissingError):
        open_set(dataset, tmp_path / "broken", tmp_path / "nothing")


@pytest.mark.parametrize(
    "objects",
    [
        OBJECT.format(name="cat", difficult=0, x1=30, y1=1, x2=20, y2=30),
        OBJECT.format(name="cat", difficult=0, x1=1, y1=1, x2=200, y2=30),
        OBJECT.format(name="", difficult=0, x1=1, y1=1, x2=20, y2=30),
        OBJECT.format(name="cat", difficult=0, x1="nan", y1=1, x2=20, y2=30),
    ],
)
def test_invalid_object_is_refused_or_skipped(objects: str, tmp_path: Path, images: Path) -> None:
    good = OBJECT.format(name="cat", difficult=0, x1=1, y1=1, x2=20, y2=30)
    folder = write_voc(tmp_path / "Annotations", a=objects, c=good)
    with pytest.raises(UsageError, match=r"a\.xml"):
        open_set("voc", folder, images)
    found = open_set("voc", folder, images, lenient=True)
    assert (found.dropped, sum(map(len, found))) == (1, 1)


def test_classes_that_differ_in_capitals_are_refused(tmp_path: Path, images: Path) -> None:
    objects = "".join(OBJECT.format(name=name, difficult=0, x1=1, y1=1, x2=20, y2=30) for name in ("Cat", "cat"))
    with pytest.raises(UsageError):
        open_set("voc", write_voc(tmp_path / "Annotations", a=objects), images)


def test_unknown_option(tmp_path: Path, images: Path) -> None:
    with pytest.raises(UsageError):
        open_set("voc", write_voc(tmp_path / "Annotations"), images, options={"nmaes": "x"})
