"""Finished labels in other forms: a COCO file and a page, without asking the teacher again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from label_toys import NAMES, labelling, rows

from regionclip_cli.errors import UsageError
from regionclip_cli.stages import label_exports, label_teacher, pseudolabel
from regionclip_cli.stages.label_exports import write_errors
from regionclip_cli.stages.pseudolabel import PseudolabelResult, run


@pytest.fixture
def finished(work: Path, toy_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Label once, and let no teacher be made again."""
    Path("photos/5.png").write_bytes(b"x")
    run(labelling(toy_teacher, min_score=0.6))

    def refuse(*_: object) -> None:
        raise AssertionError("the teacher was asked again")

    monkeypatch.setattr(pseudolabel, "RegionTeacher", refuse)
    monkeypatch.setattr(label_teacher, "load_detector", refuse)
    return toy_teacher


def test_coco_export(finished: Path) -> None:
    result = run(labelling(finished, min_score=0.6), formats=("coco",))
    assert isinstance(result, PseudolabelResult)
    assert result.written == (Path("run/labels/coco.json"), Path("run/labels/regions.html"))
    assert (result.images, result.failed) == (0, 1)
    content = json.loads(Path("run/labels/coco.json").read_text())
    good = [row for row in rows() if "error" not in row]
    assert [image["file_name"] for image in content["images"]] == [row["key"] for row in good]
    assert [[image["width"], image["height"]] for image in content["images"]] == [row["size"] for row in good]
    used = sorted({concepts[0] for row in good for concepts in row["concepts"]})
    assert [category["name"] for category in content["categories"]] == [NAMES[concept] for concept in used]
    names = {category["id"]: category["name"] for category in content["categories"]}
    keys = {image["id"]: image["file_name"] for image in content["images"]}
    found = [
        (keys[one["image_id"]], names[one["category_id"]], one["score"], one["bbox"][:2])
        for one in content["annotations"]
    ]
    assert found == [
        (row["key"], NAMES[concepts[0]], probs[0], box[:2])
        for row in good
        for box, concepts, probs in zip(row["boxes"], row["concepts"], row["probs"], strict=True)
    ]
    assert len(found) > 5


def test_coco_export_loads_in_pycocotools(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    run(labelling(finished, min_score=0.6), formats=("coco",))
    coco = COCO("run/labels/coco.json")
    capsys.readouterr()
    assert len(coco.imgs) == 6
    assert len(coco.anns) == sum(len(row.get("boxes", ())) for row in rows())


def test_region_page_shows_most_probable_regions(finished: Path) -> None:
    result = run(labelling(finished, min_score=0.6), formats=("html",), resume=True)
    assert isinstance(result, PseudolabelResult)
    assert result.written == (Path("run/labels/regions.html"),)
    assert "Written: run/labels/regions.html." in result.summary()
    text = Path("run/labels/regions.html").read_text()
    assert text.count("<section>") == 6
    shown = sum(min(8, len(row.get("boxes", ()))) for row in rows())
    assert text.count("<figure") == shown
    assert "&lt;b&gt;shapes&lt;/b&gt;" in text
    assert "toy, roi view, temperature 0.01" in text
    assert not Path("run/labels/coco.json").exists()


def test_missing_image_is_left_out_of_the_page(finished: Path) -> None:
    Path("photos/0.png").unlink()
    run(labelling(finished, min_score=0.6), formats=("html",), resume=True)
    assert Path("run/labels/regions.html").read_text().count("<section>") == 5


def test_region_page_limits(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_exports, "PAGE_IMAGES", 3)
    monkeypatch.setattr(label_exports, "PAGE_REGIONS", 1)
    run(labelling(finished, min_score=0.6), formats=("html",))
    text = Path("run/labels/regions.html").read_text()
    assert [key in text for key in ("photos/0.png", "photos/2.png", "photos/4.png", "photos/1.png")] == [
        *(True, True, True, False)
    ]


def test_unknown_format_is_refused(work: Path, toy_teacher: Path) -> None:
    with pytest.raises(UsageError, match=r"'cocoo'.*'coco'"):
        run(labelling(toy_teacher), formats=("cocoo",))
    assert not Path("run").exists()


def test_partial_run_writes_no_export(work: Path, toy_teacher: Path) -> None:
    result = run(labelling(toy_teacher), formats=("coco",), shard_of="1/2")
    assert isinstance(result, PseudolabelResult)
    assert result.written == ()
    run(labelling(toy_teacher), shard_of="2/2")
    whole = run(labelling(toy_teacher), formats=("coco",))
    assert isinstance(whole, PseudolabelResult)
    assert len(whole.written) == 2


def test_labels_and_exports_in_one_run(work: Path, toy_teacher: Path) -> None:
    result = run(labelling(toy_teacher), formats=("html", "coco", "html"))
    assert isinstance(result, PseudolabelResult)
    assert (result.images, len(result.written)) == (7, 2)


def test_exports_without_regions(work: Path, toy_teacher: Path) -> None:
    run(labelling(toy_teacher, min_score=1), formats=("coco",))
    content = json.loads(Path("run/labels/coco.json").read_text())
    assert (len(content["images"]), content["annotations"], content["categories"]) == (7, [], [])
    assert Path("run/labels/regions.html").read_text().count("0 of 0 labelled regions") == 7


def test_error_list_covers_all_shards(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may finish a shard while the list is being written."""
    from regionclip_cli.data.region_labels.format import read_manifest

    folder = Path("run/labels")
    whole = (folder / "errors.jsonl").read_bytes()
    late = folder / "labels-00001.jsonl"
    late.rename("late")
    failures, turns = label_exports._failures, 0

    def slow(*arguments: object) -> object:
        nonlocal turns
        turns += 1
        found = list(failures(*arguments))
        if turns == 1:
            Path("late").rename(late)
        return found

    monkeypatch.setattr(label_exports, "_failures", slow)
    assert write_errors(folder, read_manifest(folder)) == folder / "errors.jsonl"
    assert turns == 2
    assert (folder / "errors.jsonl").read_bytes() == whole
