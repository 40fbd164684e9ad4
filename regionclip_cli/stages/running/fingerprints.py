"""What the results of a stage depend on: its settings, the files they name, and the stages before it."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regionclip_cli.data.captions.paths import numbered
from regionclip_cli.errors import RegionClipError
from regionclip_cli.hub.store import resolve
from regionclip_cli.recipe.records.resolved import present, settings_of
from regionclip_cli.recipe.records.run_book import is_free
from regionclip_cli.recipe.schema import Recipe

INDIFFERENT = ("workers", "log_every", "checkpoint_every", "keep_last", "batch")
"""Settings that make a run faster or tell more of it, and leave its results as they are."""
PATHS = frozenset(
    "path images annotations boxes labels concepts model start teacher proposals proposals_from split vocabulary "
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
        if stage == "pretrain" and recipe.pretrain is not None and recipe.pretrain.teacher == "online":
            before = [name for name in before if name != "pseudolabel"]
        files = {str(path): state(path) for text in _texts(settings, named=False) for path in _named(text)}
        found[stage] = Dependence(settings, files, {name: found[name].fingerprint for name in before})
    return found


def _alone(recipe: Recipe, stage: str) -> bool:
    """Whether a stage takes up nothing: a proposal network with a trunk of its own has none of a pretrained model."""
    return stage == "proposals" and recipe.proposals is not None and recipe.proposals.network != "rpn-trunk"


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
        path = Path(one).expanduser()
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
