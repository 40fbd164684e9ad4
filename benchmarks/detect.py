"""How fast detection is on this machine.

    python benchmarks/detect.py                        # a table, in some minutes
    python benchmarks/detect.py --parts help,packaged --json

Every part runs in processes of its own, so that start-up is cold and peak memory is its own. A part whose model is not
on this machine is left out with a sentence. Close other programs first: with two cores, one busy neighbour doubles
everything.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rn50 import measure

HERE = Path(__file__).resolve().parent.parent
PHOTOS = HERE / "docs" / "photos"
COMMAND = [sys.executable, "-m", "regionclip_cli"]
CLASSES = "cat,coffee cup,spoon,kettle"


def seconds_to_help(options: argparse.Namespace) -> dict[str, Any]:
    """Return how long `regionclip --help` takes."""
    times = []
    for _ in range(options.repeats + 2):
        start = time.perf_counter()
        subprocess.run([*COMMAND, "--help"], check=True, capture_output=True, cwd=HERE)
        times.append(time.perf_counter() - start)
    return {"seconds": round(min(times), 2)}


def seconds_to_first_box(options: argparse.Namespace) -> dict[str, Any]:
    """Return how long a new process takes to print its first line, with no text embeddings cached and with them."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        task = [*COMMAND, "detect", str(PHOTOS / "cat.jpg"), "--classes", "cat", "--json", "--engine", options.engine]
        for state in ("empty text cache", "full text cache"):
            command = [*task, "--out", f"{folder}/{state}"]
            environment = os.environ | {"REGIONCLIP_CACHE": f"{folder}/cache"}
            start = time.perf_counter()
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE, env=environment
            ) as process:
                line = process.stdout.readline() if process.stdout else ""
                elapsed = time.perf_counter() - start
                _, errors = process.communicate()
            if process.returncode:
                return {"left out": " ".join(errors.split())}
            found[f"seconds, {state}"] = round(elapsed, 2)
            found["detections"] = len(json.loads(line)["detections"])
    return found


def packaged_model(options: argparse.Namespace) -> dict[str, Any]:
    """Return images a second of the model in the package on the photos of the documentation, when warm."""
    from regionclip_cli import Detector
    from regionclip_cli.errors import RegionClipError

    if options.threads and options.engine == "torch":
        import torch

        torch.set_num_threads(options.threads)
    photos = [PHOTOS / "cat.jpg", PHOTOS / "coffee.jpg"]
    try:
        detector = Detector("regionclip-tiny", engine=options.engine).set_classes(CLASSES)
    except RegionClipError as err:
        return {"left out": str(err)}
    found = [len(detector.detect(photo).labels) for photo in photos]
    times = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        for photo in photos:
            detector.detect(photo)
        times.append((time.perf_counter() - start) / len(photos))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "images a second": round(1 / min(times), 2),
        "detections": dict(zip([photo.name for photo in photos], found, strict=True)),
        "engine": detector.engine,
        "peak memory, GiB": round(memory, 2),
    }


def rn50_float32(options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds an image of RN50 in float32."""
    return measure("float32", options.proposals, *options.size, options.classes, options.repeats, options.threads)


def rn50_bfloat16(options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds an image of RN50 in bfloat16."""
    return measure("bfloat16", options.proposals, *options.size, options.classes, options.repeats, options.threads)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "help": seconds_to_help,
    "first-box": seconds_to_first_box,
    "packaged": packaged_model,
    "rn50-fp32": rn50_float32,
    "rn50-bf16": rn50_bfloat16,
}


def size(text: str) -> tuple[int, int]:
    """Read "750x1333" as (height, width)."""
    height, width = text.lower().split("x")
    return int(height), int(width)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="which of %(default)s to measure")
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed runs of each part, the fastest counts [%(default)s]"
    )
    parser.add_argument("--proposals", type=int, default=1000, help="boxes of the RN50 image [%(default)s]")
    parser.add_argument("--size", type=size, default=(750, 1333), help="HxW of the RN50 image [750x1333]")
    parser.add_argument("--classes", type=int, default=80, help="concepts for RN50 [%(default)s]")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice [%(default)s]")
    parser.add_argument(
        "--engine", default="auto", help="auto, torch or onnx, for first-box and packaged [%(default)s]"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    unknown = set(options.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    return options


def in_own_process(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a part in a new process; one that fails becomes a sentence and does not stop the others."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(PARTS[part], options).result()
        except Exception as err:  # noqa: BLE001 - a benchmark of many parts reports and goes on
            return {"failed": f"{type(err).__name__}: {err}"}


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print one block for each part."""
    for part, found in results.items():
        print(part)
        for name, value in found.items():
            if isinstance(value, dict):
                value = ", ".join(f"{key} {each}" for key, each in value.items())
            print(f"    {name:<40} {value}")


def main() -> int:
    """Measure what was asked for; return 1 when a part failed."""
    options = read_options()
    results: dict[str, dict[str, Any]] = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count() or 0}
    }
    for part in options.parts.split(","):
        if not options.json:
            print(f"measuring {part} ...", file=sys.stderr, flush=True)
        results[part] = in_own_process(part, options)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        show(results)
    return int(any("failed" in found for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())
