"""`--dry-run`: what a pretraining would take, measured on a few of its steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from regionclip_cli.stages.pretraining.plan import Plan
from regionclip_cli.stages.running.timing import Timing, time_steps

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
        timing = Timing(self.timed_images, self.images_per_second, self.seconds, self.memory, {}, self.device)
        return f"{self.plan} {timing.said(regions)}; a checkpoint takes {self.checkpoint / 2**20:.0f} MiB."


def estimate(plan: Plan, device: torch.device) -> PretrainEstimate:
    """Load the networks, time a few steps (`timing.time_steps`), and reckon; nothing is written."""
    s = plan.settings
    model = plan.pretrainer(device)
    timing = time_steps(model, plan.dataset(), s, seed=plan.seed, device=device)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    copies = 2 + (s.optimiser == "adamw") + (s.ema is not None)
    return PretrainEstimate(
        plan=plan.summary(),
        images=len(plan.pairs),
        concepts=len(plan.bank.names),
        steps=s.steps,
        regions=timing.losses.get("regions"),
        timed_images=timing.images,
        images_per_second=timing.images_per_second,
        seconds=timing.seconds,
        memory=timing.memory,
        checkpoint=trained * copies * _FLOAT,
        device=timing.device,
    )
