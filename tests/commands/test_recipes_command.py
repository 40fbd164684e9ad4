"""`regionclip recipes`, through the command line's own error boundary."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from regionclip_cli import app as root
from regionclip_cli.commands import recipe_arguments
from regionclip_cli.recipe import library
from regionclip_cli.recipe.loader import load_recipe
from regionclip_cli.stages import pipeline

COMMAND = root.BuiltIn("recipes", "regionclip_cli.commands.recipes:app", "Recipes.")
HEAVY = "cv2,huggingface_hub,matplotlib,mmcv,mmdet,mmengine,numpy,open_clip,pycocotools,scipy,supervision,timm,torch"
PROBE = """
import sys
from regionclip_cli import app
if "recipes" not in [command.name for command in app.BUILT_IN]:
    app.BUILT_IN = (*app.BUILT_IN, app.BuiltIn("recipes", "regionclip_cli.commands.recipes:app", "Recipes."))
code = app.main(sys.argv[2:])
print("IMPORTED", *sorted(set(sys.argv[1].split(",")) & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(autouse=True)
def _command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CC3M", raising=False)
    if "recipes" not in [command.name for command in root.BUILT_IN]:
        monkeypatch.setattr(root, "BUILT_IN", (*root.BUILT_IN, COMMAND))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = root.main(["recipes", *words])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_ls(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "ls")
    assert (code, err) == (0, "")
    names = [line.split()[0] for line in out.splitlines()[1:]]
    assert names == list(library.packaged())
    assert "The whole method in a minute" in out
    code, out, _ = run(capsys, "ls", "--json")
    assert [json.loads(line)["name"] for line in out.splitlines()] == names
    assert all(Path(json.loads(line)["path"]).is_file() for line in out.splitlines())


def test_show_as_written_and_resolved(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", "cc3m")
    assert code == 0
    assert out == library.packaged()["cc3m"].read_text(encoding="utf-8")
    code, out, _ = run(capsys, "show", "tiny", "pretrain.steps=7")
    Path("mine.yaml").write_text(out)
    assert load_recipe("mine.yaml") == load_recipe("tiny", ["pretrain.steps=7"])
    code, out, _ = run(capsys, "show", "tiny", "--resolved")
    Path("mine.yaml").write_text(out)
    assert load_recipe("mine.yaml") == load_recipe("tiny")


def test_check_reports_all_problems_of_all_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("good.yaml").write_text("name: a\nconcepts: {}\n")
    Path("none.yaml").write_text("name: a\n")
    Path("bad.yaml").write_text("nam: a\npretrain: {lr: x}\n")
    code, out, err = run(capsys, "check", "good.yaml", "bad.yaml", "absent.yaml", "none.yaml", "cc3m")
    assert (code, err) == (2, "")
    cc3m = library.packaged()["cc3m"]
    line = next(n for n, text in enumerate(cc3m.read_text().splitlines(), 1) if text.lstrip().startswith("path:"))
    assert out.splitlines() == [
        "good.yaml: ok, concepts",
        "bad.yaml:1: name: This setting is missing.",
        "bad.yaml:1: nam: There is no such setting. Did you mean 'name'?",
        "bad.yaml:2: pretrain.lr: It should be a number, not 'x'.",
        "absent.yaml: There is no file absent.yaml. There are " + ", ".join(library.packaged()) + ".",
        "none.yaml: ok, no stages",
        f"{cc3m}:{line}: data.captions.path: The environment variable CC3M is not set; `export CC3M=...` first.",
    ]
    code, out, _ = run(capsys, "check", "good.yaml", "bad.yaml", "--json")
    good, bad = map(json.loads, out.splitlines())
    assert good == {"recipe": "good.yaml", "ok": True, "stages": ["concepts"], "problems": []}
    assert [(p["file"], p["line"], p["key"]) for p in bad["problems"]] == [
        ("bad.yaml", 1, "name"),
        ("bad.yaml", 1, "nam"),
        ("bad.yaml", 2, "pretrain.lr"),
    ]
    assert run(capsys, "check", "good.yaml", "none.yaml")[0] == 0


def test_check_and_explain_import_no_heavy_library() -> None:
    for words in (["check", "tiny"], ["explain"], ["show", "tiny", "--resolved"]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", PROBE, HEAVY, "recipes", *words]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.splitlines()[-1] == "IMPORTED"
        # Processor time, so that a busy machine does not fail the test; on an idle one it is the time on the clock.
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0, words


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "explain", "concepts")
    assert code == 0
    assert "concepts.min_count" in out
    assert "pretrain" not in out
    code, out, _ = run(capsys, "explain", "pretrain.lr", "--json")
    [row] = map(json.loads, out.splitlines())
    assert set(row) == {"key", "kind", "default", "sentence"}
    assert (row["key"], row["kind"], row["default"]) == ("pretrain.lr", "number, above 0", "0.002")
    code, _, err = run(capsys, "explain", "pretrian")
    assert code == 2
    assert "Did you mean 'pretrain'" in err


def test_copy(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "copy", "tiny", "mine.yaml")
    assert (code, out.splitlines()[0]) == (0, "mine.yaml")
    assert load_recipe("mine.yaml").name == "tiny"
    code, _, err = run(capsys, "copy", "tiny", "mine.yaml")
    assert code == 2
    assert "mine.yaml is there already" in err


def test_run_passes_options_to_the_pipeline(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict] = []

    def stand_in(recipe, progress, **how):
        asked.append({"steps": recipe.pretrain.steps, "device": recipe.device, **how})
        stage = pipeline.StageRun("concepts", "done", "it has no results yet", 2, (Path("a"),), 1.5)
        return pipeline.PipelineResult(Path("runs/x"), (stage,))

    monkeypatch.setattr(pipeline, "run", stand_in)
    code, out, err = run(capsys, "run", "tiny", "pretrain.steps=3", "--device", "cpu", "--force")
    assert (code, out) == (0, "")
    assert "Results are in runs/x." in err
    code, out, _ = run(capsys, "run", "tiny", "--resume", "--json")
    assert json.loads(out)["stages"][0] == {
        "stage": "concepts",
        "state": "done",
        "why": "it has no results yet",
        "reads": 2,
        "writes": ["a"],
        "seconds": 1.5,
        "result": None,
    }
    code, out, _ = run(capsys, "run", "tiny", "--dry-run")
    assert code == 0
    assert "concepts" in out
    assert [(a["steps"], a["device"], a["resume"], a["force"], a["dry_run"]) for a in asked] == [
        (3, "cpu", False, True, False),
        (16, "auto", True, False, False),
        (16, "auto", False, False, True),
    ]


def test_dry_run_of_a_packaged_recipe_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "run", "tiny", "--dry-run", "--json")
    assert code == 0
    assert [(stage["stage"], stage["state"]) for stage in json.loads(out)["stages"]] == [
        ("concepts", "to do"),
        ("pseudolabel", "to do"),
        ("pretrain", "to do"),
    ]
    assert list(Path().iterdir()) == []


def test_open_recipe_for_a_stage() -> None:
    recipe = recipe_arguments.open_recipe("tiny", ["seed=4"], device="cpu", section="pretrain")
    assert (recipe.seed, recipe.device) == (4, "cpu")
    with pytest.raises(recipe_arguments.UsageError, match="finetune"):
        recipe_arguments.open_recipe("tiny", section="finetune")


@pytest.mark.parametrize("name", ["ls", "show", "check", "explain", "copy", "run"])
def test_help_examples_can_be_parsed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    assert "Examples:" in out
    assert f"regionclip recipes {name}" in out
