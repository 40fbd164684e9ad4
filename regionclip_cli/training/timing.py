"""What a training would take on this machine, measured on a few of its steps."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel

from regionclip_cli.errors import pluralize
from regionclip_cli.recipe.schema import Optimisation
from regionclip_cli.runs.progress import Silent
from regionclip_cli.training.runner import build_runner, train
from regionclip_cli.training.sampler import TrainingSet
from regionclip_cli.vision import distributed

TIMED = 2
"""Steps that are timed, after one that is not."""
MOST_ON_CPU = 4
"""Images of a timed step where there is no GPU."""


@dataclass(frozen=True)
class Timing:
    """What a few steps took.

    Attributes:
        images: Images of one timed step, of all processes together.
        images_per_second: Of all processes together.
        seconds: How long all steps of the training would take.
        memory: Bytes in use at the most: of the GPU, or of this process where there is none.
        losses: Means over the timed steps.
        device: What it was measured on.
    """

    images: int
    images_per_second: float
    seconds: float
    memory: int
    losses: Mapping[str, float]
    device: str

    def said(self, more: str = "") -> str:
        """Return two sentences for a person, with `more` behind the speed."""
        return (
            f"Measured over {TIMED} steps of {pluralize(self.images, 'images')} on {self.device}: "
            f"{self.images_per_second:.3g} images/s{more}, {self.memory / 2**30:.2f} GiB of memory. All steps would "
            f"take about {_time(self.seconds)}"
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


def time_steps(
    model: BaseModel, dataset: TrainingSet, settings: Optimisation, *, seed: int, device: torch.device
) -> Timing:
    """Make a few steps whose result is thrown away, and reckon; nothing is written.

    On a GPU the steps are computed in parts of the real size. On a CPU they have a few images at most, and memory is
    that of so many.

    Args:
        model: What is trained, on its device; its weights change.
        dataset: What is trained on.
        settings: Of the whole training.
        seed: Of the draws.
        device: Where the model is.
    """
    part = settings.batch_size // (settings.grad_accum_steps * distributed.world_size())
    piece = max(1, part if device.type == "cuda" else min(part, MOST_ON_CPU))
    few = settings.model_copy(
        update={
            "steps": TIMED + 1,
            "batch_size": piece * distributed.world_size(),
            "grad_accum_steps": 1,
            "log_every": TIMED + 1,
            "checkpoint_every": TIMED + 2,
            "warmup_steps": TIMED + 1,
        }
    )
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            build_runner(
                model,
                dataset,
                few,
                work_dir=Path(folder),
                seed=seed,
                device=device,
                resume=False,
                progress=Silent(),
                hooks=[clock],
            )
        )
    per_step = (clock.ends[-1] - clock.ends[0]) / TIMED
    images = piece * distributed.world_size()
    return Timing(
        images=images,
        images_per_second=images / per_step,
        seconds=settings.steps * settings.batch_size * per_step / images,
        memory=peak_memory(device),
        losses=result.losses,
        device=str(device),
    )


def peak_memory(device: torch.device) -> int:
    """Return the most bytes in use so far: of the GPU, or of this process where there is none; 0 on Windows."""
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
