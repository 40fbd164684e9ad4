"""`--dry-run`: what a pretraining would take, measured on a few of its steps."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from regionclip_cli.stages.pretraining.plan import Plan
from regionclip_cli.stages.progress import Silent
from regionclip_cli.training.loop import build_runner, processes, train

TIMED = 2
"""Steps that are timed, after one that is not."""
MOST_ON_CPU = 4
"""Images of a timed step where there is no GPU."""
_FLOAT = 4


@dataclass(frozen=True)
class PretrainEstimate:
    """What a pretraining would take on this machine.

    Attributes:
        plan: What would be learned from what, in a sentence.
        images: Images there are.
        concepts: Concepts C.
        steps: Optimiser steps.
        regions: Regions of an image that took part in the timed steps, on average.
        timed_images: Images of one timed step.
        images_per_second: Of all processes together.
        seconds: How long all steps would take.
        memory: Bytes in use at the most: of the GPU, or of this process where there is none.
        checkpoint: Bytes of one checkpoint.
        device: What it was measured on.
    """

    plan: str
    images: int
    concepts: int
    steps: int
    regions: float | None
    timed_images: int
    images_per_second: float
    seconds: float
    memory: int
    checkpoint: int
    device: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"dry_run": True, **asdict(self)}

    def summary(self) -> str:
        """Return a few sentences for a person."""
        regions = "" if self.regions is None else f", {self.regions:.3g} regions an image"
        return (
            f"{self.plan} Measured over {TIMED} steps of {self.timed_images} images on {self.device}: "
            f"{self.images_per_second:.3g} images/s{regions}, {self.memory / 2**30:.2f} GiB of memory. All steps would "
            f"take about {_time(self.seconds)}; a checkpoint takes {self.checkpoint / 2**20:.0f} MiB."
        )


class _Clock(Hook):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Note the time; work that a GPU has not done yet counts."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def estimate(plan: Plan, device: torch.device) -> PretrainEstimate:
    """Load the networks, make a few steps whose result is thrown away, and reckon; nothing is written.

    On a GPU the steps are computed in parts of the real size. On a CPU they have a few images at most, and memory is
    that of so many.
    """
    s = plan.settings
    part = s.batch_size // (s.accumulate * processes.world_size())
    piece = max(1, part if device.type == "cuda" else min(part, MOST_ON_CPU))
    few = s.model_copy(
        update={
            "steps": TIMED + 1,
            "batch_size": piece * processes.world_size(),
            "accumulate": 1,
            "log_every": TIMED + 1,
            "checkpoint_every": TIMED + 2,
            "warmup_steps": TIMED + 1,
        }
    )
    model, clock = plan.pretrainer(device), _Clock()
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            build_runner(
                model,
                plan.dataset(),
                few,
                work_dir=Path(folder),
                seed=plan.seed,
                device=device,
                resume=False,
                progress=Silent(),
                hooks=[clock],
            )
        )
    per_step = (clock.ends[-1] - clock.ends[0]) / TIMED
    speed = piece * processes.world_size() / per_step
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    copies = 2 + (s.optimiser == "adamw") + (s.ema is not None)
    return PretrainEstimate(
        plan=plan.summary(),
        images=len(plan.pairs),
        concepts=len(plan.bank.names),
        steps=s.steps,
        regions=result.losses.get("regions"),
        timed_images=piece * processes.world_size(),
        images_per_second=speed,
        seconds=s.steps * s.batch_size / speed,
        memory=_memory(device),
        checkpoint=trained * copies * _FLOAT,
        device=str(device),
    )


def _memory(device: torch.device) -> int:
    """Return the most bytes in use so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    hours = minutes // 60
    return f"{minutes} min" if minutes < 100 else f"{hours} h" if hours < 100 else f"{hours // 24} days"
