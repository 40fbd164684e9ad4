"""Time, work and memory of training steps, taken by a hook while the stage's own code trains."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from mmengine.hooks import Hook
from torch.utils.flop_counter import FlopCounterMode

from regionclip_cli.training.timing import peak_memory

PARTS = ("data", "to the device", "teacher", "captions", "student", "backward", "optimiser", "rest")
COUNTED = ("teacher", "captions", "student", "backward")
FULL_PRECISION = ("teacher", "captions")
"""Parts that compute in full precision whatever the student computes in."""


def convolution_backward(
    out: Sequence[int],
    image: Sequence[int],
    weight: Sequence[int],
    *rest: Any,
    out_shape: Any = None,
) -> int:
    """Return the operations of a convolution's backward: as many as forward for each of its two large gradients.

    Args:
        out: Shape of the gradient that comes in.
        image: Shape of what was convolved.
        weight: (out, in / groups, height, width).
        rest: The operator's other arguments: bias, stride, padding, dilation, whether it is transposed, output
            padding, groups, and which gradients are wanted: of the image, the weight, the bias.
        out_shape: Of the results.
    """
    places = prod((image if rest[4] else out)[2:])
    return 2 * out[0] * places * prod(weight) * sum(rest[7][:2])


# torch's own formula leaves groups out of the weight's gradient: the backward of a depthwise convolution of 64 channels
# seems to cost 65 times its forward. https://github.com/pytorch/pytorch/pull/183405
FORMULAS = {torch.ops.aten.convolution_backward: convolution_backward}


class Meter(Hook):
    """Notes when the parts of each step end, and in the last step how many operations they are.

    Every moment of a step belongs to the part whose end is noted next. On a GPU the notes are events in its own order
    of work, so that nothing waits for them; the process waits for the GPU where a step ends.

    Args:
        device: Where training computes.
        first: Number of the first step that counts.
        last: Number of the step that counts operations, one after the last that is timed.
    """

    priority = "LOWEST"  # behind whatever else a step does: logs, checkpoints

    def __init__(self, device: torch.device, first: int, last: int) -> None:
        self.device, self.first, self.last = device, first, last
        self.seconds: list[float] = []
        self.regions: list[float] = []
        self.parts: dict[str, float] = defaultdict(float)
        self.operations: dict[str, int] = defaultdict(int)
        self.canvas = (0, 0)
        self.memory = 0
        self._counter: FlopCounterMode | None = None
        self._notes: list[tuple[str, Any]] = []

    def before_train(self, runner: Any) -> None:
        """Begin to listen to the model and to what changes its weights."""
        model, optimiser = runner.model, runner.optim_wrapper
        self._listen(model.data_preprocessor, "rest", "to the device")
        model.data_preprocessor.register_forward_hook(self._see)
        if model.teacher is not None:
            self._listen(model.teacher, "student", "teacher")
        if model.texts is not None:
            model.texts = self._noted(model.texts, "student", "captions")
        optimiser.backward = self._noted(optimiser.backward, "student", "backward")
        optimiser.step = self._noted(optimiser.step, "rest", "optimiser")
        optimiser.zero_grad = self._noted(optimiser.zero_grad, "rest", "optimiser")
        self._ended = time.perf_counter()
        self._note("")

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note that images are here; in the last step, begin to count."""
        self._note("data")
        if batch_idx == self.last:
            self._counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
            self._counter.__enter__()
            self._notes = [("", 0)]

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Wait for the GPU and take down one step."""
        self._note("rest")
        if self._counter:
            self._counter.__exit__(None, None, None)
            for (_, before), (part, after) in zip(self._notes, self._notes[1:], strict=False):
                self.operations[part] += after - before
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        if batch_idx >= self.first:
            self.seconds.append(now - self._ended)
            self.regions.append(float(outputs.get("regions", 0)))
            for (_, before), (part, after) in zip(self._notes, self._notes[1:], strict=False):
                self.parts[part] += before.elapsed_time(after) / 1000 if self.device.type == "cuda" else after - before
            self.memory = peak_memory(self.device)
        self._ended, self._notes = time.perf_counter(), []
        self._note("")

    def _note(self, part: str) -> None:
        """Note the end of a part."""
        stamp: Any
        if self._counter:
            stamp = self._counter.get_total_flops()
        elif self.device.type == "cuda":
            stamp = torch.cuda.Event(enable_timing=True)
            stamp.record()
        else:
            stamp = time.perf_counter()
        self._notes.append((part, stamp))

    def _listen(self, module: torch.nn.Module, before: str, own: str) -> None:
        """Note when a module begins, which ends the part `before`, and when it is done."""
        module.register_forward_pre_hook(lambda *_: self._note(before))
        module.register_forward_hook(lambda *_: self._note(own))

    def _noted(self, function: Callable[..., Any], before: str, own: str) -> Callable[..., Any]:
        """Return a function that notes its beginning and its end."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self._note(before)
            result = function(*args, **kwargs)
            self._note(own)
            return result

        return run

    def _see(self, module: torch.nn.Module, arguments: Any, result: dict[str, Any]) -> None:
        """Take down the size of a batch, padded."""
        height, width = result["inputs"].shape[-2:]
        self.canvas = (int(height), int(width))


def measure(recipe: str, changes: Sequence[str], threads: int) -> dict[str, Any]:
    """Pretrain for some steps and return what they cost.

    Args:
        recipe: Name of the recipe.
        changes: What is said anew of it; `pretrain.steps` are the steps to time.
        threads: CPU threads; 0 leaves them alone.
    """
    from regionclip_cli.inference.device import choose_device
    from regionclip_cli.recipe.loader import load_recipe
    from regionclip_cli.runs.progress import Silent
    from regionclip_cli.stages.pretrain import make_plan
    from regionclip_cli.training.runner import build_runner, train
    from regionclip_cli.vision.library_log import redirect_mmengine_logs

    redirect_mmengine_logs()
    # mmengine sets the way to start processes that readers have in every training, and warns where there was another.
    warnings.filterwarnings("ignore", "Multi-processing start method")
    if threads:
        torch.set_num_threads(threads)
    loaded = load_recipe(recipe, changes)
    device = choose_device(loaded.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    plan = make_plan(loaded, Silent())
    warm = 3 if device.type == "cuda" else 1
    steps = warm + plan.settings.steps + 1
    few = plan.settings.model_copy(
        update={"steps": steps, "log_every": steps, "checkpoint_every": steps, "warmup_steps": steps}
    )
    meter = Meter(device, warm, steps - 1)
    with tempfile.TemporaryDirectory() as folder:
        runner = build_runner(
            plan.pretrainer(device),
            plan.dataset(),
            few,
            work_dir=Path(folder),
            seed=plan.seed,
            device=device,
            resume=False,
            progress=Silent(),
            hooks=[meter],
        )
        train(runner)
    return rounded(report(plan, meter, device))


def report(plan: Any, meter: Meter, device: torch.device) -> dict[str, Any]:
    """Return the numbers of a run under their names."""
    s, seconds = plan.settings, median(meter.seconds)
    peaks = {"full precision": peak(device, torch.float32)}
    if s.amp == "bf16":
        peaks["bf16"] = peak(device, torch.bfloat16)
    students = peaks.get("bf16", peaks["full precision"])
    total = sum(meter.operations.values())
    full = sum(meter.operations.get(part, 0) for part in FULL_PRECISION)
    at_best = full / peaks["full precision"] + (total - full) / students
    regions, passed = mean(meter.regions), sum(meter.parts.values())
    return {
        "images a step": s.batch_size,
        "canvas, pixels": "{}x{}".format(*meter.canvas),
        "concepts": len(plan.bank.names),
        "regions an image": round(regions, 1),
        "channels last": "yes" if s.channels_last else "no",
        "readers": s.workers,
        "CPU threads": torch.get_num_threads(),
        "seconds a step": seconds,
        "seconds a step, least": min(meter.seconds),
        "seconds a step, most": max(meter.seconds),
        "images/s": s.batch_size / seconds,
        "regions/s": regions * s.batch_size / seconds,
        "GFLOP a step": {"all": total / 1e9} | {part: meter.operations[part] / 1e9 for part in COUNTED},
        "GFLOP/s": total / 1e9 / seconds,
        "peak GFLOP/s": {name: value / 1e9 for name, value in peaks.items()},
        "of the peak, %": 100 * at_best / seconds,
        "share, %": {part: 100 * meter.parts[part] / passed for part in PARTS},
        "reading an image, s of one core": reading(plan),
        "peak memory, GiB": meter.memory / 2**30,
    }


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Return values with four digits of every number that is no whole one."""
    found = {}
    for name, value in values.items():
        found[name] = rounded(value) if isinstance(value, dict) else value
        if isinstance(value, float):
            found[name] = float(f"{value:.4g}")
    return found


def reading(plan: Any, most: int = 8) -> float:
    """Return how long it takes to read, decode and resize an image, without other processes; the median of a few."""
    dataset, times = plan.dataset(), []
    for index in range(min(most, len(dataset))):
        start = time.perf_counter()
        dataset.draw(index, seed=index)
        times.append(time.perf_counter() - start)
    return median(times)


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the most floating-point operations a second of a square matrix product, seen within a second or two."""
    cuda = device.type == "cuda"
    side = 8192 if cuda else 2048
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32  # convolutions do the most of the work
    times: list[float] = []
    try:
        while len(times) < 4 or (sum(times) < 1 and len(times) < 1000):
            if cuda:
                torch.cuda.synchronize(device)
            start = time.perf_counter()
            torch.matmul(one, other)
            if cuda:
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * side**3 / min(times)
