"""Kill runs with SIGKILL at random moments, resume them, and compare what they leave with undisturbed runs.

uv run python benchmarks/torture.py --kills 1000            # all scenarios in turn
uv run python benchmarks/torture.py --kills 20 --only detect --seed 7

Every run is a fork of this process, which has imported the libraries already, so that a kill costs seconds. A run is
started, killed after a random time, resumed, killed again, until one attempt outlives its time; then its results must
equal those of the undisturbed run byte for byte, but for measured times. Temporary files that stay behind are counted.
Exit code 1 when a result differs or a run fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

RECIPE = """\
regionclip: 1
name: torture
out: OUT
device: cpu
model: {start: MODEL}
data:
  captions: {dataset: scenes, options: {count: 24, size: 96, seed: 0}}
  train: {dataset: scenes, options: {count: 24, size: 96, seed: 1}}
  val: {dataset: scenes, options: {count: 6, size: 96, seed: 2}}
concepts: {min_count: 1, templates: plain}
pseudolabel: {regions: 8, min_score: 0.0, short_side: 64, max_side: 128, shard_size: 4}
pretrain: {teacher_mode: labels, steps: 12, batch_size: 2, regions: 4, short_side: 64, max_side: 128, warmup_steps: 0,
           milestones: [], workers: 0, checkpoint_every: 3, log_every: 3}
finetune: {steps: 12, batch_size: 2, regions: 8, max_proposals: 20, short_sides: [64], max_side: 128, warmup_steps: 0,
           milestones: [], workers: 0, checkpoint_every: 3, log_every: 3, evaluate_every: 6}
evaluate: [{dataset: scenes, options: {count: 24, size: 96, seed: 2}, boxes: ground-truth}]
"""
VOLATILE = ("seconds", "seconds_per_image", "images_per_second")
"""Keys of JSON results that differ between two undisturbed runs."""


@dataclass(frozen=True)
class Scenario:
    """A command to kill.

    Attributes:
        name: Its name.
        argv: Its words, without `--resume`; OUT stands for the run folder.
        results: Globs of the files below the run folder to compare.
        after: Scenarios whose results it reads; they are in the run folder before it starts.
    """

    name: str
    argv: tuple[str, ...]
    results: tuple[str, ...]
    after: tuple[str, ...] = ()


def _stage(name: str, *results: str, after: tuple[str, ...] = ()) -> Scenario:
    return Scenario(name, (name, "recipe.yaml", "out=OUT"), results, after)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        _stage("concepts", "nouns.csv", "concepts.safetensors"),
        _stage("pseudolabel", "labels/*", after=("concepts",)),
        _stage("pretrain", "pretrain/model.safetensors", after=("concepts", "pseudolabel")),
        _stage("finetune", "finetune/model.safetensors"),
        _stage("evaluate", "evaluate/**/*.json*"),
        Scenario(
            "detect",
            tuple(
                "detect images --classes circle,square --model toy.safetensors --conf 0 --max-dets 5 --device cpu "
                "--out OUT --format coco,csv,yolo".split()
            ),
            ("detections.jsonl", "*.json", "*.csv", "labels/**/*"),
        ),
    )
}


@dataclass
class Tally:
    """What happened in one scenario.

    Attributes:
        kills: Runs that were killed.
        compared: Finished runs whose results were compared.
        left: Temporary files that were still there when a run had finished.
        faults: One sentence per run that failed or differed.
    """

    kills: int = 0
    compared: int = 0
    left: int = 0
    faults: list[str] = field(default_factory=list)


def prepare(folder: Path) -> None:
    """Write the toy model, the recipe and the images, and go to their folder."""
    os.chdir(folder)
    tests = str(Path(__file__).resolve().parents[1] / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    from PIL import Image
    from toys import draw_shapes, write_toy_model

    # Written in a child, so that this process starts no threads before it forks.
    if _wait(_fork(lambda: write_toy_model(Path("toy.safetensors"), conf=0.0) and 0, Path("toy.log"))) != 0:
        raise SystemExit("the toy model cannot be written")
    Path("images").mkdir()
    for number in range(24):
        image, _, _ = draw_shapes(number, width=96 + 8 * (number % 3))
        Image.fromarray(image).save(f"images/{number:02}.png")
    Path("recipe.yaml").write_text(RECIPE.replace("MODEL", "toy.safetensors").replace("OUT", "run"), encoding="utf-8")


def run(scenario: Scenario, out: Path, resume: bool = False, limit: float | None = None) -> int:
    """Run a scenario in a fork and return its exit code; -9 when it was killed after `limit` seconds."""

    def work() -> int:
        from regionclip_cli import app

        argv = [word.replace("OUT", str(out)) for word in scenario.argv]
        return app.main(["-q", *argv, *(["--resume"] if resume else [])])

    return _wait(_fork(work, Path(f"{out}.log")), limit)


def digest(scenario: Scenario, out: Path) -> dict[str, str]:
    """Return a hash of every result file."""
    files = {path for pattern in scenario.results for path in out.glob(pattern) if path.is_file()}
    return {str(path.relative_to(out)): _hash(path) for path in sorted(files)}


def leftovers(out: Path) -> list[str]:
    """Return the temporary files in a run folder."""
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if ".part" in path.name)


def torture(scenario: Scenario, before: Path, kills: int, rng: random.Random, tally: Tally) -> None:
    """Kill a scenario so many times and compare each run that finishes.

    Args:
        scenario: What to run.
        before: Run folder as it is before the scenario.
        kills: How many runs to kill.
        rng: Draws the moments.
        tally: Gets what happened.
    """
    whole = Path(f"{scenario.name}-whole")
    seconds = math.inf
    for folder in (Path(f"{scenario.name}-first"), whole):  # the second finds its texts in the cache, as the others do
        shutil.copytree(before, folder)
        begun = time.monotonic()
        if run(scenario, folder) != 0:
            raise SystemExit(f"{scenario.name} fails undisturbed:\n{Path(f'{folder}.log').read_text()}")
        seconds = min(seconds, time.monotonic() - begun)
    expected = digest(scenario, whole)
    if not expected:
        raise SystemExit(f"{scenario.name} leaves no results in {[str(path) for path in whole.rglob('*')]}")
    while tally.kills < kills and len(tally.faults) < 20:
        out = Path(f"{scenario.name}-{tally.compared}")
        shutil.copytree(before, out)
        code, started = -signal.SIGKILL, False
        while code == -signal.SIGKILL:
            last = tally.kills >= kills
            code = run(scenario, out, resume=started, limit=None if last else rng.uniform(0.05, 1.0) * seconds)
            tally.kills += code == -signal.SIGKILL
            started = True
        tally.compared += 1
        fault = ""
        if code != 0:
            fault = f"exit code {code}: {Path(f'{out}.log').read_text()[-500:].strip()}"
        elif (found := digest(scenario, out)) != expected:
            names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            fault = f"differs in {', '.join(names)}"
        tally.left += len(leftovers(out))
        if fault:
            tally.faults.append(f"{scenario.name} (run {tally.compared}): {fault}")
        else:
            shutil.rmtree(out)


def torture_all(names: list[str], kills: int, seed: int, folder: Path) -> dict[str, Tally]:
    """Torture several scenarios with an equal share of the kills each."""
    import torch

    torch.set_num_threads(1)
    _import_libraries()
    prepare(folder)
    tallies: dict[str, Tally] = {}
    for place, name in enumerate(names):
        scenario = SCENARIOS[name]
        before = Path(f"{name}-before")
        before.mkdir()
        for needed in scenario.after:
            if run(SCENARIOS[needed], before) != 0:
                raise SystemExit(f"{needed} fails:\n{Path(f'{before}.log').read_text()}")
        share = kills // len(names) + (place < kills % len(names))
        tallies[name] = Tally()
        torture(scenario, before, share, random.Random(f"{seed}-{name}"), tallies[name])
        print(f"{name}: {_line(tallies[name])}", flush=True)
    return tallies


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="may be given several times")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["REGIONCLIP_CACHE"] = str(Path(folder) / "cache")
        tallies = torture_all(arguments.only or list(SCENARIOS), arguments.kills, arguments.seed, Path(folder))
        os.chdir(home)
    total = Tally()
    for tally in tallies.values():
        total.kills += tally.kills
        total.compared += tally.compared
        total.left += tally.left
        total.faults += tally.faults
    print(f"all: {_line(total)}", *total.faults, sep="\n")
    return 1 if total.faults else 0


def _line(tally: Tally) -> str:
    compared = f"{tally.kills} kills, {tally.compared} results compared"
    return f"{compared}, {len(tally.faults)} faults, {tally.left} temporary files left"


def _import_libraries() -> None:
    """Import what the stages import, once for all forks."""
    from regionclip_cli import stages
    from regionclip_cli.inference import detector  # noqa: F401

    for module in ("concepts", "pseudolabel", "pretrain", "finetune", "evaluate", "detect"):
        __import__(f"{stages.__name__}.{module}")


def _fork(work: Callable[[], int], log: Path) -> int:
    """Call `work()` in a fork and return the id of its process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads; none of ours hold locks
        child = os.fork()
    if child:
        return child
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(child: int, limit: float | None = None) -> int:
    """Wait for a process, kill it after `limit` seconds, and return its exit code, negative for a signal."""
    end = None if limit is None else time.monotonic() + limit
    while True:
        ended, status = os.waitpid(child, 0 if end is None else os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            end = None
        time.sleep(0.002)


def _hash(path: Path) -> str:
    """Return a hash of a file's bytes, or of a JSON result without what differs from run to run."""
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        documents = data.splitlines() if path.suffix == ".jsonl" else [data]
        data = json.dumps([list(_stable(json.loads(document))) for document in documents]).encode()
    return hashlib.sha256(data).hexdigest()


def _stable(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield the leaves of a JSON value, without the volatile ones."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in VOLATILE:
                yield from _stable(item, f"{key}.{name}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _stable(item, f"{key}.{number}")
    else:
        yield key, value


if __name__ == "__main__":
    sys.exit(main())
