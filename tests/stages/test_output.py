from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listening import Listener
from results.sample_detections import LABELS, SAMPLE

from regionclip_cli.errors import MissingError, OutputError, PluginError, UsageError
from regionclip_cli.specs import WriterSpec
from regionclip_cli.stages import detect_output
from regionclip_cli.stages.detect_output import OutputFolder, find_format

ABOUT = {"model": "toy", "labels": list(LABELS), "conf": 0.25}


def opened(folder: Path, formats: tuple[str, ...] = (), resume: bool = False) -> OutputFolder:
    out = OutputFolder(folder, formats, resume)
    out.open(LABELS, ABOUT)
    return out


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a plugin format called `extra` with this code behind it."""

    def call(render: Any) -> None:
        monkeypatch.setattr(detect_output.plugins, "entries", lambda kind: [entry])
        monkeypatch.setattr(detect_output.plugins, "load", lambda entry: spec)
        monkeypatch.setattr(detect_output.pkgutil, "resolve_name", lambda dotted: resolve(dotted, render))

    resolve_name = detect_output.pkgutil.resolve_name

    def resolve(dotted: str, render: Any) -> Any:
        return render if dotted == "extra:render" else resolve_name(dotted)

    entry = detect_output.plugins.Entry("writers", "extra", "regionclip-extra", "1.0", "extra:SPEC")
    spec = WriterSpec("extra", "", "extra:render", ("extra.txt",))
    return call


def test_files_of_a_run(tmp_path: Path) -> None:
    out = opened(tmp_path / "deep" / "out", ("jsonl", "csv", "jsonl"))
    out.write(SAMPLE[0])
    out.close()
    names = {path.name for path in out.folder.iterdir()}
    assert names == {"detections.jsonl", "detections.csv", "run.json", "run.log"}
    assert json.loads((out.folder / "run.json").read_text()) == {**ABOUT, "formats": ["jsonl", "csv"]}
    assert "DEBUG a/1.jpg: 2 detections" in (out.folder / "run.log").read_text()
    assert "regionclip run" not in logging.Logger.manager.loggerDict


def test_journal_is_written_without_any_format(tmp_path: Path) -> None:
    out = opened(tmp_path)
    for found in SAMPLE:
        out.write(found)
        assert json.loads((tmp_path / "detections.jsonl").read_text().splitlines()[-1]) == found.to_json()
    out.close()
    assert {path.name for path in tmp_path.iterdir()} == {"detections.jsonl", "run.json", "run.log"}


def test_path_is_stored_where_the_name_is_not_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = opened(tmp_path / "out")
    out.write(SAMPLE[0], tmp_path / "a/1.jpg")
    out.write(SAMPLE[1], Path("/elsewhere/b/1.jpg"))
    out.write(SAMPLE[2], None, np.zeros((48, 64, 3), np.uint8))
    out.close()
    lines = (tmp_path / "out/detections.jsonl").read_text().splitlines()
    assert [json.loads(line).get("path") for line in lines] == [None, "/elsewhere/b/1.jpg", None]


def test_nothing_is_created_before_open(tmp_path: Path) -> None:
    OutputFolder(tmp_path / "out", ("jsonl",), False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("held", ["detections.jsonl", "errors.jsonl", "coco.json"])
@pytest.mark.parametrize("resume", [False, True])
def test_results_of_other_programs_are_refused(held: str, resume: bool, tmp_path: Path) -> None:
    (tmp_path / held).write_text("{}\n")
    with pytest.raises(UsageError, match=held):
        OutputFolder(tmp_path, ("coco",), resume)
    assert (tmp_path / held).read_text() == "{}\n"


def test_results_of_a_run_need_resume(tmp_path: Path) -> None:
    out = opened(tmp_path, ("coco",))
    out.write(SAMPLE[0])
    out.close()
    with pytest.raises(UsageError, match="--resume"):
        OutputFolder(tmp_path, ("coco",), False)
    opened(tmp_path, ("coco",), True).close()


def test_unrelated_and_empty_files_are_no_results(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "images").mkdir()
    (tmp_path / "detections.jsonl").touch()
    opened(tmp_path, ("jsonl", "images")).close()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_resume_with_other_settings_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    before = (tmp_path / "run.json").read_bytes()
    out = OutputFolder(tmp_path, ("jsonl",), True)
    with pytest.raises(UsageError, match="labels"):
        out.open(["dog"], {**ABOUT, "labels": ["dog"]})
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize("content", ["{", "[]", '{"formats": 3}', "\\xff"])
def test_resume_with_damaged_run_file_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UsageError, match=r"run\.json"):
        OutputFolder(tmp_path, (), True)


def test_format_added_to_a_finished_run(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write(SAMPLE[0])
    first.close()
    lines = (tmp_path / "detections.jsonl").read_bytes()
    second = opened(tmp_path, ("yolo",), resume=True)
    assert second.has(SAMPLE[0].image)
    second.close()
    assert (tmp_path / "detections.jsonl").read_bytes() == lines
    assert (tmp_path / "yolo/labels/a/1.txt").exists()
    assert json.loads((tmp_path / "run.json").read_text())["formats"] == ["jsonl", "yolo"]


def test_torn_line_is_cut(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for found in SAMPLE:
        first.write(found)
    first.abort(KeyboardInterrupt())
    whole = (tmp_path / "detections.jsonl").read_bytes()
    (tmp_path / "detections.jsonl").write_bytes(whole[:-5])
    second = opened(tmp_path, resume=True)
    assert [second.has(found.image) for found in SAMPLE] == [True, True, False]
    second.write(SAMPLE[2])
    second.close()
    assert (tmp_path / "detections.jsonl").read_bytes() == whole


def test_failures_are_listed_until_they_succeed(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.fail(SAMPLE[0].image, "It is bad.")
    first.fail("other.jpg", "It is worse.")
    first.close()
    record = {"image": "a/1.jpg", "error": "It is bad."}
    assert json.loads((tmp_path / "errors.jsonl").read_text().splitlines()[0]) == record
    second = opened(tmp_path, resume=True)
    second.fail("other.jpg", "It is worse.")
    second.write(SAMPLE[0])
    second.close()
    assert [json.loads(line)["image"] for line in (tmp_path / "errors.jsonl").read_text().splitlines()] == ["other.jpg"]
    third = opened(tmp_path, resume=True)
    third.write(SAMPLE[2].__class__(**{**vars(SAMPLE[2]), "image": "other.jpg"}))
    third.close()
    assert not (tmp_path / "errors.jsonl").exists()


def test_run_without_failures_has_no_error_list(tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert not (tmp_path / "errors.jsonl").exists()


def test_aborted_run_can_be_resumed(tmp_path: Path) -> None:
    first = opened(tmp_path, ("coco",))
    first.write(SAMPLE[0])
    first.abort(KeyboardInterrupt())
    assert not (tmp_path / "coco.json").exists()
    assert "ERROR stopped: KeyboardInterrupt" in (tmp_path / "run.log").read_text()
    second = opened(tmp_path, ("coco",), resume=True)
    assert second.has("a/1.jpg")
    second.close()
    assert len(json.loads((tmp_path / "coco.json").read_text())["images"]) == 1


def test_unknown_format_and_bad_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="jsonl"):
        OutputFolder(tmp_path, ("jsonnl",), False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        OutputFolder(tmp_path / "file", ("jsonl",), False)


def test_images_from_standard_input_can_be_drawn(tmp_path: Path) -> None:
    out = opened(tmp_path, ("images",))
    out.write(SAMPLE[2].__class__(**{**vars(SAMPLE[2]), "image": "stdin"}), None, np.zeros((48, 64, 3), np.uint8))
    assert out.close() == detect_output.Rendered()
    assert (tmp_path / "images/stdin.jpg").exists()


def test_image_that_is_gone_is_reported(tmp_path: Path) -> None:
    out, listener = opened(tmp_path, ("images",)), Listener()
    out.write(SAMPLE[0], tmp_path / "gone.jpg")
    assert out.close(listener).skipped == ("a/1.jpg",)
    assert len(listener.warnings) == 1


def test_plugin_format_gets_records_folder_and_labels(tmp_path: Path, offer: Callable[..., None]) -> None:
    def render(records: Any, folder: Path, labels: Any) -> None:
        assert len(records) == 3
        found = [one["label"] for record in records for one in record["detections"]]
        (folder / "extra.txt").write_text(f"{labels} {found}")

    offer(render)
    out = opened(tmp_path, ("extra",))
    for found in SAMPLE:
        out.write(found)
    assert out.close().broken == ()
    assert (tmp_path / "extra.txt").read_text() == f"{LABELS} {['coffee cup', 'cat', 'cat']}"


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), OutputError("full."), SystemExit(3), MemoryError()])
def test_failing_plugin_format_does_not_stop_the_others(
    error: BaseException, tmp_path: Path, offer: Callable[..., None]
) -> None:
    def render(*_: Any) -> None:
        raise error

    offer(render)
    out, listener = opened(tmp_path, ("extra", "csv")), Listener()
    out.write(SAMPLE[0])
    assert out.close(listener).broken == ("extra",)
    assert len(listener.warnings) == 1
    assert "\n" not in listener.warnings[0]
    assert (tmp_path / "detections.csv").exists()


def test_failing_built_in_format_is_raised_after_the_others(tmp_path: Path) -> None:
    out = opened(tmp_path, ("coco", "csv"))
    out.write(SAMPLE[0])
    (tmp_path / "coco.json").mkdir()
    with pytest.raises(OutputError):
        out.close()
    assert (tmp_path / "detections.csv").exists()


def test_plugins_are_looked_up_once(tmp_path: Path, offer: Callable[..., None], monkeypatch: Any) -> None:
    offer(lambda records, folder, labels: None)
    out = opened(tmp_path, ("extra",))

    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(detect_output.plugins, "entries", refuse)
    for found in SAMPLE:
        out.write(found)
    out.close()


def test_writer_class_is_refused(offer: Callable[..., None]) -> None:
    offer(dict)
    with pytest.raises(PluginError, match="function"):
        find_format("extra")


def test_format_options_are_typed(tmp_path: Path) -> None:
    out = OutputFolder(tmp_path, ("yolo", "html"), False, options=("yolo.scores=true", "html.side=320"))
    assert [dict(form.options) for form in out.formats] == [
        {"scores": True, "images": "copy"},
        {"max_images": 500, "side": 320},
    ]


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("scores=true", "scores=true"),
        ("yolo.scores", "yolo.scores"),
        ("voc.scores=true", "'voc'"),
        ("yolo.score=true", "'score'"),
        ("yolo.scores=7", "yolo.scores"),
        ("yolo.scores={", "yolo.scores"),
    ],
)
def test_wrong_format_options_are_refused(option: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=named):
        OutputFolder(tmp_path, ("yolo",), False, options=(option,))


def test_format_checks_its_options_before_any_work(tmp_path: Path) -> None:
    out = OutputFolder(tmp_path / "out", ("yolo",), False, options=("yolo.images=move",))
    with pytest.raises(UsageError, match="'move'"):
        out.open(LABELS, ABOUT)
    assert not (tmp_path / "out").exists()


def test_missing_package_of_a_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect_output.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="pyarrow") as caught:
        find_format("parquet")
    assert "regionclip-cli[parquet]" in caught.value.hint
