from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from results.sample_detections import LABELS, SAMPLE

from regionclip_cli.errors import OutputError, PluginError, UsageError
from regionclip_cli.results.writers.jsonl import JsonlWriter
from regionclip_cli.specs import WriterSpec
from regionclip_cli.stages import detect_output
from regionclip_cli.stages.detect_output import OutputFolder

ABOUT = {"model": "toy", "labels": list(LABELS), "conf": 0.25}


def opened(folder: Path, formats: tuple[str, ...] = ("jsonl",), resume: bool = False) -> OutputFolder:
    out = OutputFolder(folder, formats, resume)
    out.open(LABELS, ABOUT)
    return out


def test_a_run_leaves_its_results_its_subject_and_its_log(tmp_path: Path) -> None:
    out = opened(tmp_path / "deep" / "out", ("jsonl", "csv", "jsonl"))
    out.write(SAMPLE[0], None)
    out.close()
    names = {path.name for path in out.folder.iterdir()}
    assert names == {"detections.jsonl", "detections.csv", "run.json", "run.log"}
    assert json.loads((out.folder / "run.json").read_text()) == ABOUT
    assert "DEBUG a/1.jpg: 2 detections" in (out.folder / "run.log").read_text()
    assert "regionclip run" not in logging.Logger.manager.loggerDict


def test_nothing_is_made_until_it_is_opened(tmp_path: Path) -> None:
    OutputFolder(tmp_path / "out", ("jsonl",), False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("held", ["detections.jsonl", "errors.jsonl"])
def test_results_of_another_run_are_not_touched(held: str, tmp_path: Path) -> None:
    (tmp_path / held).write_text("{}\n")
    with pytest.raises(UsageError, match=rf"holds the results of another run already \({held}\). Add --resume"):
        OutputFolder(tmp_path, ("jsonl",), False)
    OutputFolder(tmp_path, ("jsonl",), True)


def test_foreign_and_empty_files_are_no_results(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "images").mkdir()
    (tmp_path / "detections.jsonl").touch()
    opened(tmp_path, ("jsonl", "images")).close()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_resuming_with_another_question_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    out = OutputFolder(tmp_path, ("jsonl",), True)
    with pytest.raises(UsageError, match=r'had labels = \["cat", "coffee cup"\], and this one has \["dog"\]'):
        out.open(["dog"], {**ABOUT, "labels": ["dog"]})
    assert json.loads((tmp_path / "run.json").read_text()) == ABOUT


def test_a_format_added_later_gets_every_image(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write(SAMPLE[0], None)
    first.close()
    lines = (tmp_path / "detections.jsonl").read_bytes()
    second = opened(tmp_path, ("jsonl", "yolo"), resume=True)
    assert not second.has(SAMPLE[0].image)
    second.write(SAMPLE[0], None)
    assert second.has(SAMPLE[0].image)
    second.close()
    assert (tmp_path / "detections.jsonl").read_bytes() == lines
    assert (tmp_path / "labels" / "a" / "1.txt").exists()


def test_failures_are_listed_until_they_are_mended(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.fail(SAMPLE[0].image, "It is bad.")
    first.fail("other.jpg", "It is worse.")
    first.close()
    record = {"image": "a/1.jpg", "error": "It is bad."}
    assert json.loads((tmp_path / "errors.jsonl").read_text().splitlines()[0]) == record
    second = opened(tmp_path, resume=True)
    second.fail("other.jpg", "It is worse.")
    second.write(SAMPLE[0], None)
    second.close()
    assert [json.loads(line)["image"] for line in (tmp_path / "errors.jsonl").read_text().splitlines()] == ["other.jpg"]
    third = opened(tmp_path, resume=True)
    third.write(SAMPLE[2].__class__(**{**vars(SAMPLE[2]), "image": "other.jpg"}), None)
    third.close()
    assert not (tmp_path / "errors.jsonl").exists()


def test_a_run_without_failures_has_no_list_of_them(tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert not (tmp_path / "errors.jsonl").exists()


def test_an_aborted_run_can_be_taken_up(tmp_path: Path) -> None:
    first = opened(tmp_path, ("jsonl", "coco"))
    first.write(SAMPLE[0], None)
    first.abort(KeyboardInterrupt())
    assert not (tmp_path / "coco.json").exists()
    assert "ERROR stopped: KeyboardInterrupt" in (tmp_path / "run.log").read_text()
    second = opened(tmp_path, ("jsonl", "coco"), resume=True)
    assert second.has("a/1.jpg")
    second.close()
    assert len(json.loads((tmp_path / "coco.json").read_text())["images"]) == 1


def test_unknown_formats_and_bad_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'jsonl'"):
        OutputFolder(tmp_path, ("jsonnl",), False)
    with pytest.raises(UsageError, match="No format to write was named"):
        OutputFolder(tmp_path, (), False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        OutputFolder(tmp_path / "file", ("jsonl",), False)


class BrokenWriter(JsonlWriter):
    def write(self, detections: object, pixels: object) -> None:
        raise ZeroDivisionError("oops")


def test_a_plugins_writer_is_blamed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = WriterSpec("broken", "", f"{__name__}:BrokenWriter")
    entry = detect_output.plugins.Entry("writers", "broken", "regionclip-broken", "1.0", "x:y")
    monkeypatch.setattr(detect_output.plugins, "find", lambda kind, name: spec)
    monkeypatch.setattr(detect_output.plugins, "lookup", lambda kind, name: entry)
    monkeypatch.setattr(detect_output.pkgutil, "resolve_name", lambda dotted: BrokenWriter)
    out = opened(tmp_path, ("broken",))
    with pytest.raises(PluginError, match=r"regionclip-broken 1\.0 is broken: ZeroDivisionError: oops") as caught:
        out.write(SAMPLE[0], None)
    out.abort(caught.value)


def test_what_is_no_writer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect_output.pkgutil, "resolve_name", lambda dotted: dict)
    with pytest.raises(PluginError, match="which is not a Writer"):
        OutputFolder(tmp_path, ("jsonl",), False)
