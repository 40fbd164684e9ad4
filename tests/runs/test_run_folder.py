"""A run folder says what was done in it, and never mixes or loses results."""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime
from pathlib import Path

import pytest
from small_disk import small_disk

from regionclip_cli.errors import OutputError, UsageError
from regionclip_cli.recipe import fields
from regionclip_cli.recipe.loader import load_recipe
from regionclip_cli.recipe.schema import STAGES, Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.runs.history import RunRecord, changed, compare
from regionclip_cli.runs.log import LOG, LoggedProgress


def recipe_in(folder: Path, **pretrain: object) -> Recipe:
    return fields.checked(
        Recipe, name="x", seed=5, out=str(folder), concepts={}, pretrain={"milestones": (3, 4), **pretrain}
    )


def runs(folder: Path, name: str = "run.json") -> list[dict]:
    return json.loads((folder / name).read_text())["runs"]


def test_paths(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.bank == tmp_path / "concepts.safetensors"
    assert folder.nouns == tmp_path / "nouns.csv"
    assert folder.labels == tmp_path / "labels"
    assert folder.model("pretrain") == tmp_path / "pretrain" / "model.safetensors"
    assert {stage: [path.name for path in folder.outputs(stage)] for stage in STAGES} == {
        "concepts": ["nouns.csv", "concepts.safetensors"],
        "pseudolabel": ["labels"],
        "pretrain": ["pretrain"],
        "proposals": ["proposals"],
        "finetune": ["finetune"],
        "evaluate": ["evaluate"],
    }


def test_a_run_leaves_its_settings_its_record_and_its_log(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path / "out")
    folder = RunFolder(tmp_path / "out")
    with folder.opened(recipe, "pretrain", device="cpu") as record:
        assert runs(folder.path)[0]["status"] == "running"
        record.count(steps=4, images=16)
        LOG.info("step %d", 4)
        logging.getLogger("elsewhere").warning("a library warns")
        LoggedProgress(Heard()).note("told")
    assert load_recipe(folder.path / "resolved.yaml") == recipe
    [run] = runs(folder.path)
    assert (run["stage"], run["status"], run["device"], run["seed"]) == ("pretrain", "finished", "cpu", 5)
    assert run["counts"] == {"steps": 4, "images": 16}
    assert run["started"] <= run["ended"]
    assert run["settings"]["pretrain.lr"] == 0.002
    assert "concepts.min_count" not in run["settings"]
    assert run["versions"]["pydantic"]
    assert run["machine"]["python"]
    log = (folder.path / "run.log").read_text()
    assert [word for word in ("step 4", "a library warns", "told", "pretrain is done") if word not in log] == []
    LOG.info("after the run")
    assert "after the run" not in (folder.path / "run.log").read_text()


class Heard:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def __getattr__(self, name: str):
        return lambda *words: self.calls.append((name, *words))


def test_what_is_shown_is_logged(tmp_path: Path) -> None:
    shown = Heard()
    progress = LoggedProgress(shown)
    with RunFolder(tmp_path).opened(recipe_in(tmp_path), "concepts"):
        progress.start("reading", 5, "captions")
        progress.advance(2)
        progress.warn("odd")
        progress.finish()
    assert shown.calls == [("start", "reading", 5, "captions"), ("advance", 2), ("warn", "odd"), ("finish",)]
    log = (tmp_path / "run.log").read_text()
    assert [word for word in ("reading: 5 captions", "WARNING odd", "reading: done") if word not in log] == []


def finish(folder: RunFolder, recipe: Recipe, **how: object) -> None:
    with folder.opened(recipe, "pretrain", **how):
        folder.model("pretrain").parent.mkdir(exist_ok=True)
        folder.model("pretrain").write_text("weights")


def test_a_second_run_is_refused_and_nothing_lost(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    finish(folder, recipe_in(folder.path))
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError) as caught:
        finish(folder, recipe_in(folder.path, lr=1))
    assert "pretrain holds the results of another run of `pretrain` already. Add --resume" in str(caught.value)
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before
    with folder.opened(recipe_in(folder.path), "concepts"):
        pass
    assert [run["stage"] for run in runs(folder.path)] == ["pretrain", "concepts"]


def test_a_run_is_resumed_with_the_same_settings_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    finish(folder, recipe_in(tmp_path))
    with pytest.raises(UsageError) as caught:
        finish(folder, recipe_in(tmp_path, lr=0.1), resume=True)
    assert "had pretrain.lr = 0.002, and this one has 0.1." in str(caught.value)
    assert len(runs(tmp_path)) == 1
    finish(folder, recipe_in(tmp_path, steps=700_000, workers=0, log_every=1), resume=True)
    assert [run["resumed"] for run in runs(tmp_path)] == [False, True]


def test_a_stage_may_be_resumed_after_other_stages_changed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    finish(folder, recipe_in(tmp_path))
    other = fields.checked(
        Recipe,
        name="x",
        seed=5,
        out=str(tmp_path),
        concepts={"min_count": 1},
        data={"val": {"dataset": "scenes"}},
        pretrain={"milestones": (3, 4)},
    )
    finish(folder, other, resume=True)
    assert len(runs(tmp_path)) == 2


def test_what_stops_a_run_is_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt), folder.opened(recipe_in(tmp_path), "pretrain"):
        raise KeyboardInterrupt
    with pytest.raises(UsageError, match="it broke"), folder.opened(recipe_in(tmp_path), "pretrain"):
        raise UsageError("it broke")
    assert [(run["status"], run["error"]) for run in runs(tmp_path)] == [
        ("stopped", "KeyboardInterrupt"),
        ("stopped", "it broke"),
    ]
    assert "ERROR pretrain stopped: it broke" in (tmp_path / "run.log").read_text()


def test_processes_that_share_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, recipe = RunFolder(tmp_path), recipe_in(tmp_path)
    folder.labels.mkdir()
    (folder.labels / "labels-00000.jsonl").write_text("{}")
    with folder.opened(recipe, "pseudolabel", joint=True, share=(1, 3)):
        pass
    assert runs(tmp_path, "run.2of3.json")[0]["status"] == "finished"
    assert (tmp_path / "run.2of3.log").exists()
    assert not (tmp_path / "run.json").exists()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    finish(folder, recipe)
    assert runs(tmp_path, "run.2of2.json")[0]["stage"] == "pretrain"
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageError, match="another run of `pretrain`"):
        finish(folder, recipe)


@pytest.mark.parametrize("text", ["", "[]", '{"runs": [{}]}', '{"runs": 3}'])
def test_a_damaged_list_of_runs_is_not_written_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match=r"run.json is damaged"):
        finish(RunFolder(tmp_path), recipe_in(tmp_path))
    assert (tmp_path / "run.json").read_text() == text


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="out cannot be written"):
        finish(RunFolder(tmp_path / "out"), recipe_in(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    with small_disk(100), pytest.raises(OutputError, match="cannot be written"):
        finish(RunFolder(tmp_path), recipe_in(tmp_path))
    assert [path.name for path in tmp_path.rglob("*")] == []


def test_an_unknown_stage_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no stage"), RunFolder(tmp_path).opened(recipe_in(tmp_path), "pretraining"):
        pass


def test_tuples_have_not_changed_when_a_file_made_lists_of_them() -> None:
    assert changed({"a": [1, 2], "b.steps": 1}, {"a": (1, 2), "b.steps": 2}) == []
    assert changed({"a": [1, 2]}, {"a": (1,), "c": None, "d": 0}) == ["a", "d"]


def test_settings_that_differ_deep_in_a_list_are_told_by_their_own_key(tmp_path: Path) -> None:
    before = {"evaluate": [{"annotations": "a" * 80, "short_side": None}, {"conf": 0.5}]}
    now = {"evaluate": [{"annotations": "a" * 80, "short_side": 96}, {"conf": 0.5}]}
    with pytest.raises(UsageError, match=r"had evaluate\.0\.short_side = null, and this one has 96\."):
        compare(before, now, tmp_path)
    with pytest.raises(UsageError, match=r"had evaluate = "):
        compare(before, {"evaluate": now["evaluate"][:1]}, tmp_path)


def test_a_run_does_not_seem_to_begin_before_what_was_there(tmp_path: Path) -> None:
    for _ in range(8):
        before = time.time()
        record = RunRecord.begin(recipe_in(tmp_path), "concepts", resume=False, device=None)
        assert datetime.fromisoformat(record.started).timestamp() >= before - 2e-6
