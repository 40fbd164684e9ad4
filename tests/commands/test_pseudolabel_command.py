"""`regionclip pseudolabel`: exit codes and streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from label_toys import SECTION, rows, write_bank, write_captions
from toys import write_toy_model

from regionclip_cli.commands.pseudolabel import pseudolabel
from regionclip_cli.console import Console
from regionclip_cli.errors import ExitCode, UsageError


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    write_captions(tmp_path)
    write_bank(tmp_path / "bank.safetensors")
    model = write_toy_model(tmp_path / "toy.safetensors", "timm")
    recipe = {
        "regionclip": 1,
        **{"name": "toy", "out": "run", "device": "cpu", "model": {"start": str(model)}},
        "data": {"captions": {"dataset": "jsonl", "path": "captions.jsonl"}},
        "pseudolabel": {**SECTION, "concept_bank": "bank.safetensors"},
    }
    Path("toy.yaml").write_text(json.dumps(recipe))
    app = typer.Typer()
    app.command()(pseudolabel)

    def run(*words: str) -> tuple[int, str, str]:
        code = typer.main.get_command(app)(list(words), obj=Console(), standalone_mode=False)
        return (code, *capsys.readouterr())

    return run


def test_labels_are_written_and_summarised(call: Any) -> None:
    code, out, err = call("toy.yaml", "pseudolabel.top_k=2")
    assert (code, out) == (ExitCode.OK, "")
    assert "6 concepts on cpu" in err
    assert "images/s" in err
    assert "regions of 7 images labelled, 3 shards written. Labels are in run/labels." in err
    assert {len(concepts) for row in rows() for concepts in row["concepts"]} == {2}
    with pytest.raises(UsageError, match="--resume"):
        call("toy.yaml", "pseudolabel.top_k=2")
    code, out, err = call("toy.yaml", "pseudolabel.top_k=2", "--resume", "--format", "coco,html", "--json")
    told = json.loads(out)
    assert (code, told["shards"], told["done_before"]) == (ExitCode.OK, 0, 3)
    assert told["written"] == ["run/labels/coco.json", "run/labels/regions.html"]


def test_unreadable_image_is_exit_code_3(call: Any) -> None:
    Path("photos/2.png").write_bytes(b"x")
    code, out, err = call("toy.yaml", "--json", "--shard-of", "1/2")
    assert code == ExitCode.SOME_FAILED
    assert (json.loads(out)["failed"], json.loads(out)["finished"]) == (1, False)
    assert "photos/2.png is not an image" in err


def test_dry_run_prints_json(call: Any) -> None:
    code, out, err = call("toy.yaml", "--dry-run", "--json")
    told = json.loads(out)
    assert code == ExitCode.OK
    assert (told["dry_run"], told["images"], told["shards"], told["folder"]) == (True, 7, 3, "run/labels")
    assert told["seconds"] > 0
    assert "7 images in 3 shards" in err
    assert not Path("run").exists()
