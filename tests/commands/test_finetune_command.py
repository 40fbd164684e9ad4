"""`finetune` and `train-proposals` as a shell calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from box_toys import write_shapes

from regionclip_cli import app

QUICK = {
    "steps": 1, "batch_size": 1, "warmup_steps": 0, "milestones": [], "workers": 0, "short_sides": [64],
    "max_side": 128,
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path, toy_model: Path) -> Path:
    train = write_shapes(tmp_path / "train", images=3)
    content = {
        "regionclip": 1,
        "name": "toy",
        "out": str(tmp_path / "out"),
        "device": "cpu",
        "model": {"start": str(toy_model)},
        "data": {"train": train.model_dump(mode="json", exclude_defaults=True)},
        "finetune": {**QUICK, "train_proposals": True, "regions": 8},
        "proposals": {**QUICK, "network": "rpn-trunk"},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("command", ["finetune", "train-proposals"])
def test_dry_run_writes_nothing(recipe, command, capsys):
    assert app.main([command, str(recipe), "--dry-run"]) == 0
    assert "1 step of 1 image" in " ".join(capsys.readouterr().err.split())
    assert not (recipe.parent / "out").exists()


def test_runs_in_sequence_and_refusals(recipe, capsys):
    assert app.main(["train-proposals", str(recipe), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert Path(made["model"]).is_file()
    assert app.main(["finetune", str(recipe), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Path(told["model"]) == recipe.parent / "out" / "finetune" / "model.safetensors"
    assert told["steps"] == 1
    assert app.main(["finetune", str(recipe)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert app.main(["finetune", str(recipe), "finetune=null"]) == 2
    assert "finetune" in capsys.readouterr().err
