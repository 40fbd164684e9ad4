"""`recipes run`: stages in order, and none that need not be run; with stages that only write a file."""

from __future__ import annotations

import json
import os
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

from regionclip_cli.errors import InputError, RegionClipError, UsageError
from regionclip_cli.recipe import fields
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.runs.progress import Silent
from regionclip_cli.stages import pipeline

CAPTIONS = "captions.txt"


@dataclass(frozen=True)
class Made:
    """What a stand-in returns."""

    files: tuple[Path, ...]
    failed: int = 0

    def summary(self) -> str:
        return f"{len(self.files)} file written."

    def to_json(self) -> dict:
        return {"files": [str(file) for file in self.files]}


class StandIns:
    """Stages that write one file each, and a list of those that were run."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.resumed: list[str] = []
        self.broken = ""
        self.failed = 0

    def stage(self, name: str):
        def run(recipe: Recipe, progress: object, *, resume: bool = False, dry_run: bool = False) -> Made:
            folder = RunFolder(Path(recipe.out))
            with folder.opened(recipe, name, resume=resume):
                out = folder.outputs(name)[0]
                file = out if out.suffix else out / "result.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"{name} {len(self.ran)}")
                self.ran.append(name)
                self.resumed += [name] if resume else []
                if name == self.broken:
                    raise InputError(f"{name} broke")
                return Made((file,), self.failed)

        return run


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    Path(CAPTIONS).write_text("a cat")
    made = StandIns()
    for name in pipeline.CODE:
        module = types.ModuleType(f"stand_in_{name}")
        module.run = made.stage(name)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(pipeline.CODE, name, module.__name__)
    return made


def recipe(**sections: object) -> Recipe:
    values = {
        "name": "x",
        "out": "out",
        "data": {"captions": {"dataset": "text", "path": CAPTIONS}},
        "concepts": {},
        "pseudolabel": {},
        "pretrain": {"teacher_mode": "labels", "steps": 5},
        "evaluate": ({"dataset": "scenes"},),
    }
    return fields.checked(Recipe, **{**values, **sections})


def run(made: Recipe, **how: bool) -> list[str]:
    return [stage.state for stage in pipeline.run(made, Silent(), **how).stages]


def test_present_stages_in_their_order(stages: StandIns) -> None:
    result = pipeline.run(recipe(finetune={}, proposals={}), Silent())
    assert stages.ran == list(pipeline.CODE)
    assert result.stages[0].reads == 2  # the captions and the model in the package
    [file] = result.stages[0].to_json()["result"]["files"]
    assert file == str(Path("out/nouns.csv"))
    assert json.dumps(result.to_json())


def test_what_stages_say_is_passed_on(stages: StandIns) -> None:
    said: list[str] = []
    progress = Silent()
    progress.note = said.append  # type: ignore[method-assign]
    assert not pipeline.run(recipe(), progress).failed
    assert [line.partition(":")[0] for line in said[:2]] == ["concepts", "concepts"]
    stages.failed = 2
    assert pipeline.run(recipe(seed=3), progress).failed
    assert any("out/earlier/pretrain-1" in line for line in said)


def test_nothing_is_run_twice(stages: StandIns) -> None:
    assert run(recipe()) == ["done"] * 4
    assert run(recipe()) == ["unchanged"] * 4
    assert run(recipe(), resume=True) == ["unchanged"] * 4
    assert run(recipe(name="other", device="cpu")) == ["unchanged"] * 4
    assert (
        run(recipe(pretrain={"teacher_mode": "labels", "steps": 5, "workers": 0, "log_every": 1})) == ["unchanged"] * 4
    )
    assert len(stages.ran) == 4


@pytest.mark.parametrize(
    ("changed", "states"),
    [
        ({"concepts": {"min_count": 3}}, ["done", "done", "done", "done"]),
        ({"pseudolabel": {"regions": 3}}, ["unchanged", "done", "done", "done"]),
        ({"pseudolabel": {"batch": 2}}, ["unchanged"] * 4),
        ({"pretrain": {"teacher_mode": "labels", "steps": 6}}, ["unchanged", "unchanged", "done", "done"]),
        ({"evaluate": ({"dataset": "coco"},)}, ["unchanged", "unchanged", "unchanged", "done"]),
        ({"seed": 4}, ["done", "done", "done", "done"]),
        ({"data": {"captions": {"dataset": "text", "path": CAPTIONS}, "val": {}}}, ["unchanged"] * 3 + ["done"]),
    ],
)
def test_a_change_runs_the_stages_it_touches(stages: StandIns, changed: dict, states: list[str]) -> None:
    run(recipe())
    assert run(recipe(**changed), dry_run=True) == [state.replace("done", "to do") for state in states]
    assert len(stages.ran) == 4
    assert run(recipe(**changed)) == states
    assert run(recipe(**changed)) == ["unchanged"] * 4
    assert stages.resumed == []


def test_a_changed_file_runs_the_stages_that_read_it(stages: StandIns) -> None:
    run(recipe(pretrain={"teacher_mode": "labels", "concept_bank": "bank.safetensors"}))
    Path(CAPTIONS).write_text("a dog and a cat")
    result = pipeline.run(recipe(pretrain={"teacher_mode": "labels", "concept_bank": "bank.safetensors"}), Silent())
    assert [stage.state for stage in result.stages] == ["done"] * 4
    assert result.stages[0].why == f"changed: the file {CAPTIONS}"
    Path("bank.safetensors").write_text("bank")
    assert run(recipe(pretrain={"teacher_mode": "labels", "concept_bank": "bank.safetensors"})) == [
        "unchanged",
        "unchanged",
        "done",
        "done",
    ]


def test_ranges_and_globs_are_watched(stages: StandIns) -> None:
    for name in ("s-00.tar", "s-01.tar", "t.tar"):
        Path(name).write_text(name)
    made = recipe(data={"captions": [{"dataset": "webdataset", "path": ["s-{00..01}.tar", "t*.tar"]}]})
    assert pipeline.run(made, Silent()).stages[0].reads == 4
    Path("s-01.tar").write_text("longer than before")
    assert run(made)[0] == "done"
    Path("t2.tar").write_text("new")
    assert run(made)[0] == "done"
    assert run(made)[0] == "unchanged"


def test_results_that_newer_ones_replace_are_kept(stages: StandIns) -> None:
    run(recipe())
    run(recipe(concepts={"min_count": 3}))
    run(recipe(), force=True)
    texts = {path.as_posix(): path.read_text() for path in Path("out").rglob("nouns.csv")}
    assert texts == {
        "out/nouns.csv": "concepts 8",
        "out/earlier/concepts-1/nouns.csv": "concepts 0",
        "out/earlier/concepts-2/nouns.csv": "concepts 4",
    }
    assert Path("out/earlier/pretrain-2/pretrain/result.txt").read_text() == "pretrain 6"


def test_results_that_are_gone_or_changed_are_made_again(stages: StandIns) -> None:
    run(recipe())
    Path("out/nouns.csv").unlink()
    assert run(recipe()) == ["done", "done", "done", "done"]
    Path("out/labels/result.txt").write_text("by hand")
    assert run(recipe()) == ["unchanged", "done", "done", "done"]
    assert Path("out/earlier/pseudolabel-2/labels/result.txt").read_text() == "by hand"


def test_a_stage_that_broke_waits_for_a_word(stages: StandIns) -> None:
    stages.broken = "pretrain"
    with pytest.raises(InputError, match="pretrain broke"):
        run(recipe())
    stages.broken = ""
    with pytest.raises(UsageError) as caught:
        run(recipe())
    assert "The stage `pretrain` in out did not finish" in str(caught.value)
    assert "--resume" in str(caught.value)
    assert stages.ran == ["concepts", "pseudolabel", "pretrain"]
    assert run(recipe(), resume=True) == ["unchanged", "unchanged", "resumed", "done"]
    assert stages.resumed == ["pretrain"]
    assert run(recipe()) == ["unchanged"] * 4


def test_a_stage_that_broke_is_not_resumed_with_other_settings(stages: StandIns) -> None:
    stages.broken = "pretrain"
    with pytest.raises(InputError):
        run(recipe())
    stages.broken = ""
    with pytest.raises(UsageError, match=r"had pretrain.lr = 0.002, and this one has 0.1"):
        run(recipe(pretrain={"teacher_mode": "labels", "steps": 5, "lr": 0.1}), resume=True)
    assert run(recipe(pretrain={"teacher_mode": "labels", "steps": 5, "lr": 0.1}), force=True) == ["done"] * 4


def test_more_steps_go_on_from_the_last_when_asked(stages: StandIns) -> None:
    run(recipe())
    longer = recipe(pretrain={"teacher_mode": "labels", "steps": 50})
    assert run(longer, resume=True) == ["unchanged", "unchanged", "resumed", "done"]
    assert run(longer) == ["unchanged"] * 4


def test_a_stage_run_by_its_own_command_counts(stages: StandIns) -> None:
    made = recipe()
    stages.stage("concepts")(made, Silent())
    assert run(made) == ["unchanged", "done", "done", "done"]
    longer = recipe(pretrain={"teacher_mode": "labels", "steps": 50})
    stages.stage("pretrain")(longer, Silent(), resume=True)
    assert run(longer) == ["unchanged", "unchanged", "unchanged", "done"]


def test_a_stage_run_by_its_own_command_on_older_files_does_not_count(stages: StandIns) -> None:
    stages.stage("concepts")(recipe(), Silent())
    later = os.stat("out/nouns.csv").st_mtime + 60
    os.utime(CAPTIONS, (later, later))
    with pytest.raises(UsageError, match="--force"):
        run(recipe())


def test_labels_are_left_out_where_the_teacher_runs_along(stages: StandIns) -> None:
    online = recipe(pretrain={"teacher_mode": "online", "steps": 5})
    assert run(online) == ["done", "skipped", "done", "done"]
    assert stages.ran == ["concepts", "pretrain", "evaluate"]
    assert run(online) == ["unchanged", "skipped", "unchanged", "unchanged"]


@pytest.mark.parametrize(("network", "again"), [("rpn-trunk", "done"), ("rpn-fpn", "unchanged")])
def test_proposals_on_a_trunk_follow_the_pretraining(stages: StandIns, network: str, again: str) -> None:
    sections = {"proposals": {"network": network}, "finetune": {}}
    run(recipe(**sections))
    sections["pretrain"] = {"teacher_mode": "labels", "steps": 6}  # the head's file holds the pretrained trunk, too
    assert run(recipe(**sections)) == ["unchanged", "unchanged", "done", again, "done", "done"]


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"proposals": {"network": "rpn-c4"}, "finetune": {"train_proposals": True}}, "rpn-c4"),
        ({"finetune": {}, "data": {"val": {"annotations": "no.json"}}}, r"no.json .*\(data.val.annotations\)"),
        ({"evaluate": ({"annotations": CAPTIONS, "images": "no"},)}, r"no .*\(evaluate.0.images\)"),
    ],
)
def test_what_a_late_stage_lacks_is_told_before_the_first(stages: StandIns, sections: dict, words: str) -> None:
    with pytest.raises(RegionClipError, match=words):
        run(recipe(**sections))
    assert stages.ran == []


def test_a_recipe_without_stages(stages: StandIns) -> None:
    with pytest.raises(UsageError, match="stages"):
        run(fields.checked(Recipe, name="x"))


def test_several_processes_are_sent_to_single_stages(stages: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="torchrun"):
        run(recipe())


@pytest.mark.parametrize("text", ["", "[]", '{"stages": 3}'])
def test_a_damaged_ledger_is_not_written_over(stages: StandIns, text: str) -> None:
    Path("out").mkdir()
    Path("out/stages.json").write_text(text)
    with pytest.raises(UsageError, match=r"stages.json is damaged"):
        run(recipe())
    assert Path("out/stages.json").read_text() == text


def test_every_stage_has_code() -> None:
    here = Path(pipeline.__file__).parents[1]
    files = {name: here.joinpath(*location.split(".")[1:]).with_suffix(".py") for name, location in REAL.items()}
    assert [name for name, file in files.items() if not file.is_file()] == []


REAL = dict(pipeline.CODE)
