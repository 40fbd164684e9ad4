"""The loop over steps, and what ends it."""

from __future__ import annotations

import contextlib
import random
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from regionclip_cli.errors import RegionClipError, UsageError
from regionclip_cli.recipe.schema import Optimisation
from regionclip_cli.training.checkpoint import Checkpoints
from regionclip_cli.training.ema import Average
from regionclip_cli.training.metric_logger import LogHook
from regionclip_cli.training.optim import NotFiniteError, rate
from regionclip_cli.vision import distributed


class StepLoop(BaseLoop):
    """One iteration is one step of the optimiser, however many parts its batch is computed in.

    Args:
        runner: The runner.
        dataloader: Parts of batches, on a `Batches` sampler.
        settings: Of the training.
        seed: Of the run.
        checkpoints: Where a run goes on from.
        average: The average of the weights.
        resume: Whether to go on from the last checkpoint.
        logbook: What tells how far it is.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader,
        *,
        settings: Optimisation,
        seed: int,
        checkpoints: Checkpoints,
        average: Average | None,
        resume: bool,
        logbook: LogHook,
    ) -> None:
        super().__init__(runner, dataloader)
        self.settings, self.seed, self.checkpoints, self.average = settings, seed, checkpoints, average
        self.resume, self.logbook = resume, logbook
        self.iter, self.epoch = 0, 0
        self.max_iters, self.max_epochs = settings.steps, 1
        self._batch: list[dict[str, Any]] = []

    def run(self) -> nn.Module:
        """Train to the last step and return the model, with the averaged weights where there are any.

        Raises:
            UsageError: The run that it goes on from went further.
        """
        runner = self.runner
        last = self.checkpoints.last() if self.resume else None
        if last is not None:
            self.iter = self.checkpoints.restore(
                last, unwrap_model(runner.model), runner.optim_wrapper.optimizer, self.average
            )
        if self.iter > self.max_iters:
            raise UsageError(
                f"{last} has {self.iter:,} steps behind it, more than the {self.max_iters:,} that are asked for.",
                "Ask for as many steps or more, or train into another folder.",
            )
        self.dataloader.batch_sampler.first_step = self.iter
        runner.call_hook("before_train")
        with self._sentences():
            parts = iter(self.dataloader)
            while self.iter < self.max_iters:
                self.run_iter(parts)
        if self.average:
            self.average.copy_to()
        runner.call_hook("after_train")
        return runner.model

    def run_iter(self, parts: Iterator[Any]) -> None:
        """Compute the parts of one batch, change the weights, and tell the hooks."""
        runner = self.runner
        runner.model.train()
        reseed(self.seed, self.iter, distributed.rank())
        runner.optim_wrapper.set_rate(rate(self.settings, self.iter))
        self._batch = []
        sums: dict[str, torch.Tensor] = {}
        for _ in range(self.settings.grad_accum_steps):
            part = next(parts)
            if isinstance(part, RegionClipError):
                raise part
            self._batch.append(part)
            for sample in part["data_samples"]:
                self.logbook.complain(sample.get("problems", ()))
            runner.call_hook("before_train_iter", batch_idx=self.iter, data_batch=part)
            for name, value in runner.model.train_step(part, optim_wrapper=runner.optim_wrapper).items():
                sums[name] = sums.get(name, 0) + value.detach() / self.settings.grad_accum_steps
        runner.call_hook("after_train_iter", batch_idx=self.iter, data_batch=self._batch[-1], outputs=sums)
        self.iter += 1

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        """Tell what ended a training, and what it can go on from."""
        try:
            with warnings.catch_warnings():
                # DDP's advice about speed, for weights of depthwise convolutions, whose strides mean nothing.
                warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
                yield
        except NotFiniteError as err:
            raise RegionClipError(self._not_finite(), self._go_on(SLOWER)) from err
        except RuntimeError as err:
            if "DataLoader worker" not in str(err):
                raise
            reason = (
                re.sub(r"DataLoader worker \(pid(\(s\))?[^)]*\)", "it", str(err).splitlines()[0]).strip().rstrip(".")
            )
            raise RegionClipError(
                f"A process that reads images died at step {self.iter + 1}: {reason}.",
                self._go_on("It often means that memory ran out: try fewer `workers`."),
            ) from err
        except KeyboardInterrupt:
            self.logbook.progress.note(f"Stopped at step {self.iter}. {self._go_on()}")
            raise
        finally:
            self.logbook.close()

    def _not_finite(self) -> str:
        losses = self.runner.optim_wrapper.local_losses
        own = [str(s.get("key", "?")) for part in self._batch for s in part["data_samples"]]
        guilty = distributed.gather_strings([] if np.isfinite(losses).all() else own)
        keys = guilty or distributed.gather_strings(own)
        what = "The loss was not finite" if guilty else "A gradient was not finite"
        some = ", ".join(keys[:16]) + (", ..." if len(keys) > 16 else "")
        return (
            f"{what} at step {self.iter + 1} (losses {', '.join(f'{x:.4g}' for x in losses)}); the images were {some}."
        )

    def _go_on(self, advice: str = "") -> str:
        last = self.checkpoints.last()
        saved = (
            f"The last good checkpoint is {last}; --resume goes on from it." if last else "There is no checkpoint yet."
        )
        return f"{saved} {advice}".strip()


SLOWER = "With the same settings it would happen again: try a lower learning rate, in another folder (out=...)."


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return a model without the wrapper that connects it to other processes."""
    return model.module if isinstance(model, MMDistributedDataParallel) else model


def reseed(seed: int, step: int, rank: int) -> None:
    """Set all random number generators as a function of the step, so that a resumed run draws the same numbers."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))
