"""States of a training that it can go on from: whole or absent, the last few kept.

A checkpoint holds what training changes: the trained weights, buffers, the optimiser's momentum, the average of the
weights. Frozen weights are those of the model that the run started from. Nothing else is needed to go on exactly:
learning rate, order of the images and all random draws are functions of the seed and the step. It holds plain tensors
and numbers only, so that it can be read without running any code that is in it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn

from regionclip_cli.errors import OutputError, UsageError
from regionclip_cli.files import parsing, whole_file
from regionclip_cli.training.ema import Average
from regionclip_cli.vision import distributed

FORMAT = 1
_NAME = re.compile(r"step-(\d+)\.pth")


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Where they are.
        keep_last: How many of them stay.
        identity: Settings that a run must have in common with the one it goes on from.
    """

    def __init__(self, folder: Path, keep_last: int, identity: Mapping[str, Any]) -> None:
        self.folder, self.keep_last, self.identity = folder, keep_last, dict(identity)

    def all(self) -> list[Path]:
        """Return the whole checkpoints, oldest first."""
        found = [(int(match[1]), path) for path in self.folder.glob("*") if (match := _NAME.fullmatch(path.name))]
        return [path for _, path in sorted(found)]

    def last(self) -> Path | None:
        """Return the newest whole checkpoint."""
        return next(reversed(self.all()), None)

    def save(self, step: int, model: nn.Module, optimiser: torch.optim.Optimizer, average: Average | None) -> Path:
        """Write the state after `step` steps, then drop the oldest checkpoints.

        Raises:
            OutputError: The disk refuses; earlier checkpoints stay.
        """
        path = self.folder / f"step-{step:07d}.pth"
        state = {
            "format": FORMAT,
            "step": step,
            "identity": self.identity,
            "model": trained_state(model),
            "optimiser": optimiser.state_dict(),
            "average": average.values if average else None,
        }
        with whole_file(path) as part:
            try:
                torch.save(state, part)
            except RuntimeError as err:  # torch's writer turns a full disk into this
                reason = "the disk took a part of it only" if "unexpected pos" in str(err) else _first_line(err)
                raise OutputError(f"{path} cannot be written: {reason}.", "Is the disk full?") from err
        for old in self.all()[: -self.keep_last]:
            with contextlib.suppress(OSError):
                old.unlink()
        return path

    def restore(self, path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, average: Average | None) -> int:
        """Take up the state in a checkpoint and return its step.

        Raises:
            UsageError: It is damaged, or of a run with other settings.
        """
        state = _read(path)
        for name, value in self.identity.items():
            before = state["identity"].get(name)
            if before != value:
                raise UsageError(
                    f"{path} was trained with {name} {before}, and now it is {value}.",
                    "Go on with the same settings, or train into another folder.",
                )
        wanted = trained_state(model)
        if set(wanted) != set(state["model"]) or any(wanted[key].shape != state["model"][key].shape for key in wanted):
            raise UsageError(
                f"{path} holds the weights of another network, or of one with other parts frozen.",
                "Go on with the same model and `frozen_stages`, or train into another folder.",
            )
        model.load_state_dict(state["model"], strict=False)
        try:
            optimiser.load_state_dict(state["optimiser"])
        except (ValueError, KeyError) as err:
            raise UsageError(f"{path} was trained with another optimiser: {_first_line(err)}.") from err
        if average:
            average.load(state["average"] if state["average"] is not None else state["model"])
        return int(state["step"])

    def clean(self) -> None:
        """Remove what a killed run left half-written."""
        for part in self.folder.glob(".step-*.part"):
            with contextlib.suppress(OSError):
                part.unlink()


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained weights and the buffers of a model under their names."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name for name, _ in model.named_parameters()} - trained
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint, running nothing that is in it.

    Raises:
        UsageError: It is damaged or of another kind.
    """
    hint = "Remove it; an older checkpoint beside it is taken up then."
    with parsing(f"The checkpoint {path} cannot be read", hint):
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"{path} is no checkpoint of this tool, or one of another version.", hint)
    return state


def _first_line(err: BaseException) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0].rstrip(".")


class CheckpointHook(Hook):
    """Writes a checkpoint every so many steps and after the last one, in the first process.

    Args:
        checkpoints: Where to.
        model: What is trained, unwrapped.
        every: Steps between checkpoints.
        average: The average of the weights, where there is one.
    """

    priority = "VERY_LOW"

    def __init__(self, checkpoints: Checkpoints, model: nn.Module, every: int, average: Average | None) -> None:
        self.checkpoints, self.model, self.every, self.average = checkpoints, model, every, average

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: object = None, outputs: object = None) -> None:
        """Save when it is time."""
        step = batch_idx + 1
        if (step % self.every == 0 or step == runner.max_iters) and distributed.rank() == 0:
            self.checkpoints.save(step, self.model, runner.optim_wrapper.optimizer, self.average)
