"""`run.json`: every run of every stage in a folder, and what may differ between a run and its resumption."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from regionclip_cli.errors import UsageError
from regionclip_cli.recipe.resolved import settings_of
from regionclip_cli.recipe.schema import Recipe

FREE = ("workers", "log_every", "checkpoint_every", "keep_last", "batch", "steps")
"""Settings that a run may change when it is taken up again: they do not touch what was done already."""


@dataclass
class RunRecord:
    """One run of one stage, as `run.json` keeps it.

    Attributes:
        stage: Which.
        command: What was typed.
        process: Number of the process, and the machine.
        started: When, in UTC.
        ended: When, None while it runs or after it was killed.
        status: running, finished or stopped.
        error: What stopped it.
        resumed: Whether it went on with an earlier run.
        device: What it computed on.
        seed: Of all that was drawn at random.
        counts: What was done, in numbers; a stage adds to it with `count`.
        settings: Everything that decides the results, {"pretrain.lr": 0.002}.
        machine: The computer and the Python on it.
        versions: What was installed.
    """

    stage: str
    command: str
    process: str
    started: str
    resumed: bool
    device: str
    seed: int
    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str | None]
    ended: str | None = None
    status: str = "running"
    error: str | None = None
    counts: dict[str, int | float] = field(default_factory=dict)

    @classmethod
    def begin(cls, recipe: Recipe, stage: str, *, resume: bool, device: str | None) -> RunRecord:
        """Return the record of a run that begins now."""
        from regionclip_cli.environment import facts

        return cls(
            stage=stage,
            command=" ".join(sys.argv),
            process=f"{os.getpid()} on {platform.node()}",
            started=_now(),
            resumed=resume,
            device=device or recipe.device,
            seed=recipe.seed,
            settings=settings_of(recipe, stage),
            **facts(),
        )

    def count(self, **numbers: int | float) -> None:
        """Keep numbers about the run: images, regions, steps."""
        self.counts.update(numbers)

    def finish(self) -> None:
        """Note that it ended well."""
        self.ended, self.status = _now(), "finished"

    def stop(self, reason: BaseException) -> None:
        """Note what ended it."""
        self.ended, self.status = _now(), "stopped"
        self.error = " ".join(str(reason).split()) or type(reason).__name__


class RunBook:
    """`run.json`: a list of runs that only grows.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, record: RunRecord) -> None:
        """Put a run on the list, in place of what the list says of the same run; it is read anew for that.

        Raises:
            OutputError: The disk refuses.
            UsageError: The file is there and holds something else.
        """
        from regionclip_cli.files import whole_file

        runs, entry, same = self.read(), asdict(record), ("stage", "process", "started")
        known = next((n for n, run in enumerate(runs) if all(run.get(key) == entry[key] for key in same)), len(runs))
        with whole_file(self._path) as part:
            text = json.dumps({"runs": [*runs[:known], entry, *runs[known + 1 :]]}, indent=1)
            part.write_text(text + "\n", encoding="utf-8")

    def read(self) -> list[dict[str, Any]]:
        """Return all runs, oldest first.

        Raises:
            UsageError: The file is there and holds something else.
        """
        try:
            runs: list[dict[str, Any]] = json.loads(self._path.read_bytes())["runs"]
            if not all(isinstance(run["settings"], dict) and run["stage"] for run in runs):
                raise ValueError("a run without settings")
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as err:
            raise UsageError(f"{self._path} is damaged.", "Move it away, and run the command again.") from err
        return runs


def is_free(key: str, free: Collection[str] = FREE) -> bool:
    """Say whether a setting may differ, by the last word of its key."""
    return key.rpartition(".")[2] in free


def changed(before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = FREE) -> list[str]:
    """Return the settings that differ between two runs of a stage, without those that are free to."""
    now = json.loads(json.dumps(now))  # as `before` has been: a tuple has become a list there
    keys = dict.fromkeys([*before, *now])
    return [key for key in keys if not is_free(key, free) and before.get(key) != now.get(key)]


def compare(before: Mapping[str, Any], now: Mapping[str, Any], held: Path) -> None:
    """Refuse to go on with a run whose settings were others.

    Raises:
        UsageError: It tells the first that differs.
    """
    for changed_key in changed(before, now):
        key, old, new = _narrowed(changed_key, before.get(changed_key), now.get(changed_key))
        raise UsageError(
            f"The run in {held} had {key} = {_short(old)}, and this one has {_short(new)}.",
            "Resume it with the same settings, or choose another folder with out=...",
        )


def _narrowed(key: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """Return the key and values of the first thing in two values that differs, as deep in lists and mappings as it is.

    Long values would look the same when they are cut to a length that fits into a sentence.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        below = next((each for each in {**old, **new} if old.get(each) != new.get(each)), None)
        if below is not None:
            return _narrowed(f"{key}.{below}", old.get(below), new.get(below))
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        place = next((place for place in range(len(old)) if old[place] != new[place]), None)
        if place is not None:
            return _narrowed(f"{key}.{place}", old[place], new[place])
    return key, old, new


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
