"""Check this installation: versions, device, operators, packaged model, cache and plugins."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from regionclip_cli import environment, plugins
from regionclip_cli.errors import ExitCode, MissingError, PluginError, RegionClipError
from regionclip_cli.hub import paths

PACKAGED = "regionclip-tiny"


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        name: Subject of the check.
        fact: What was found, in a few words.
        problem: Description of the problem, else empty.
        hint: How to solve the problem.
        code: Exit code for the problem.
    """

    name: str
    fact: str = ""
    problem: str = ""
    hint: str = ""
    code: ExitCode = ExitCode.OK


@dataclass(frozen=True)
class Report:
    """Everything that `doctor` reports.

    Attributes:
        machine: The computer and the interpreter.
        versions: Installed version by distribution, None if missing.
        checks: Results of the checks.
        offers: Built-in and plugin backbones, datasets, writers and commands.
    """

    machine: environment.Machine
    versions: dict[str, str | None]
    checks: tuple[Check, ...]
    offers: tuple[plugins.Offer, ...]

    @property
    def problems(self) -> list[Check]:
        """The failed checks."""
        return [check for check in self.checks if check.problem]

    @property
    def code(self) -> ExitCode:
        """OK, or the exit code of the first problem."""
        return next((check.code for check in self.problems), ExitCode.OK)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as one JSON-ready mapping."""
        return asdict(self) | {"ok": not self.problems}


def examine() -> Report:
    """Check packages, device, operators, packaged model, cache and plugins. Imports torch; changes nothing."""
    looks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("packages", _packages),
        ("device", _device),
        ("operators", _operators),
        ("packaged model", _packaged_model),
        ("cache", _cache),
    )
    checks = [_look(name, look) for name, look in looks]
    try:
        offers = plugins.describe()
    except ImportError as err:
        offers = []
        checks.append(Check("plugins", problem=f"Built-in parts cannot be imported: {err}", code=ExitCode.MISSING))
    broken = [offer for offer in offers if offer.problem]
    checks.append(Check("plugins", fact=_count_plugins(offers)))
    checks += [Check(f"plugin {offer.distribution}", problem=offer.problem, code=PluginError.code) for offer in broken]
    return Report(environment.machine(), environment.versions(), tuple(checks), tuple(offers))


def _look(name: str, look: Callable[[], str]) -> Check:
    """Run one check and record errors of a broken installation as its problem."""
    try:
        return Check(name, fact=look())
    except RegionClipError as err:
        return Check(name, problem=err.message, hint=err.hint, code=err.code)
    except (ImportError, OSError, RuntimeError) as err:
        problem = f"{type(err).__name__}: {' '.join(str(err).split())}"
        return Check(name, problem=problem, hint="Reinstall regionclip-cli.", code=ExitCode.MISSING)


def _packages() -> str:
    absent = environment.missing()
    if absent:
        raise MissingError(f"Not installed: {', '.join(absent)}.", f"Run `pip install {' '.join(absent)}`.")
    return f"all {len(environment.NEEDED) + 1} installed"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        cards = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
        found = ", ".join(f"{card.name} ({card.total_memory / 2**30:.0f} GiB)" for card in cards)
        return f"cuda {torch.version.cuda}: {found}"
    if torch.backends.mps.is_available():
        return "mps"
    return f"cpu, {torch.get_num_threads()} threads"


def _operators() -> str:
    import torch

    from regionclip_cli.vision import mmcv_ops

    stand_in = mmcv_ops.install()
    from mmcv.ops import nms, roi_align

    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [8, 8, 12, 12]])
    _, kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), iou_threshold=0.5)
    region = roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 1, 1, 5, 5]]), (2, 2), 1.0, 0, "avg", True)
    if kept.tolist() != [0, 2] or not torch.allclose(region, torch.ones(1, 1, 2, 2)):
        raise RuntimeError("NMS or RoIAlign returns wrong results")
    return "torchvision (mmcv has no compiled operators)" if stand_in else "mmcv, compiled"


def _packaged_model() -> str:
    from regionclip_cli.hub import store

    path = store.resolve(PACKAGED)
    return f"{PACKAGED}, {environment.spell_bytes(path.stat().st_size)}"


def _cache() -> str:
    folder = paths.cache_dir()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise MissingError(f"The cache folder {folder} is not writable.", "Set REGIONCLIP_CACHE to another folder.")
    return f"{folder}, {environment.spell_bytes(environment.folder_size(folder))}"


def _count_plugins(offers: list[plugins.Offer]) -> str:
    others = sorted({offer.distribution for offer in offers if offer.distribution != plugins.OWN})
    return ", ".join(others) if others else "none installed"
