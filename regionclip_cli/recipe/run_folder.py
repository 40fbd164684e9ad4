"""The folder of a run: where each stage writes, and what was done there, when, by what and with which settings."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from regionclip_cli.errors import OutputError, UsageError
from regionclip_cli.recipe.resolved import settings_of, write_resolved
from regionclip_cli.recipe.run_log import LOG, logging_to
from regionclip_cli.recipe.schema import STAGES, Recipe

RESOLVED, RUN, RUN_LOG = "resolved.yaml", "run.json", "run.log"
FREE = ("workers", "log_every", "checkpoint_every", "keep_last", "batch", "steps")
"""Settings that a run may change when it is taken up again: they do not touch what was done already."""


@dataclass
class RunRecord:
    """One run of one stage, as `run.json` keeps it.

    Attributes:
        stage: Which.
        counts: What was done, in numbers; a stage adds to it with `count`.
    """

    stage: str
    counts: dict[str, int | float] = field(default_factory=dict)

    def count(self, **numbers: int | float) -> None:
        """Keep numbers about the run: images, regions, steps."""
        self.counts.update(numbers)


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
        if not suffix:
            self._check(recipe, stage, resume, joint)
        record = RunRecord(stage)
        entry: dict[str, Any] = {
            "stage": stage,
            "command": " ".join(sys.argv),
            "process": f"{os.getpid()} on {platform.node()}",
            "started": _now(),
            "ended": None,
            "status": "running",
            "resumed": resume,
            "device": device or recipe.device,
            "seed": recipe.seed,
            "counts": record.counts,
            "settings": settings_of(recipe, stage),
            **_facts(),
        }
        book = _Book(self.path / _named(RUN, suffix))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not suffix or not (self.path / RESOLVED).exists():
                write_resolved(recipe, self.path / RESOLVED)
            book.write(entry)
            log = logging_to(self.path / _named(RUN_LOG, suffix))
            log.__enter__()
        except OSError as err:
            reason = err.strerror or str(err)
            raise OutputError(
                f"{self.path} cannot be written: {reason}.", "Choose another folder with out=..."
            ) from err
        try:
            LOG.info("%s begins: %s", stage, entry["command"])
            yield record
        except BaseException as err:
            sentence = " ".join(str(err).split()) or type(err).__name__
            LOG.error("%s stopped: %s", stage, sentence)
            entry |= {"status": "stopped", "error": sentence}
            raise
        else:
            LOG.info("%s is done: %s", stage, record.counts)
            entry |= {"status": "finished"}
        finally:
            entry["ended"] = _now()
            log.__exit__(None, None, None)
            book.write(entry)

    def _check(self, recipe: Recipe, stage: str, resume: bool, joint: bool) -> None:
        """Refuse to mix the results of two runs."""
        if stage not in STAGES:
            raise ValueError(f"{stage!r} is no stage")
        held = self.held(stage)
        if held is None:
            return
        if not resume and not joint:
            raise UsageError(
                f"{held} holds the results of another run of `{stage}` already.",
                "Add --resume to go on with that run, or choose another folder with out=...",
            )
        before = next((run for run in reversed(_Book(self.path / RUN).runs) if run.get("stage") == stage), None)
        if before is not None:
            _compare(before.get("settings"), settings_of(recipe, stage), held)


class _Book:
    """`run.json`: a list of runs that only grows.

    Raises:
        UsageError: The file is there and holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.runs = self._read()

    def write(self, entry: dict[str, Any]) -> None:
        """Put a run on the list, in place of what the list says of the same run; it is read anew for that."""
        from regionclip_cli.hub.model_file import whole_file

        runs, same = self._read(), ("stage", "process", "started")
        known = next((n for n, run in enumerate(runs) if all(run.get(key) == entry[key] for key in same)), len(runs))
        with whole_file(self._path) as part:
            text = json.dumps({"runs": [*runs[:known], entry, *runs[known + 1 :]]}, indent=1)
            part.write_text(text + "\n", encoding="utf-8")

    def _read(self) -> list[dict[str, Any]]:
        try:
            runs: list[dict[str, Any]] = json.loads(self._path.read_bytes())["runs"]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as err:
            raise UsageError(f"{self._path} is damaged.", "Move it away, and run the command again.") from err
        return runs


def _facts() -> dict[str, Any]:
    from regionclip_cli.environment import facts

    return facts()


def _compare(before: Any, now: Mapping[str, Any], held: Path) -> None:
    if not isinstance(before, dict):
        return
    for key in sorted({*before, *now}):
        if key.rpartition(".")[2] not in FREE and before.get(key) != now.get(key):
            raise UsageError(
                f"The run in {held} had {key} = {_short(before.get(key))}, and this one has {_short(now.get(key))}.",
                "Resume it with the same settings, or choose another folder with out=...",
            )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _holds_something(path: Path) -> bool:
    try:
        return any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0
    except OSError:
        return False


def _named(name: str, suffix: str) -> str:
    stem, dot, ending = name.partition(".")
    return f"{stem}{suffix}{dot}{ending}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
