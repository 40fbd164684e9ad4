"""`regionclip detect`: exit codes, streams, and every example of its help."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from regionclip_cli import app
from regionclip_cli.commands.detect import detect
from regionclip_cli.errors import ExitCode
from regionclip_cli.recipe.detection import DetectSettings


@pytest.fixture
def call(toy_model: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str) -> tuple[int, str, str]:
        code = app.main(["detect", *words, "--model", str(toy_model)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def test_summary_and_output_folder(call: Any) -> None:
    code, out, err = call("photos", "-r", "--classes", "cat,dog")
    assert code == ExitCode.OK
    assert out == ""
    assert "photos/sub/1.jpg" in err
    assert re.search(r"\d+ objects in 3 images\. Results are in regionclip-detections\.", err)
    assert {path.name for path in Path("regionclip-detections").iterdir()} == {
        *("detections.jsonl", "images", "run.json", "run.log")
    }
    pictures = Path("regionclip-detections/images/photos")
    assert (pictures / "1.jpg").exists()
    assert (pictures / "sub/1.jpg").exists()


def test_json_lines_on_stdout(call: Any) -> None:
    Path("photos/0.jpg").write_bytes(b"bad")
    code, out, err = call("photos", "-r", "--classes", "cat,dog", "--json")
    assert code == ExitCode.SOME_FAILED
    objects = [json.loads(line) for line in out.splitlines()]
    assert [one["image"] for one in objects] == ["photos/1.jpg", "photos/2.png", "photos/sub/1.jpg"]
    assert set(objects[0]) == {"image", "width", "height", "detections"}
    assert set(objects[0]["detections"][0]) == {"label", "score", "box"}
    assert "photos/0.jpg" in err
    assert {path.name for path in Path().iterdir()} == {"photos"}
    code, out, _ = call("photos", "-r", "--classes", "cat,dog", "--json", "--out", "out", "--format", "jsonl")
    assert Path("out/detections.jsonl").read_text() == out


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["photos"], ExitCode.USAGE, "--classes"),
        (["photos", "--classes", "cat", "--concepts", "bank"], ExitCode.USAGE, "concepts"),
        (["foto", "--classes", "cat"], ExitCode.USAGE, "'photos'"),
        (["photos", "--classes", "cat", "--iou", "3"], ExitCode.USAGE, "iou"),
        (["photos", "--classes", "cat", "--nms", "some"], ExitCode.USAGE, "some"),
        (["photos", "--classes", "cat", "--format", "jsonl,cocoo"], ExitCode.USAGE, "'coco'"),
        (["photos", "--classes", "cat", "--boxes", "b.json"], ExitCode.MISSING, "b.json"),
        (["photos", "--concepts", "bank.safetensors"], ExitCode.MISSING, "bank.safetensors"),
        (["photos", "--classes", "cat", "--proposals", "tinny"], ExitCode.MISSING, "tinny"),
        (["photos", "--classes", "cat", "--out", "photos/1.jpg"], ExitCode.USAGE, "photos/1.jpg"),
        (["-", "--classes", "cat"], ExitCode.USAGE, "input"),
    ],
)
def test_wrong_arguments_have_an_exit_code(
    words: list[str], code: ExitCode, named: str, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    got, out, err = call(*words)
    assert got == code
    assert out == ""
    assert named in err


def test_strict_stops_at_the_first_bad_image(call: Any) -> None:
    Path("photos/1a.jpg").write_bytes(b"bad")
    code, out, err = call("photos", "--classes", "cat", "--strict", "--json")
    assert code == ExitCode.SOME_FAILED
    assert len(out.splitlines()) == 1
    assert "photos/1a.jpg is not an image" in err


def test_second_run_needs_resume(call: Any) -> None:
    assert call("photos", "--classes", "cat")[0] == ExitCode.OK
    code, _, err = call("photos", "--classes", "cat")
    assert code == ExitCode.USAGE
    assert "--resume" in err
    assert call("photos", "--classes", "cat", "--resume")[0] == ExitCode.OK


def test_image_on_standard_input(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path("photos/1.jpg").read_bytes())))
    code, out, _ = call("-", "--classes", "cat", "--json")
    assert code == ExitCode.OK
    assert json.loads(out)["image"] == "stdin"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    assert call("-", "--classes", "cat", "--json")[0] == ExitCode.SOME_FAILED


def test_failing_plugin_format_ends_with_exit_code_4(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributions import install

    code = """
from regionclip_cli.specs import WriterSpec
SPEC = WriterSpec("broken", "Fails.", "broken_format:render")
def render(records, folder, labels):
    raise KeyError("label")
"""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    install(site, "broken-format", {"regionclip.writers": {"broken": "broken_format:SPEC"}}, code)
    got, _, err = call("photos", "--classes", "cat", "--out", "out", "--format", "broken,csv")
    monkeypatch.delitem(sys.modules, "broken_format", raising=False)
    assert got == ExitCode.PLUGIN
    assert err.count("broken-format 1.0") == 1
    assert Path("out/detections.csv").exists()


def test_flags_equal_settings() -> None:
    names = {name for name in detect.__annotations__ if name not in ("ctx", "return")}
    assert names == set(DetectSettings.model_fields)


def examples() -> list[str]:
    lines = (detect.__doc__ or "").partition("[bold]Examples:[/bold]")[2].strip().splitlines()
    return [line.strip() for line in lines]


@pytest.mark.parametrize("example", examples())
def test_help_examples_run(
    example: str, toy_model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from regionclip_cli.language.concept_bank import ConceptBank
    from regionclip_cli.language.text_encoder import TextEncoder

    kitchen = Path("kitchen.jpg")
    kitchen.write_bytes((photos / "1.jpg").read_bytes())
    Path("names.txt").write_text("cat\nkettle=pot|can\n")
    Path("boxes.json").write_text(json.dumps({"kitchen.jpg": [[1, 1, 30, 30]]}))
    ConceptBank(("cat",), TextEncoder(toy_model).encode(["cat"]), "toy", "plain").save(Path("bank.safetensors"))
    piped, _, command = example.rpartition(" | ")
    if piped:
        assert piped == "cat kitchen.jpg"
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(kitchen.read_bytes())))
    program, *words = shlex.split(command)
    assert program == "regionclip"
    code = app.main([*words, "--model", str(toy_model)])
    assert code == ExitCode.OK, capsys.readouterr().err


WORDS = ["--classes", "cat,dog", "--out", "out", "--format", "jsonl,images,coco", "--max-dets", "3", "--json"]


@pytest.mark.timeout(600)  # a cold process loads every library, on a machine that may be busy
@pytest.mark.parametrize(("blow", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_killed_run_resumes(blow: int, code: int, toy_model: Path, photos: Path) -> None:
    many = Path("many")
    many.mkdir()
    for index in range(40):
        os.link(photos / "1.jpg", many / f"{index:02}.jpg")
    process = subprocess.Popen(
        [sys.executable, "-m", "regionclip_cli", "detect", "many", *WORDS, "--model", str(toy_model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    journal = Path("out/detections.jsonl")
    try:
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(blow)
        out, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == code
    assert "Traceback" not in err
    kept = journal.read_bytes()
    done = kept.count(b"\n")
    assert kept.decode().startswith(out)
    assert out.count("\n") >= 2
    assert 3 <= done < 40
    assert not Path("out/coco.json").exists()
    words = ["detect", "many", *WORDS, "--model", str(toy_model), "--resume"]
    assert app.main(words) == ExitCode.OK
    assert journal.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    images = [json.loads(line)["image"] for line in journal.read_text().splitlines()]
    assert images == [f"many/{index:02}.jpg" for index in range(40)]
    assert [one["file_name"] for one in json.loads(Path("out/coco.json").read_text())["images"]] == images
    assert len(list(Path("out/images/many").glob("*.jpg"))) == 40
