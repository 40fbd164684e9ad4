from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from PIL import Image
from results.sample_detections import LABELS, SAMPLE, detections, pixels

from regionclip_cli.errors import OutputError, UsageError
from regionclip_cli.files import PART
from regionclip_cli.results.writers import WRITERS
from regionclip_cli.results.writers.base import Writer

GOLDEN = {
    "jsonl": ["detections.jsonl"],
    "coco": ["coco.json", "coco_results.json"],
    "csv": ["detections.csv"],
    "yolo": ["labels/a/1.txt", "labels/b/1.txt", "labels/b/2.txt", "classes.txt", "labels.jsonl"],
}


def make(name: str) -> Writer:
    module, _, attribute = WRITERS[name].writer.partition(":")
    writer = getattr(importlib.import_module(module), attribute)()
    assert isinstance(writer, Writer)
    return writer


def write(name: str, folder: Path, resume: bool = False, upto: int = len(SAMPLE), finish: bool = True) -> list[str]:
    """Write the sample as a run does, and return the images that were not there already."""
    writer = make(name)
    writer.open(folder, LABELS, resume)
    fresh = [found for found in SAMPLE[:upto] if not writer.has(found.image)]
    for found in fresh:
        writer.write(found, pixels(found) if WRITERS[name].needs_pixels else None)
    writer.close() if finish else writer.abort()
    return [found.image for found in fresh]


def write_all(writer: Writer) -> None:
    for found in SAMPLE:
        writer.write(found, pixels(found))
    writer.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", GOLDEN)
def test_files_are_the_golden_ones(name: str, tmp_path: Path, fixtures: Path) -> None:
    write(name, tmp_path)
    written = contents(tmp_path)
    assert sorted(written) == sorted(GOLDEN[name])
    for file, content in written.items():
        assert content.decode() == (fixtures / "writers" / name / file).read_text()


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("upto", [0, 1, 2, 3])
@pytest.mark.parametrize("finish", [True, False])
def test_a_run_in_two_parts_writes_the_same(name: str, upto: int, finish: bool, tmp_path: Path) -> None:
    write(name, tmp_path / "whole")
    assert write(name, tmp_path / "parts", upto=upto, finish=finish) == [found.image for found in SAMPLE[:upto]]
    again = write(name, tmp_path / "parts", resume=True)
    left = [found.image for found in SAMPLE[upto:]]
    # A table has no row for an image without detections, so a finished one cannot tell that it was looked at.
    assert [image for image in again if image != "b/1.jpg"] == [image for image in left if image != "b/1.jpg"]
    if name != "csv":
        assert again == left
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", WRITERS)
def test_outputs_are_all_that_is_written(name: str, tmp_path: Path) -> None:
    for finish in (True, False):
        folder = tmp_path / str(finish)
        write(name, folder, finish=finish)
        assert {path.name for path in folder.iterdir()} <= set(make(name).outputs)


@pytest.mark.parametrize("name", ["jsonl", "coco", "csv", "yolo"])
def test_a_torn_line_is_cut_and_written_again(name: str, tmp_path: Path) -> None:
    write(name, tmp_path / "whole")
    write(name, tmp_path / "torn", finish=False)
    journal = next(path for path in (tmp_path / "torn").iterdir() if b'{"image"' in _first_bytes(path))
    journal.write_bytes(journal.read_bytes()[:-5])
    assert write(name, tmp_path / "torn", resume=True) == ["b/2.png"]
    if name == "yolo":  # the label file of the torn line was there; its second copy is the one that counts
        assert json.loads(journal.read_text().splitlines()[-1])["image"] == "b/2.png"
    else:
        assert contents(tmp_path / "torn") == contents(tmp_path / "whole")


def _first_bytes(path: Path) -> bytes:
    return path.read_bytes()[:20] if path.is_file() else b""


@pytest.mark.parametrize("name", ["coco", "csv"])
def test_files_of_others_are_not_added_to(name: str, tmp_path: Path) -> None:
    target = tmp_path / GOLDEN[name][0]
    target.write_text('{"images": 3}' if name == "coco" else "a,b\n1,2\n")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="was not written by this tool"):
        make(name).open(tmp_path, LABELS, resume=True)
    assert contents(tmp_path) == before


def test_a_new_run_never_opens_an_old_journal(tmp_path: Path) -> None:
    write("jsonl", tmp_path)
    with pytest.raises(OutputError, match="File exists"):
        make("jsonl").open(tmp_path, LABELS, resume=False)


def test_yolo_keeps_images_apart_that_differ_in_their_suffix(tmp_path: Path) -> None:
    writer = make("yolo")
    writer.open(tmp_path, LABELS, resume=False)
    writer.write(detections("a.jpg", [], (9, 9)), None)
    writer.close()
    writer = make("yolo")
    writer.open(tmp_path, LABELS, resume=True)
    assert not writer.has("a.png")
    writer.write(detections("a.png", [(0, 1, (0, 0, 9, 9))], (9, 9)), None)
    writer.close()
    assert (tmp_path / "labels" / "a.txt").read_text() == ""
    assert (tmp_path / "labels" / "a.png.txt").read_text() == "0 0.500000 0.500000 1.000000 1.000000 1.000000\n"


def test_pictures_keep_their_names_and_kinds(tmp_path: Path) -> None:
    writer = make("images")
    writer.open(tmp_path, LABELS, resume=False)
    kinds = {"a/1.jpg": "JPEG", "b.PNG": "PNG", "c.webp": "WEBP", "d.tif": "JPEG", "d.tif.jpg": "JPEG", "stdin": "JPEG"}
    for name in kinds:
        found = detections(name, [(0, 0.5, (4, 4, 40, 40))], (64, 48))
        assert not writer.has(name)
        writer.write(found, pixels(found))
        assert writer.has(name)
    files = ["a/1.jpg", "b.PNG", "c.webp", "d.tif.jpg", "d.tif.jpg.jpg", "stdin.jpg"]
    assert sorted(contents(tmp_path / "images")) == sorted(files)
    for file, kind in zip(files, kinds.values(), strict=True):
        with Image.open(tmp_path / "images" / file) as picture:
            assert picture.format == kind
            assert picture.size == (64, 48)


@pytest.mark.parametrize("name", WRITERS)
def test_a_refusing_disk_is_one_sentence_and_leaves_nothing_half(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    writer = make(name)
    writer.open(tmp_path, LABELS, resume=False)
    before = contents(tmp_path)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device") as caught:
        write_all(writer)
    monkeypatch.undo()
    writer.abort()
    assert "\n" not in str(caught.value)
    finals = {file: data for file, data in contents(tmp_path).items() if not file.endswith((".part", ".jsonl"))}
    assert finals == {file: data for file, data in before.items() if file in finals}
    assert not list(tmp_path.rglob(PART))
