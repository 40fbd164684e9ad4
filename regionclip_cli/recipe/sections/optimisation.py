"""Settings that every training shares: optimiser, schedule, precision, checkpoints."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regionclip_cli.recipe.section import Count, Section, Share, Weight


class Optimisation(Section):
    """How a network is trained; the defaults are those of the paper's pretraining."""

    steps: Count = Field(600_000, description="Optimiser steps.")
    batch_size: Count = Field(96, description="Images of one optimiser step, over all processes and accumulation.")
    accumulate: Count = Field(1, description="Parts a batch is computed in, to save memory.")
    optimiser: Literal["sgd", "adamw"] = Field("sgd", description="SGD with momentum 0.9, or AdamW.")
    lr: float = Field(0.002, gt=0, description="Learning rate after the warm-up.")
    momentum: Share = Field(0.9, description="Momentum of SGD.")
    weight_decay: Weight = Field(1e-4, description="Weight decay; norms have none.")
    clip_norm: float | None = Field(None, gt=0, description="Largest gradient norm of each parameter.")
    schedule: Literal["step", "cosine", "constant"] = Field("step", description="How the learning rate falls.")
    milestones: tuple[Count, ...] = Field((), description="Steps at which it is multiplied by `decay`.")
    decay: Share = Field(0.1, description="Factor of the learning rate at each milestone.")
    warmup_steps: int = Field(1000, ge=0, description="Steps over which the learning rate rises linearly.")
    warmup_factor: Share = Field(0.001, description="Where the warm-up starts, as a share of the learning rate.")
    freeze: int = Field(2, ge=0, description="Stages of the backbone that stay as they are.")
    amp: Literal["off", "bf16"] = Field("off", description="Compute in bf16 where it is safe.")
    ema: Share | None = Field(
        None, description="Keep an average of the weights instead; the share that it keeps of itself a step, as 0.999."
    )
    activation_checkpointing: bool = Field(False, description="Compute activations twice to save memory.")
    channels_last: bool = Field(False, description="Lay feature maps out by pixel, which some devices prefer.")
    compile: bool = Field(False, description="Compile the network with torch, which pays off in long runs on a GPU.")
    workers: int = Field(4, ge=0, description="Processes that read images.")
    checkpoint_every: Count = Field(5000, description="Steps between checkpoints.")
    keep_last: Count = Field(2, description="Checkpoints to keep.")
    log_every: Count = Field(50, description="Steps between log lines.")
