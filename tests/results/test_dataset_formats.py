"""Formats that other tools read, checked by reading them with those tools or against their published form."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from results.sample_detections import LABELS, SAMPLE, SampleRecords, detections

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.results.writers import coco, cvat, html, label_studio, parquet, voc, yolo

HOSTILE = '<img src=x onerror="alert(1)">&\x1b[31m.jpg'


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SampleRecords:
    """Return the sample, its images as files in the working folder."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for found in SAMPLE:
        Path(found.image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (found.width, found.height), "gray").save(found.image)
    return SampleRecords(tmp_path / "detections.jsonl")


def annotation_file(path: Path, **changes: Any) -> Path:
    content = {
        "images": [{"id": 70 + number, "file_name": f"x/{found.image}"} for number, found in enumerate(SAMPLE)],
        "categories": [{"id": 17, "name": "Cat"}, {"id": 40, "name": "coffee cup"}, {"id": 3, "name": "dog"}],
        "annotations": [],
    }
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_yolo_reads_in_supervision(records: SampleRecords, tmp_path: Path) -> None:
    import supervision as sv

    yolo.render(records, tmp_path, LABELS)
    read = sv.DetectionDataset.from_yolo("yolo/images/b", "yolo/labels/b", "yolo/data.yaml")
    assert read.classes == list(LABELS)
    (found,) = (boxes for path, boxes in read.annotations.items() if path.endswith("2.png"))
    np.testing.assert_allclose(found.xyxy, [[1.25, 2.5, 33.33, 40]], atol=0.01)
    assert found.class_id.tolist() == [0]
    assert Path("yolo/images/a/1.jpg").read_bytes() == Path("a/1.jpg").read_bytes()


def test_yolo_scores_and_images_are_options(records: SampleRecords, tmp_path: Path) -> None:
    yolo.render(records, tmp_path, LABELS, scores=True, images="none")
    assert len(Path("yolo/labels/b/2.txt").read_text().split()) == 6
    assert not Path("yolo/images").exists()
    yolo.render(records, tmp_path, LABELS, images="link")
    assert Path("yolo/images/a/1.jpg").samefile("a/1.jpg")
    with pytest.raises(UsageError, match="'move'"):
        yolo.check(LABELS, scores=True, images="move")


@pytest.mark.parametrize("writer", [yolo, voc])
def test_missing_image_file_is_skipped(writer: Any, tmp_path: Path) -> None:
    records = SampleRecords(tmp_path / "detections.jsonl", gone=["b/1.jpg"])
    writer.render(records, tmp_path, LABELS)
    assert records.skipped == ["b/1.jpg"]


def test_voc_reads_in_supervision(records: SampleRecords, tmp_path: Path) -> None:
    import supervision as sv

    voc.render(records, tmp_path, LABELS)
    read = sv.DetectionDataset.from_pascal_voc("voc/JPEGImages/b", "voc/Annotations/b")
    (found,) = (boxes for path, boxes in read.annotations.items() if path.endswith("2.png"))
    np.testing.assert_allclose(found.xyxy, [[1.25, 2.5, 33.33, 40]], atol=1)
    assert Path("voc/ImageSets/Main/default.txt").read_text().split() == ["a/1", "b/1", "b/2"]


def test_coco_reads_in_supervision(records: SampleRecords, tmp_path: Path) -> None:
    import supervision as sv

    coco.render(records, tmp_path, LABELS)
    read = sv.DetectionDataset.from_coco(str(tmp_path), "coco.json")
    assert read.classes == list(LABELS)
    assert sorted(len(found) for found in read.annotations.values()) == [0, 1, 2]


def test_result_list_loads_with_ids_of_the_annotations(records: SampleRecords, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    path = annotation_file(tmp_path / "instances.json")
    coco.check(LABELS, str(path))
    coco.render(records, tmp_path, LABELS, annotations=str(path))
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(path)).loadRes("coco_results.json")
        COCO("coco.json").loadRes("coco_results.json")
    assert [(one["image_id"], one["category_id"]) for one in loaded.anns.values()] == [(70, 40), (70, 17), (72, 17)]
    assert records.skipped == []


def test_images_outside_the_annotations_are_skipped_once(records: SampleRecords, tmp_path: Path) -> None:
    path = annotation_file(tmp_path / "instances.json", images=[{"id": 5, "file_name": "b/2.png"}])
    coco.render(records, tmp_path, LABELS, annotations=str(path))
    assert records.skipped == ["a/1.jpg", "b/1.jpg"]
    assert [one["id"] for one in json.loads(Path("coco.json").read_text())["images"]] == [5]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"categories": [{"id": 1, "name": "cot"}]}, UsageError),
        ({"categories": [{"id": 1}]}, UsageError),
        ({"images": []}, UsageError),
        ({"images": [{"id": "x", "file_name": "a"}]}, UsageError),
        (None, MissingError),
    ],
)
def test_wrong_annotation_files_are_refused(changes: Any, error: type[Exception], tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    if changes is not None:
        annotation_file(path, **changes)
    with pytest.raises(error, match=r"instances\.json"):
        coco.check(LABELS, str(path))


def test_parquet_rows(records: SampleRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(parquet, "ROWS", 2)
    parquet.render(records, tmp_path, LABELS)
    table = pq.read_table("detections.parquet")
    assert json.loads(table.schema.metadata[b"labels"]) == list(LABELS)
    rows = table.to_pylist()
    assert [(row["image"], row["label"], row["score"]) for row in rows] == [
        ("a/1.jpg", "coffee cup", 0.9),
        ("a/1.jpg", "cat", 0.25),
        ("b/2.png", "cat", 0.5),
    ]
    assert [rows[2][side] for side in ("x1", "y1", "x2", "y2")] == [1.25, 2.5, 33.33, 40.0]


def test_cvat_scores_are_declared_attributes(records: SampleRecords, tmp_path: Path) -> None:
    cvat.render(records, tmp_path, LABELS, scores=True)
    root = ElementTree.parse("cvat.xml").getroot()
    declared = [[each.findtext("name") for each in label.iter("attribute")] for label in root.iter("label")]
    assert declared == [["score"], ["score"]]
    assert [each.text for each in root.iterfind("image/box/attribute")] == ["0.9", "0.25", "0.5"]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    labels = ("</script><b>", 'a"b\x00')
    found = detections(HOSTILE, [(0, 0.5, (1, 1, 9, 9)), (1, 0.25, (1, 1, 9, 9))], (12, 12))
    found = found.__class__(**{**vars(found), "labels": labels})
    records = SampleRecords(tmp_path / "detections.jsonl", [found])
    for writer in (cvat, html, label_studio):
        writer.render(records, tmp_path, labels)
    image = ElementTree.parse(tmp_path / "cvat.xml").getroot().find("image")
    assert image is not None
    assert image.get("name") == HOSTILE.replace("\x1b", "\ufffd")
    ElementTree.parse(tmp_path / "label-studio.xml")
    (task,) = json.loads((tmp_path / "label-studio.json").read_text())
    assert task["data"]["name"] == HOSTILE
    assert "<" not in task["data"]["image"]
    page = (tmp_path / "review.html").read_text()
    assert "<img src=x" not in page
    assert page.count("<script>") == page.count("</script>") == 1


def test_review_page_is_self_contained(records: SampleRecords, tmp_path: Path) -> None:
    from html.parser import HTMLParser

    class Page(HTMLParser):
        addresses: list[str | None] = []  # noqa: RUF012
        groups: list[dict[str, str | None]] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.addresses += [value for key, value in attrs if key in ("src", "href")]
            self.groups += [dict(attrs)] if tag == "g" else []

    html.render(records, tmp_path, LABELS)
    page = Page()
    page.feed(Path("review.html").read_text())
    assert len(page.addresses) == 3
    assert all(str(address).startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert [(group["data-label"], group["data-score"]) for group in page.groups] == [
        ("cat", "0.25"),
        ("coffee cup", "0.9"),
        ("cat", "0.5"),
    ]


def test_review_page_shows_at_most_some_images(records: SampleRecords, tmp_path: Path) -> None:
    html.render(records, tmp_path, LABELS, max_images=2)
    assert Path("review.html").read_text().count("<figure>") == 2
