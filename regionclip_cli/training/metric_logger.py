"""What a training says about itself: progress, a line of JSON, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor

from regionclip_cli.files import replacing, writing
from regionclip_cli.recipe.schema import Optimisation
from regionclip_cli.training.ema import Average
from regionclip_cli.vision import distributed

METRICS = "metrics.jsonl"
MOST_WARNINGS = 10


class Metrics:
    """`metrics.jsonl`: {"step", "loss", ...} one a line, and the same for TensorBoard.

    Args:
        folder: Where they go.
        step: Where the run goes on; lines of later steps are from before it was cut off, and are dropped.

    Raises:
        OutputError: The disk refuses.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / METRICS
        if self.path.exists():
            with writing(self.path):
                lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if 0 <= _step(line) <= step]
            with replacing(self.path) as file:
                file.write("".join(line + "\n" for line in kept).encode())
        self._board: Any = None
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of a step."""
        line = json.dumps({"step": step} | {name: float(f"{value:.6g}") for name, value in values.items()})
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Let go of the files."""
        if self._board is not None:
            self._board.close()


def _step(line: str) -> int:
    """Return the step of a line, -1 for one that was cut off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


class LogHook(Hook):
    """Adds up losses on the device and says their means every so many steps, over all processes.

    Args:
        folder: Of the metrics.
        settings: Of the training.
        progress: Told about every step; one that says nothing in all processes but the first.
    """

    priority = "LOW"

    def __init__(self, folder: Path, settings: Optimisation, progress: Any) -> None:
        self.folder, self.settings, self.progress = folder, settings, progress
        self.means: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._complaints = 0
        self._metrics: Metrics | None = None

    def before_train(self, runner: Any) -> None:
        """Begin where the run goes on."""
        if distributed.rank() == 0:
            self._metrics = Metrics(self.folder, runner.iter)
        self.progress.start("training", self.settings.steps - runner.iter, "steps")
        self._began = time.perf_counter()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Tensor] | None = None
    ) -> None:
        """Count one step."""
        for name, value in (outputs or {}).items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._count += 1
        self.progress.advance()
        step = batch_idx + 1
        if step % self.settings.log_every == 0 or step == self.settings.steps:
            self._say(step, runner)

    def after_run(self, runner: Any) -> None:
        """End the task."""
        self.close()

    def close(self) -> None:
        """Let go of the files and of the progress bar."""
        self.progress.finish()
        if self._metrics:
            self._metrics.close()

    def complain(self, problems: Iterable[str]) -> None:
        """Say which images were passed over, as long as they are few."""
        for problem in problems:
            self._complaints += 1
            if self._complaints <= MOST_WARNINGS:
                self.progress.warn(f"{problem} Another image takes its place.")
            elif self._complaints == MOST_WARNINGS + 1:
                self.progress.warn("Further images that cannot be read are passed over in silence.")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write values that came from elsewhere, such as a validation."""
        if self._metrics:
            self._metrics.write(step, values)

    def _say(self, step: int, runner: Any) -> None:
        self.means = distributed.averaged({name: total / self._count for name, total in self._sums.items()})
        seconds = (time.perf_counter() - self._began) / self._count
        more = {
            "lr": runner.optim_wrapper.optimizer.param_groups[0]["lr"],
            "seconds_per_step": seconds,
            "images_per_second": self.settings.batch_size / seconds,
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            more["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self.write(step, self.means | more)
        losses = ", ".join(f"{name.removeprefix('loss_')} {value:.4g}" for name, value in self.means.items())
        speed = f"lr {more['lr']:.3g}, {more['images_per_second']:.3g} images/s"
        line = f"step {step}/{self.settings.steps}: {losses}; {speed}"
        self.progress.note(line)
        self._sums, self._count, self._began = {}, 0, time.perf_counter()


class ValidationHook(Hook):
    """Measures the model while it is trained, in the first process; the others wait.

    Args:
        validation: Step to {name: value}. The averaged weights are in place where there are any.
        every: Steps between two calls; the last step is always measured.
        average: The average of the weights.
        logbook: Where the values go.
        model: What is trained.
    """

    priority = "LOW"

    def __init__(
        self,
        validation: Callable[[int], Mapping[str, float]],
        every: int,
        average: Average | None,
        logbook: LogHook,
        model: torch.nn.Module,
    ) -> None:
        self.validation, self.every, self.average = validation, every, average
        self.logbook, self.model = logbook, model

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: object = None, outputs: object = None) -> None:
        """Measure when it is time."""
        step = batch_idx + 1
        if step % self.every and step != runner.max_iters:
            return
        if distributed.rank() == 0:
            self.model.eval()
            if self.average:
                with self.average.in_place():
                    values = self.validation(step)
            else:
                values = self.validation(step)
            self.logbook.write(step, {f"val/{name}": value for name, value in values.items()})
            self.logbook.progress.note(f"step {step}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items()))
        distributed.wait()
