"""From a model, data and settings to an mmengine Runner, and from a Runner to trained weights."""

from __future__ import annotations

import contextlib
import inspect
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from regionclip_cli.errors import UsageError
from regionclip_cli.recipe.schema import Optimisation
from regionclip_cli.training.checkpoint import CheckpointHook, Checkpoints
from regionclip_cli.training.ema import Average, AverageHook
from regionclip_cli.training.loop import StepLoop
from regionclip_cli.training.metric_logger import LogHook, ValidationHook
from regionclip_cli.training.optim import StepWrapper, build_optimiser
from regionclip_cli.training.sampler import Batches, TrainingSet, build_loader
from regionclip_cli.vision import distributed
from regionclip_cli.vision.library_log import forward

_THEIR_HOOKS = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
"""mmengine's default hooks, in whose place ours stand."""


class Progress(Protocol):
    """What a training calls while it works; the stages' `Progress`."""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Begin a task."""

    def advance(self, done: int = 1) -> None:
        """Count units."""

    def note(self, message: str) -> None:
        """Say something."""

    def warn(self, message: str) -> None:
        """Say that something went wrong."""

    def finish(self) -> None:
        """End the task."""


class _Silent:
    """Says nothing: what all processes but the first do."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


@dataclass(frozen=True)
class TrainResult:
    """What a training did.

    Attributes:
        steps: How many steps the model has behind it.
        seconds: How long this run took.
        losses: Means of the losses over the last steps that were logged.
        checkpoint: The last checkpoint.
    """

    steps: int
    seconds: float
    losses: dict[str, float]
    checkpoint: Path | None


class Trainer(Runner):
    """mmengine's Runner without its own files and its log on stdout; the model goes where it is told."""

    def __init__(self, *args: Any, device: torch.device, loop: Callable[[Runner], StepLoop], **kwargs: Any) -> None:
        self.device, self._make_loop = device, loop
        super().__init__(*args, train_cfg={}, **kwargs)

    def build_train_loop(self, loop: Any) -> StepLoop:
        """Return our loop, made once."""
        return loop if isinstance(loop, StepLoop) else self._make_loop(self)

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """Return a logger that speaks through Python's."""
        logger = MMLogger.get_instance(self.experiment_name, log_level=log_level)
        forward(logger)
        return logger

    def dump_config(self) -> None:
        """Write nothing: the run folder holds the resolved recipe."""

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Move the model to its device and, among several processes, wrap it."""
        model = model.to(self.device)
        if not self.distributed:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        unused = bool(getattr(model, "find_unused_parameters", False))
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # older torch
        return MMDistributedDataParallel(model, device_ids=ids, find_unused_parameters=unused, **{buffers: False})


def build_runner(
    model: BaseModel,
    dataset: TrainingSet,
    settings: Optimisation,
    *,
    work_dir: Path,
    seed: int,
    device: str | torch.device,
    resume: bool,
    progress: Progress,
    hooks: Sequence[Hook] = (),
    validation: Callable[[int], Mapping[str, float]] | None = None,
    validate_every: int | None = None,
    learned_from: Mapping[str, str] | None = None,
) -> Trainer:
    """Make everything ready for `train`.

    Under `torchrun` every process calls this with the same arguments; each computes its share of every batch.

    Args:
        model: An mmengine model whose `loss` gives losses; what is frozen stays as it is. A model may offer
            `checkpoint_activations()` for the setting of that name, and its own `compile()`.
        dataset: What is trained on.
        settings: How.
        work_dir: Folder for `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
        seed: Of the order of images and everything that is drawn at random.
        device: Where to compute; `cuda` is each process's own GPU.
        resume: Go on from the last checkpoint in `work_dir`, if there is one.
        progress: Told about steps and losses.
        hooks: More hooks for the runner.
        validation: Called with the step in the first process; returns {name: value}.
        validate_every: Steps between two such calls; None: only after the last.
        learned_from: Fingerprints {what: digits} of what must be the same when the run is taken up again.

    Raises:
        UsageError: `work_dir` holds checkpoints and `resume` is off; batches cannot be cut evenly; all is frozen.
    """
    where = distributed.own_device(device)
    distributed.join(where)
    first = distributed.rank() == 0
    identity = {
        "seed": seed,
        "batch_size": settings.batch_size,
        "grad_accum_steps": settings.grad_accum_steps,
        "images": len(dataset),
        **(learned_from or {}),
    }
    checkpoints = Checkpoints(work_dir / "checkpoints", settings.keep_last, identity)
    if not resume and checkpoints.last():
        raise UsageError(
            f"{work_dir} holds checkpoints of an earlier run.", "Go on with --resume, or train into another folder."
        )
    if first:
        checkpoints.clean()
    if settings.activation_checkpointing:
        _offered(model, "checkpoint_activations")()
    model.init_weights = _leave_weights  # mmengine would initialise networks that have their weights already
    if settings.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model = model.to(where)
    if settings.compile:
        model.compile()
    average = Average(model, settings.ema_decay) if settings.ema_decay is not None else None
    batches = Batches(
        dataset, settings.batch_size, settings.grad_accum_steps, distributed.rank(), distributed.world_size(), seed
    )
    loader = build_loader(batches, settings.workers, where)
    bf16 = where.type if settings.amp == "bf16" else None
    logbook = LogHook(work_dir, settings, progress if first else _Silent())
    own: list[Hook] = [logbook, CheckpointHook(checkpoints, model, settings.checkpoint_every, average)]
    if average:
        own.append(AverageHook(average))
    if validation:
        every = validate_every or settings.steps
        own.append(ValidationHook(validation, every, average, logbook, model))
    name = f"training-{os.getpid()}-{time.monotonic_ns()}"
    runner = Trainer(
        device=where,
        loop=lambda runner: StepLoop(
            runner,
            loader,
            settings=settings,
            seed=seed,
            checkpoints=checkpoints,
            average=average,
            resume=resume,
            logbook=logbook,
        ),
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader,
        optim_wrapper=StepWrapper(
            build_optimiser(model, settings), settings.grad_accum_steps, settings.clip_norm, bf16
        ),
        default_hooks=dict.fromkeys(
            ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
        ),
        custom_hooks=[*own, *hooks],
        launcher="pytorch" if distributed.world_size() > 1 else "none",
        randomness={"seed": seed},
        visualizer=Visualizer.get_instance(name),
        experiment_name=name,
    )
    with contextlib.suppress(OSError):
        Path(runner.log_dir).rmdir()  # mmengine makes it, and nothing goes there
    return runner


def train(runner: Trainer) -> TrainResult:
    """Run a training to its end. The model then has the weights that are to be kept.

    Raises:
        RegionClipError: A loss was not finite, or a process that reads images died; both name the last checkpoint.
        OutputError: The disk is full; the last whole checkpoint stays.
    """
    began = time.perf_counter()
    runner.train()
    loop = runner.train_loop
    distributed.wait()
    return TrainResult(loop.iter, time.perf_counter() - began, loop.logbook.means, loop.checkpoints.last())


def _leave_weights() -> None:
    """Initialise nothing."""


def _offered(model: BaseModel, method: str) -> Callable[[], None]:
    """Return a method that not every model has.

    Raises:
        UsageError: This one has not.
    """
    found: Callable[[], None] | None = getattr(model, method, None)
    if found is None:
        raise UsageError(f"A {type(model).__name__} cannot {method.replace('_', ' ')}.", "Leave that setting off.")
    return found
