"""`regionclip evaluate`: exit codes and streams, with a recipe and without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from box_toys import write_shapes

from regionclip_cli.commands.evaluate import evaluate
from regionclip_cli.console import Console
from regionclip_cli.errors import ExitCode, UsageError


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], toy_model: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    write_shapes(tmp_path / "shapes", images=3)
    app = typer.Typer()
    app.command()(evaluate)

    def run(*words: str) -> tuple[int, str, str]:
        words = tuple(str(toy_model) if word == "TOY" else word for word in words)
        code = typer.main.get_command(app)(list(words), obj=Console(), standalone_mode=False)
        return (code, *capsys.readouterr())

    return run


SET = ("-d", "coco", "-a", "shapes/boxes.json", "-i", "shapes", "--device", "cpu", "-m", "TOY")


def test_json_prints_only_json_and_keeps_nothing(call: Any, tmp_path: Path) -> None:
    code, out, err = call(*SET, "--boxes", "ground-truth", "--json")
    told = json.loads(out)
    assert code == ExitCode.OK
    assert {"AP", "AP50", "top1", "top5", "seconds_per_image"} <= told.keys()
    assert not {"results", "report"} & told.keys()
    assert 0 <= told["AP"] <= 100
    assert "toy on 3 images" in err
    assert {path.name for path in tmp_path.iterdir()} == {"shapes"}


def test_split_reports_base_novel_and_all(call: Any) -> None:
    Path("split.yaml").write_text("base: [red, green]\nnovel: [blue]\n")
    _, out, _ = call(*SET, "--split", "split.yaml", "--json")
    told = json.loads(out)
    assert [told[key]["classes"] for key in ("base", "novel", "all")] == [2, 1, 3]
    _, out, err = call(*SET, "--split", "split.yaml", "--out", "kept")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:5] == ["evaluation", "group", "classes", "AP", "AP50"]
    assert [line[1] for line in lines[1:]] == ["base", "novel", "all"]
    assert [len(line) for line in lines[1:]] == [len(lines[2]), len(lines[2]), len(lines[2]) + 3]  # recall of proposals
    report = Path("kept/evaluate/coco-proposals-split-toy/report.html")
    assert str(report) in err
    assert "<svg" in report.read_text()


def test_recipe_with_overrides(call: Any, toy_model: Path) -> None:
    section = {"dataset": "coco", "annotations": "shapes/boxes.json", "images": "shapes", "boxes": "ground-truth"}
    recipe = {"regionclip": 1, "name": "toy", "out": "run", "device": "cpu", "model": {"start": str(toy_model)}}
    Path("toy.yaml").write_text(
        json.dumps({**recipe, "evaluate": [{**section, "name": "one"}, {**section, "name": "two"}]})
    )
    code, out, _ = call("toy.yaml", "evaluate.0.limit=1", "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert (code, [each["images"] for each in told]) == (ExitCode.OK, [1, 3])
    assert Path(told[0]["results"]) == Path("run/evaluate/one/results.json")
    with pytest.raises(UsageError, match="--boxes"):
        call("toy.yaml", "--boxes", "proposals")


def test_dry_run_writes_nothing(call: Any, tmp_path: Path) -> None:
    code, out, _ = call(*SET, "--dry-run")
    assert code == ExitCode.OK
    assert "seconds" in out or "time" in out.splitlines()[0]
    assert {path.name for path in tmp_path.iterdir()} == {"shapes"}


def test_unreadable_image_is_exit_code_3(call: Any) -> None:
    Path("shapes/1.png").write_bytes(b"no picture")
    code, out, err = call(*SET, "--boxes", "ground-truth", "--json")
    assert code == ExitCode.SOME_FAILED
    assert json.loads(out)["failed"] == 1
    assert "1.png" in err


def test_missing_dataset_is_a_usage_error(call: Any) -> None:
    with pytest.raises(UsageError):
        call()


def test_lenient_skips_wrong_entries(call: Any) -> None:
    path = Path("shapes/boxes.json")
    content = json.loads(path.read_text())
    content["annotations"][1]["bbox"] = [5, 5, 0, 9]
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"boxes\.json"):
        call(*SET, "--json")
    code, out, err = call(*SET, "--boxes", "ground-truth", "--lenient", "--json")
    assert (code, json.loads(out)["objects"]) == (ExitCode.OK, len(content["annotations"]) - 1)
    assert "warning: " in err
