"""`recipes run`: the stages of a recipe in order, each only if something it depends on has changed."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from regionclip_cli.errors import UsageError
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.runs.history import is_free
from regionclip_cli.runs.progress import Progress
from regionclip_cli.runs.stage_cache import Dependence, Ledger, dependences
from regionclip_cli.stages.preflight import foresee

HERE = "regionclip_cli.stages"
CODE = {
    "concepts": f"{HERE}.concepts",
    "pseudolabel": f"{HERE}.pseudolabel",
    "pretrain": f"{HERE}.pretrain",
    "proposals": f"{HERE}.train_proposals",
    "finetune": f"{HERE}.finetune",
    "evaluate": f"{HERE}.evaluate",
}
"""Which module's `run(recipe, progress, *, resume, dry_run)` does each stage."""
MOST_WORDS = 3


@dataclass(frozen=True)
class StageRun:
    """What became of one stage.

    Attributes:
        stage: Which.
        state: `done`, `resumed`, `unchanged`, `left out`, or with a dry run `to do`, `to resume`.
        why: Why it was run or left alone.
        reads: How many files and folders its settings name.
        writes: Where its results are.
        seconds: How long it took.
        result: What the stage returned, None when it was not run.
    """

    stage: str
    state: str
    why: str
    reads: int
    writes: tuple[Path, ...]
    seconds: float = 0.0
    result: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return it with plain values only."""
        result = self.result.to_json() if hasattr(self.result, "to_json") else None
        values = {**vars(self), "seconds": round(self.seconds, 3), "result": result}
        plain: dict[str, Any] = _plain(values)
        return plain


@dataclass(frozen=True)
class PipelineResult:
    """What became of all stages of a recipe.

    Attributes:
        out: The run folder.
        stages: One a stage, in order.
    """

    out: Path
    stages: tuple[StageRun, ...]

    @property
    def failed(self) -> bool:
        """Whether a stage left inputs out that it could not read."""
        return any(getattr(stage.result, "failed", 0) for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """Return it with plain values only."""
        return {"out": str(self.out), "stages": [stage.to_json() for stage in self.stages]}


def run(
    recipe: Recipe, progress: Progress, *, resume: bool = False, dry_run: bool = False, force: bool = False
) -> PipelineResult:
    """Run the stages of a recipe in order.

    A stage is left alone when its settings, the files they name, the stages it builds on and its own results are as
    they were when it finished. Otherwise it is run, and results of an earlier run go to `earlier/` in the run folder.
    `pseudolabel` is left out where `pretrain` runs its teacher along and would not read the labels.

    Args:
        recipe: What to run.
        progress: Told what is going on.
        resume: Go on with a stage that did not finish.
        dry_run: Say what would be run and why, and do nothing.
        force: Run every stage anew.

    Raises:
        MissingError: Boxes that a later stage reads are not there; nothing was run.
        UsageError: The recipe has no stage, two of them do not fit together, or one did not finish and neither `resume`
            nor `force` was asked for.
        RegionClipError: What a stage raises; those before it are done and stay so.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "`recipes run` does not support several processes.",
            "Run a single stage with torchrun: torchrun ... -m regionclip_cli pretrain RECIPE.",
        )
    folder = RunFolder(Path(recipe.out))
    planned = dependences(recipe)
    if not planned:
        raise UsageError(f"The recipe {recipe.name} has no stages.", f"Add one of {', '.join(CODE)}.")
    ledger, done = Ledger(folder), []
    renewed: set[str] = set()
    for stage, dependence in planned.items():
        if stage == "pseudolabel" and recipe.pretrain is not None and recipe.pretrain.teacher_mode == "online":
            done.append(StageRun(stage, "skipped", "pretrain uses an online teacher", 0, folder.outputs(stage)))
            continue
        again = any(name in renewed for name in dependence.stages)
        state, why = _decide(stage, dependence, folder, ledger, resume=resume, force=force, again=again)
        became = partial(StageRun, stage, reads=len(dependence.files), writes=folder.outputs(stage))
        if state == "unchanged":
            progress.note(f"{stage}: {why}.")
            done.append(became(state=state, why=why))
            continue
        renewed.add(stage)
        if len(renewed) == 1:  # the later ones build on it
            foresee(recipe, list(planned)[list(planned).index(stage) :])
        if dry_run:
            done.append(became(state=state, why=why))
            continue
        progress.note(f"{stage}: {why}.")
        if state == "to do":
            aside = ledger.set_aside(stage)
            if aside is not None:
                progress.note(f"{stage}: earlier results were moved to {aside}.")
        begun = time.monotonic()
        result = _load(stage)(recipe, progress, resume=state == "to resume")
        ledger.finish(stage, dependences(recipe)[stage])
        if hasattr(result, "summary"):
            progress.note(f"{stage}: {result.summary()}")
        state = "resumed" if state == "to resume" else "done"
        done.append(became(state=state, why=why, seconds=time.monotonic() - begun, result=result))
    return PipelineResult(folder.path, tuple(done))


def _decide(
    stage: str,
    dependence: Dependence,
    folder: RunFolder,
    ledger: Ledger,
    *,
    resume: bool,
    force: bool,
    again: bool,
) -> tuple[str, str]:
    """Return what to do with a stage (`unchanged`, `to do`, `to resume`), and why."""
    entry, held = ledger.written(stage), folder.held(stage)
    if force:
        return "to do", "--force"
    if held is None:
        return "to do", "no results yet"
    last = folder.last_run(stage)
    unfinished = last is not None and last["status"] != "finished"
    if not again and not unfinished and ledger.finished_alone(stage, dependence):
        return "unchanged", "unchanged since it was run separately"
    if unfinished or entry is None:
        if resume:
            return "to resume", "continues the interrupted run"
        what = "did not finish" if unfinished else "was run separately with other settings or files"
        raise UsageError(
            f"The stage `{stage}` in {folder.path} {what if last else 'has output but no run record'}.",
            "Add --resume to continue it, or --force to run all stages again.",
        )
    words = dependence.differences(entry)
    if not words and not again:
        if ledger.intact(stage):
            return "unchanged", "unchanged"
        return "to do", f"its results in {held} have changed"
    if resume and words and all(is_free(word) for word in words):
        return "to resume", f"continues with another {', '.join(words)}"
    more = len(words) - MOST_WORDS
    words = [*words[:MOST_WORDS], *([f"{more} more"] if more > 0 else [])] or ["what it builds on"]
    return "to do", f"changed: {', '.join(words)}"


def _load(stage: str) -> Callable[..., Any]:
    code: Callable[..., Any] = importlib.import_module(CODE[stage]).run
    return code


def _plain(value: Any) -> Any:
    """Return a value with paths as text and tuples as lists."""
    if isinstance(value, dict):
        return {str(key): _plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(below) for below in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
