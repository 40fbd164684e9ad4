from __future__ import annotations

import errno
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from results.sample_detections import LABELS, SAMPLE, SampleRecords, detections

from regionclip_cli import __version__
from regionclip_cli.errors import InputError, OutputError
from regionclip_cli.files import PART
from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.results.writers import WRITERS
from regionclip_cli.results.writers.images import drawn_name

GOLDEN = {
    "jsonl": [],
    "coco": ["coco.json", "coco_results.json"],
    "csv": ["detections.csv"],
    "yolo": ["yolo/data.yaml", *(f"yolo/labels/{name}.txt" for name in ("a/1", "b/1", "b/2"))],
    "voc": ["voc/ImageSets/Main/default.txt", *(f"voc/Annotations/{name}.xml" for name in ("a/1", "b/1", "b/2"))],
    "cvat": ["cvat.xml"],
    "label-studio": ["label-studio.json", "label-studio.xml"],
}


def render(
    name: str, folder: Path, sample: Sequence[ImageDetections] = SAMPLE, gone: Sequence[str] = (), **options: Any
) -> SampleRecords:
    """Render a sample whose images are files, its journal beside the output folder, and return the records."""
    folder.mkdir(parents=True, exist_ok=True)
    records = SampleRecords(folder.with_suffix(".jsonl"), sample, gone)
    pkgutil.resolve_name(WRITERS[name].render)(records, folder, LABELS, **options)
    return records


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files(name: str, tmp_path: Path, fixtures: Path) -> None:
    render(name, tmp_path / "out")
    written = contents(tmp_path / "out")
    assert set(GOLDEN[name]) <= set(written)
    for file in GOLDEN[name]:
        golden = fixtures / "writers" / name / file.removeprefix(f"{name}/")
        assert written[file].decode().replace(__version__, "VERSION") == golden.read_text()


@pytest.mark.parametrize("name", WRITERS)
def test_render_again_gives_the_same_files(name: str, tmp_path: Path) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    for upto in (1, 3, 3):
        render(name, tmp_path / "parts", SAMPLE[:upto])
    render(name, tmp_path / "whole")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", WRITERS)
def test_render_without_images(name: str, tmp_path: Path) -> None:
    render(name, tmp_path / "out", ())
    assert {path.name for path in (tmp_path / "out").iterdir()} <= set(WRITERS[name].outputs)


@pytest.mark.parametrize("name", WRITERS)
def test_outputs_are_all_that_is_written(name: str, tmp_path: Path) -> None:
    render(name, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(WRITERS[name].outputs)


def test_yolo_label_names_of_images_that_differ_in_suffix(tmp_path: Path) -> None:
    sample = (detections("a.jpg", [], (9, 9)), detections("a.png", [(0, 1, (0, 0, 9, 9))], (9, 9)))
    render("yolo", tmp_path / "out", sample)
    assert (tmp_path / "out/yolo/labels/a.txt").read_text() == ""
    assert (tmp_path / "out/yolo/labels/a.png.txt").read_text() == "0 0.500000 0.500000 1.000000 1.000000\n"
    assert sorted(path.name for path in (tmp_path / "out/yolo/images").iterdir()) == ["a.jpg", "a.png.png"]


def test_drawn_images_keep_name_and_format(tmp_path: Path) -> None:
    kinds = {"a/1.jpg": "JPEG", "b.PNG": "PNG", "c.webp": "WEBP", "d.tif": "JPEG", "d.tif.jpg": "JPEG", "stdin": "JPEG"}
    render("images", tmp_path / "out", [detections(name, [(0, 0.5, (4, 4, 40, 40))], (64, 48)) for name in kinds])
    files = ["a/1.jpg", "b.PNG", "c.webp", "d.tif.jpg", "d.tif.jpg.jpg", "stdin.jpg"]
    assert sorted(contents(tmp_path / "out/images")) == sorted(files)
    for file, kind in zip(files, kinds.values(), strict=True):
        with Image.open(tmp_path / "out/images" / file) as image:
            assert image.format == kind
            assert image.size == (64, 48)


def test_drawn_names_are_unique() -> None:
    names = ["a.tif", "a.tif.jpg", "a.jpg", "a", "a.jpg.jpg", "a.png", "a.jpg.png"]
    assert len({drawn_name(name) for name in names}) == len(names)


def test_images_that_cannot_be_read_are_skipped(tmp_path: Path) -> None:
    records = render("images", tmp_path / "out", gone=["b/1.jpg"])
    assert records.skipped == ["b/1.jpg"]
    assert sorted(contents(tmp_path / "out")) == ["images/a/1.jpg", "images/b/2.png"]


def test_changed_image_is_skipped(tmp_path: Path) -> None:
    records = SampleRecords(tmp_path / "detections.jsonl", SAMPLE[:1])
    (record,) = records
    with pytest.raises(InputError):
        records.pixels({**record, "width": 3})


@pytest.mark.parametrize("name", ["images", "yolo", "voc"])
def test_name_too_long_skips_that_image(name: str, tmp_path: Path) -> None:
    long = "x" * 253
    records = render(name, tmp_path / "out", (detections(long, [], (9, 9)), *SAMPLE))
    assert records.skipped == [long]
    render(name, tmp_path / "whole")
    assert len(contents(tmp_path / "out")) == len(contents(tmp_path / "whole"))


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "jsonl"])
def test_full_disk_raises_output_error_and_leaves_no_partial_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "out"
    folder.mkdir()
    records = SampleRecords(tmp_path / "out.jsonl")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError):
        pkgutil.resolve_name(WRITERS[name].render)(records, folder, LABELS)
    assert contents(folder) == {}
    assert not list(folder.rglob(PART))
