"""The folder of a run: where each stage writes, and what was done there, when, by what and with which settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regionclip_cli.errors import OutputError, RegionClipError, UsageError
from regionclip_cli.recipe.resolved import settings_of, write_resolved
from regionclip_cli.recipe.schema import STAGES, Recipe
from regionclip_cli.runs.history import RunBook, RunRecord, compare
from regionclip_cli.runs.log import LOG, logging_to

RESOLVED, RUN, RUN_LOG = "resolved.yaml", "run.json", "run.log"


@dataclass(frozen=True)
class RunFolder:
    """Where the stages of a recipe write.

    Attributes:
        path: The folder, a recipe's `out`.
    """

    path: Path

    @property
    def bank(self) -> Path:
        """The concept bank that `concepts` writes."""
        return self.path / "concepts.safetensors"

    @property
    def nouns(self) -> Path:
        """The counted nouns that `concepts` writes."""
        return self.path / "nouns.csv"

    @property
    def labels(self) -> Path:
        """The folder of named regions that `pseudolabel` writes."""
        return self.path / "labels"

    def stage(self, name: str) -> Path:
        """Return the folder of a stage that has one of its own: pretrain, proposals, finetune, evaluate."""
        return self.path / name

    def model(self, stage: str) -> Path:
        """Return the model that a training stage writes."""
        return self.stage(stage) / "model.safetensors"

    def outputs(self, stage: str) -> tuple[Path, ...]:
        """Return the files and folders in which the results of a stage are."""
        own: Mapping[str, tuple[Path, ...]] = {"concepts": (self.nouns, self.bank), "pseudolabel": (self.labels,)}
        return own.get(stage, (self.stage(stage),))

    def held(self, stage: str) -> Path | None:
        """Return a file or folder with results of a stage, if there is one that is not empty."""
        return next((path for path in self.outputs(stage) if _holds_something(path)), None)

    def last_run(self, stage: str) -> dict[str, Any] | None:
        """Return what `run.json` says of the last run of a stage, None if there was none."""
        return next((run for run in reversed(RunBook(self.path / RUN).read()) if run["stage"] == stage), None)

    @contextmanager
    def opened(
        self,
        recipe: Recipe,
        stage: str,
        *,
        resume: bool = False,
        joint: bool = False,
        device: str | None = None,
        share: tuple[int, int] | None = None,
    ) -> Iterator[RunRecord]:
        """Work on a stage: make the folder, keep the resolved recipe, `run.json` and `run.log` while the block runs.

        `run.json` lists every run ever made here, each with stage, command, times, how it ended, settings, seed,
        device, counts and versions. Of several processes the first writes it, and the others files with their number.

        Args:
            recipe: The settings.
            stage: One of `schema.STAGES`.
            resume: Go on with what an earlier run has left.
            joint: Other processes may have begun the same work, so that their results are no reason to stop.
            device: What it is computed on, where that is not what the recipe says.
            share: (index from 0, count) of this process among those that share the work; left out, as `torchrun` says.

        Raises:
            UsageError: The folder has results of this stage and `resume` was not asked for, or they were made with
                other settings.
            OutputError: The folder cannot be written.
        """
        index, count = share or (int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
        suffix = f".{index + 1}of{count}" if count > 1 and (index or joint) else ""
        if stage not in STAGES:
            raise ValueError(f"{stage!r} is no stage")
        if not suffix:
            self._check(recipe, stage, resume, joint)
        book = RunBook(self.path / _named(RUN, suffix))
        record = RunRecord.begin(recipe, stage, resume=resume, device=device)
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                if not suffix or not (self.path / RESOLVED).exists():
                    write_resolved(recipe, self.path / RESOLVED)
                book.write(record)
                stack.enter_context(logging_to(self.path / _named(RUN_LOG, suffix)))
            except OSError as err:
                hint = "Choose another folder with out=..."
                raise OutputError(f"{self.path} cannot be written: {err.strerror or err}.", hint) from err
            LOG.info("%s begins: %s", stage, record.command)
            try:
                yield record
            except BaseException as err:
                record.stop(err)
                LOG.error("%s stopped: %s", stage, record.error)
                with suppress(RegionClipError):  # the disk may be what stopped it
                    book.write(record)
                raise
            record.finish()
            LOG.info("%s is done: %s", stage, record.counts)
            book.write(record)

    def _check(self, recipe: Recipe, stage: str, resume: bool, joint: bool) -> None:
        """Refuse to mix the results of two runs."""
        held = self.held(stage)
        if held is None:
            return
        if not resume and not joint:
            raise UsageError(
                f"{held} holds the results of another run of `{stage}` already.",
                "Add --resume to go on with that run, or choose another folder with out=...",
            )
        before = self.last_run(stage)
        if before is not None:
            compare(before["settings"], settings_of(recipe, stage), held)


def _holds_something(path: Path) -> bool:
    try:
        return any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0
    except OSError:
        return False


def _named(name: str, suffix: str) -> str:
    stem, dot, ending = name.partition(".")
    return f"{stem}{suffix}{dot}{ending}"
