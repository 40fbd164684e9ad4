"""What region-text pretraining costs on this machine.

    python benchmarks/pretrain.py                                    # a table; on a CPU the rn50 parts take minutes
    python benchmarks/pretrain.py --parts rn50-bf16 --batch 16 --channels-last --json

Four configurations, each trained for a few steps by the code of the stage `pretrain` itself:

    packaged          the model in the package learns from labels, as the recipe `tiny` has it
    packaged-online   the same with a teacher that runs along
    rn50-fp32         the paper's networks with the numbers of the recipe `cc3m`: CLIP ResNet-50 learns from a frozen
    rn50-bf16         copy of itself, on 100 boxes an image of an R50-FPN proposal network, 4,764 concepts, images of
                      800 pixels. Weights and concepts are random, and `min_score` is 0, so that every box counts: a
                      trained teacher is unsure of some, and leaves the student less to do.

For orientation: the paper trains at 111 images/s on 32 V100 (600,000 steps of 96 images in six days).

Images are the two photos of the documentation and drawn scenes, exactly one batch of them, so that every step does the
same work. Steps are timed after some that warm up; the median counts. One more step, not timed, counts floating-point
operations: two for each multiplication with addition in matrix products, convolutions and attention, forward and
backward, and none for anything else. "Of the peak" compares with the matrix products that this machine was seen to do
in the same process: the time that the counted operations would take at their peak, over the time of the step. What
computes in full precision beside a student in bf16 (teacher and captions) is held to the peak of full precision. On a
GPU, that is TF32 where torch allows it to convolutions, as it does unless told otherwise.

"Share" is where the time of a step goes; `data` is waiting for images and their labels. Readers (`--workers`) work
ahead during the first steps: whether they keep up in a long run, the time for reading one image tells. Each
configuration has a process of its own, and so has the making of its models and labels: peak memory is that of the timed
steps. Everything is written to a temporary folder. Close other programs first.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pretrain_inputs import overrides, prepare


@dataclass(frozen=True)
class Configuration:
    """One way to pretrain.

    Attributes:
        recipe: The recipe whose numbers it has: `tiny` or `cc3m`.
        teacher: "labels" or "online".
        amp: "off" or "bf16".
        batch: Images of a step.
        short_side: Of the images, in pixels; None leaves the recipe's.
        channels_last: Whether feature maps are laid out by pixel.
        workers: Processes that read images.
        steps: Timed steps.
        threads: CPU threads; 0 leaves them alone.
        device: As the recipe takes it.
    """

    recipe: str
    teacher: str
    amp: str
    batch: int = 0
    short_side: int | None = None
    channels_last: bool = False
    workers: int = 0
    steps: int = 5
    threads: int = 0
    device: str = "cpu"


PARTS = {
    "packaged": Configuration("tiny", "labels", "off"),
    "packaged-online": Configuration("tiny", "online", "off"),
    "rn50-fp32": Configuration("cc3m", "online", "off"),
    "rn50-bf16": Configuration("cc3m", "online", "bf16"),
}


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="which of %(default)s to measure")
    parser.add_argument("--steps", type=positive, default=5, help="timed steps [%(default)s]")
    parser.add_argument(
        "--batch",
        type=positive,
        help="images of a step [CPU: 2 for rn50, else 4; GPU: 3 for rn50 to every 32 GiB, as in the paper, else 96]",
    )
    parser.add_argument("--short-side", type=positive, help="of images, pixels [800 for rn50, else 160]")
    parser.add_argument("--channels-last", action="store_true", help="lay feature maps out by pixel")
    parser.add_argument("--workers", type=int, help="processes that read images [CPU: 0; GPU: 4]")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice [%(default)s]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1; auto is a GPU where there is one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    unknown = set(options.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    if options.short_side and not 32 <= options.short_side <= 2048:
        parser.error("scenes are drawn with 32 to 2048 pixels")
    if options.device not in ("auto", "cpu") and not options.device.startswith("cuda"):
        parser.error("this is for a CPU or a GPU of NVIDIA's or AMD's: auto, cpu, cuda or cuda:1")
    return options


def positive(text: str) -> int:
    """Read a whole number above 0."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def look_at(device: str) -> dict[str, Any]:
    """Return what the machine is; runs in a process of its own, which lets go of the GPU."""
    import torch

    from regionclip_cli.inference.device import choose_device

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    where = choose_device(device)
    found: dict[str, Any] = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 0,
        "torch": torch.__version__,
        "device": device,
    }
    if where.type == "cuda":
        about = torch.cuda.get_device_properties(where)
        found |= {"GPU": about.name, "GPU memory, GiB": round(about.total_memory / 2**30, 1)}
    return found


def configured(part: str, options: argparse.Namespace, machine: dict[str, Any]) -> Configuration:
    """Return the configuration of a part with what the command line and the machine say."""
    chosen, memory = PARTS[part], machine.get("GPU memory, GiB")
    if chosen.recipe == "cc3m":
        batch = 2 if memory is None else max(1, int(3 * memory / 32))
    else:
        batch = 4 if memory is None else 96
    workers = options.workers
    if workers is None:
        workers = 0 if memory is None else 4
    return replace(
        chosen,
        batch=options.batch or batch,
        short_side=options.short_side,
        channels_last=options.channels_last,
        workers=workers,
        steps=options.steps,
        threads=options.threads,
        device=machine["device"],
    )


def measured(chosen: Configuration, folder: Path) -> dict[str, Any]:
    """Return what a configuration costs; for a process that has torch to itself."""
    from pretrain_meter import measure

    return measure(chosen.recipe, overrides(chosen, folder), chosen.threads)


def in_own_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run a function in a new process; one that fails becomes a sentence and does not stop the others."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except Exception as err:  # noqa: BLE001 - a benchmark of many parts reports and goes on
            return {"failed": f"{type(err).__name__}: {err}"}


def flattened(found: dict[str, Any]) -> dict[str, str]:
    """Return rows of the table: numbers with three digits, and a row for each share."""
    rows = {}
    for name, value in found.items():
        inner = value if isinstance(value, dict) else {"": value}
        for key, each in inner.items():
            text = str(each)
            if isinstance(each, float):
                text = f"{each:.3g}" if abs(each) < 1000 else f"{each:,.0f}"
            rows[f"{name}, {key}".removesuffix(", ")] = text
    return rows


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print what the machine is, and a table with a column for each part; sentences go below it."""
    print(", ".join(f"{name} {value}" for name, value in results.pop("machine").items()))
    said = {part: found.pop(key) for part, found in results.items() for key in ("failed", "left out") if key in found}
    columns = {part: flattened(found) for part, found in results.items() if part not in said}
    if columns:
        print(f"\n{'':<40}" + "".join(f"{part:>20}" for part in columns))
    for row in dict.fromkeys(row for rows in columns.values() for row in rows):
        print(f"{row:<40}" + "".join(f"{rows.get(row, ''):>20}" for rows in columns.values()))
    for part, sentence in said.items():
        print(f"\n{part} was not measured. {sentence}")


def main() -> int:
    """Measure what was asked for; return 1 when a part failed."""
    options = read_options()
    machine = in_own_process(look_at, options.device)
    results = {"machine": machine}
    with tempfile.TemporaryDirectory(prefix="regionclip-pretrain-") as name:
        folder = Path(name)
        os.environ["REGIONCLIP_CACHE"] = str(folder / "cache")  # processes started from here on inherit it
        for part in options.parts.split(",") if "failed" not in machine else ():
            if not options.json:
                print(f"measuring {part} ...", file=sys.stderr, flush=True)
            chosen = configured(part, options, machine)
            ready = in_own_process(prepare, chosen, folder)
            results[part] = ready or in_own_process(measured, chosen, folder)
    failed = any("failed" in found for found in results.values())
    if options.json:
        print(json.dumps(results, indent=2))
    elif "failed" in machine:
        print(machine["failed"])
    else:
        show(results)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
