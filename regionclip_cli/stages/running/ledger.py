"""`stages.json`: what each finished stage was made of, so that it need not be made again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from regionclip_cli.errors import UsageError
from regionclip_cli.hub.model_file import whole_file
from regionclip_cli.recipe.records.run_book import changed
from regionclip_cli.recipe.run_folder import RunFolder
from regionclip_cli.stages.running.fingerprints import INDIFFERENT, Dependence, state

STAGES_FILE = "stages.json"
EARLIER = "earlier"
"""Folder in a run folder for results that newer ones have taken the place of."""


class Ledger:
    """What is known of the finished stages in a run folder.

    Args:
        folder: The run folder; it need not exist.

    Raises:
        UsageError: `stages.json` is there and holds something else.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._path = folder.path / STAGES_FILE
        self._stages: dict[str, Any] = {}
        try:
            self._stages = dict(json.loads(self._path.read_bytes())["stages"])
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as err:
            raise UsageError(f"{self._path} is damaged.", "Move it away, and run the command again.") from err

    def written(self, stage: str) -> dict[str, Any] | None:
        """Return what was written down of a finished stage, None when it never finished here."""
        entry = self._stages.get(stage)
        return entry if isinstance(entry, dict) else None

    def intact(self, stage: str) -> bool:
        """Say whether the results of a stage are still those that were written down."""
        entry = self.written(stage)
        return entry is not None and entry.get("outputs") == self._outputs(stage)

    def finish(self, stage: str, dependence: Dependence) -> None:
        """Write down that a stage is done.

        Raises:
            OutputError: The disk refuses.
        """
        run = self._folder.last_run(stage)
        entry = {
            "run": run and run["started"],
            "fingerprint": dependence.fingerprint,
            **asdict(dependence),
            "outputs": self._outputs(stage),
        }
        self._stages[stage] = json.loads(json.dumps(entry))
        with whole_file(self._path) as part:
            part.write_text(json.dumps({"stages": self._stages}, indent=1) + "\n", encoding="utf-8")

    def finished_alone(self, stage: str, dependence: Dependence) -> bool:
        """Say whether the stage was last run by its own command, with these settings, and after what it depends on."""
        run, entry = self._folder.last_run(stage), self.written(stage)
        if run is None or run["status"] != "finished" or self._folder.held(stage) is None:
            return False
        if entry is not None and entry.get("run") == run["started"]:  # it was run from here
            return False
        earlier = [self._folder.last_run(name) for name in dependence.stages]
        times = [_seconds(run["ended"]) for run in earlier if run and run["ended"]]
        times += [changed_ns / 1e9 for _, changed_ns in dependence.files.values()]
        other = changed(run["settings"], dependence.settings, INDIFFERENT)
        return not other and all(time <= _seconds(run["started"]) for time in times)

    def set_aside(self, stage: str) -> Path | None:
        """Move the results of a stage out of the way, and return the folder they are in now; None if there are none.

        Raises:
            OutputError: The disk refuses.
        """
        held = [path for path in self._folder.outputs(stage) if os.path.lexists(path)]
        if not held:
            return None
        from regionclip_cli.results.files import writing

        number = 1
        while (self._folder.path / EARLIER / f"{stage}-{number}").exists():
            number += 1
        place = self._folder.path / EARLIER / f"{stage}-{number}"
        with writing(place):
            place.mkdir(parents=True)
            for path in held:
                path.rename(place / path.name)
        return place

    def _outputs(self, stage: str) -> dict[str, list[int]]:
        """Return {path below the run folder: state} of every file among the results of a stage."""
        files = sorted(file for path in self._folder.outputs(stage) for file in _files(path))
        return {file.relative_to(self._folder.path).as_posix(): state(file) for file in files}


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    elif path.is_file():
        yield path


def _seconds(written: str) -> float:
    return datetime.fromisoformat(written).timestamp()
