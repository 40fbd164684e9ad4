"""What the results of a stage depend on: its settings, the files they name, and the stages before it."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from regionclip_cli.errors import RegionClipError, UsageError
from regionclip_cli.files import numbered, user_path, whole_file, writing
from regionclip_cli.hub.store import resolve
from regionclip_cli.recipe.resolved import present, settings_of
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.runs.history import changed, is_free

INDIFFERENT = ("workers", "log_every", "checkpoint_every", "keep_last", "batch")
"""Settings that make a run faster or tell more of it, and leave its results as they are."""
PATHS = frozenset(
    "path images annotations boxes labels concept_bank model start teacher proposals proposals_from split vocabulary "
    "predictions".split()
)
"""Settings that may name files, folders or models; so may those in `options`, whose names plugins choose."""
UPSTREAM: Mapping[str, tuple[str, ...]] = {
    "pseudolabel": ("concepts",),
    "pretrain": ("concepts", "pseudolabel"),
    "proposals": ("pretrain",),
    "finetune": ("pretrain", "proposals"),
    "evaluate": ("pretrain", "proposals", "finetune"),
}
"""Which stages each takes up the results of, where a recipe has them."""


@dataclass(frozen=True)
class Dependence:
    """All that decides the results of a stage.

    Attributes:
        settings: {"pretrain.lr": 0.002}, without those in `INDIFFERENT`.
        files: {path: [bytes, time of the last change in ns]} of the files and folders that the settings name.
        stages: {stage: fingerprint} of the stages it builds on.
    """

    settings: dict[str, Any]
    files: dict[str, list[int]]
    stages: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when anything here does."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, before: Mapping[str, Any]) -> list[str]:
        """Return what has changed since an earlier one was written down, in words."""
        words = []
        for part, what in (("settings", "{}"), ("files", "the file {}"), ("stages", "the stage {}")):
            then, now = before.get(part, {}), json.loads(json.dumps(getattr(self, part)))
            words += [what.format(key) for key in dict.fromkeys([*then, *now]) if then.get(key) != now.get(key)]
        return words


def dependences(recipe: Recipe) -> dict[str, Dependence]:
    """Return what each stage of a recipe depends on, in the order in which they run."""
    found: dict[str, Dependence] = {}
    for stage in present(recipe):
        settings = {key: value for key, value in settings_of(recipe, stage).items() if not is_free(key, INDIFFERENT)}
        before = [name for name in UPSTREAM.get(stage, ()) if name in found and not _alone(recipe, stage)]
        if stage == "pretrain" and recipe.pretrain is not None and recipe.pretrain.teacher_mode == "online":
            before = [name for name in before if name != "pseudolabel"]
        files = {str(path): state(path) for text in _texts(settings, named=False) for path in _named(text)}
        found[stage] = Dependence(settings, files, {name: found[name].fingerprint for name in before})
    return found


def _alone(recipe: Recipe, stage: str) -> bool:
    """Whether a stage takes up nothing: a proposal network with a trunk of its own has none of a pretrained model."""
    return stage == "proposals" and recipe.proposals is not None and not recipe.proposals.on_trunk


def state(path: Path) -> list[int]:
    """Return the size of a file and the time of its last change; of a folder, the time alone."""
    facts = os.stat(path)
    return [0 if path.is_dir() else facts.st_size, facts.st_mtime_ns]


def _texts(value: Any, named: bool) -> Iterator[str]:
    """Yield the texts of settings that may name a file; `named` says that all of `value` may."""
    if isinstance(value, str) and named:
        yield value
    elif isinstance(value, Mapping):
        for key, below in value.items():
            yield from _texts(below, named or key.rpartition(".")[2] in PATHS or ".options" in key)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _texts(below, named)


def _named(text: str) -> Iterator[Path]:
    """Yield the files and folders that a setting names, if it names any that are here: a path, range, glob or model."""
    if "\0" in text or not text:
        return
    try:
        each = numbered(text)
    except RegionClipError:
        each = [text]
    for one in each:
        path = user_path(one)
        try:
            if path.exists():
                yield path
            elif glob.has_magic(one):
                yield from (Path(match) for match in sorted(glob.glob(str(path), recursive=True)))
        except OSError:  # too long for a path
            return
    if os.sep not in text and len(each) == 1 and not Path(text).exists():
        try:
            yield resolve(text)
        except RegionClipError:
            return


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
