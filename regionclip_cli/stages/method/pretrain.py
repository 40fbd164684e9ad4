"""`pretrain`: a student learns from named regions and captions (RegionCLIP section 3.2).

The regions are named by a teacher that runs along, as in the paper, or by labels that `pseudolabel` has written. Either
way the student sees one feature map an image, and learns to put regions of it where the teacher puts them among the
concepts. What comes out is a model like the one that training started from, for `detect --model` and `finetune`.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from regionclip_cli.errors import counted
from regionclip_cli.recipe.run_folder import RunFolder
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.stages.detection.devices import choose_device
from regionclip_cli.stages.pretraining.estimate import PretrainEstimate, estimate
from regionclip_cli.stages.pretraining.plan import make_plan
from regionclip_cli.stages.progress import Progress, Silent
from regionclip_cli.training.export import write_pretrained
from regionclip_cli.training.library_log import keep_stdout_clean
from regionclip_cli.training.loop import build_runner, processes, train

STAGE = "pretrain"


@dataclass(frozen=True)
class PretrainResult:
    """What a pretraining came to.

    Attributes:
        model: The model that was written; None in all processes but the first.
        plan: What was learned from what, in a sentence; empty in processes that do not speak for all.
        steps: Optimiser steps behind it.
        seconds: How long this run took.
        losses: Means over the last steps that were logged.
        checkpoint: The last checkpoint.
    """

    model: Path | None
    plan: str
    steps: int
    seconds: float
    losses: dict[str, float] = field(default_factory=dict)
    checkpoint: Path | None = None

    def summary(self) -> str:
        """Return one sentence for a person."""
        losses = ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items() if "loss" in name)
        said = f"{counted(self.steps, 'steps')} behind it, {self.seconds:.0f} s in this run"
        said += f"; last losses: {losses}." if losses else "."
        return said + (f" The model is {self.model}." if self.model else "")

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        paths = {"model": self.model, "checkpoint": self.checkpoint}
        return asdict(self) | {name: None if path is None else str(path) for name, path in paths.items()}


def run(
    recipe: Recipe, progress: Progress | None = None, *, resume: bool = False, dry_run: bool = False
) -> PretrainResult | PretrainEstimate:
    """Pretrain the model of a recipe and write `<out>/pretrain/model.safetensors`.

    Args:
        recipe: Its sections `data.captions`, `model` and `pretrain`.
        progress: Told what is going on.
        resume: Go on from the last checkpoint, exactly as if nothing had happened.
        dry_run: Only say what it would take, measured on a few steps; nothing is written.

    Raises:
        MissingError: Captions, labels, a model or the concept bank is not there.
        OutputError: The disk is full; the last whole checkpoint stays.
        UsageError: The recipe does not fit together, or the folder holds a run already.
        RegionClipError: A loss was not finite, or a process that reads images died.
    """
    speaks = processes.rank() == 0
    progress = progress if progress and speaks else Silent()
    keep_stdout_clean()
    began = time.perf_counter()
    plan = make_plan(recipe, progress)
    folder = RunFolder(Path(recipe.out))
    device = processes.own_device(choose_device(recipe.device))
    if dry_run:
        told = estimate(plan, device)
        return told if speaks else replace(told, plan="")
    with folder.opened(recipe, STAGE, resume=resume, device=str(device)) as record:
        progress.note(plan.summary())
        model = plan.pretrainer(device)
        trained = train(
            build_runner(
                model,
                plan.dataset(),
                plan.settings,
                work_dir=folder.stage(STAGE),
                seed=recipe.seed,
                device=device,
                resume=resume,
                progress=progress,
                learned_from=plan.learned_from(),
            )
        )
        record.count(images=len(plan.pairs), concepts=len(plan.bank.names), steps=trained.steps)
        written = None
        if speaks:
            written = folder.model(STAGE)
            write_pretrained(
                written,
                model.student,
                plan.start,
                name=recipe.name,
                temperature=plan.settings.temperature,
                proposals=plan.carried,
            )
        seconds = time.perf_counter() - began
        said = plan.summary() if speaks else ""
        return PretrainResult(written, said, trained.steps, seconds, trained.losses, trained.checkpoint)
