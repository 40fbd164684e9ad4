"""`evaluate`: measure a model, or predictions from a file, on sets whose objects are known.

What a model says about an image is written down before the next one is looked at, in `<out>/evaluate/<name>/`, so that
memory does not grow with the set, a run can be cut off and taken up again, and several processes can share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionclip_cli.errors import pluralize
from regionclip_cli.evaluation.jobs import Job, make_jobs
from regionclip_cli.evaluation.load_predictions import LoadedPredictions
from regionclip_cli.evaluation.metrics import EvalResult, compute_metrics
from regionclip_cli.evaluation.predictions import ImagePrediction, read_predictions
from regionclip_cli.evaluation.report import write_results
from regionclip_cli.evaluation.tables import describe, describe_plan
from regionclip_cli.files import user_path
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.runs.progress import Progress, Silent, resumable
from regionclip_cli.runs.sharding import Share, choose_share

if TYPE_CHECKING:
    from regionclip_cli.evaluation.loading import Loaded


@dataclass(frozen=True)
class EvaluateResult:
    """What a run came to.

    Attributes:
        measured: Every measurement in the order of the recipe, as plain values that JSON can carry: numbers in 0..100
            (see `metrics.EvalResult`), what was measured, and the files that were written. One that waits for other
            processes has `missing` images and no numbers.
        failed: How many images could not be looked at.
        dry_run: Whether `measured` only says what would be done.
    """

    measured: tuple[dict[str, Any], ...]
    failed: int = 0
    dry_run: bool = False

    @property
    def finished(self) -> tuple[dict[str, Any], ...]:
        """Return the measurements that have numbers."""
        return tuple(each for each in self.measured if not self.dry_run and "missing" not in each)

    def summary(self) -> str:
        """Return one sentence for a person."""
        if self.dry_run:
            return "Nothing was computed."
        parts = [f"{len(self.finished)} of {len(self.measured)} measurements are done"]
        parts += ["other processes have not finished their shares"] * (len(self.finished) < len(self.measured))
        parts += [f"{self.failed} images could not be looked at"] if self.failed else []
        reports = [each["report"] for each in self.finished if "report" in each]
        return "; ".join(parts) + (f". Look at {', '.join(reports)}." if reports else ".")


def run(
    recipe: Recipe,
    progress: Progress | None = None,
    *,
    resume: bool = False,
    dry_run: bool = False,
    shard_of: str | None = None,
) -> EvaluateResult:
    """Measure everything that the section `evaluate` of a recipe lists.

    An image that cannot be read is told of and counts as one where nothing was found.

    Args:
        recipe: Its `evaluate` says what; `model` and what its other stages have trained say which model.
        progress: Told what is going on.
        resume: Go on with an earlier run; what is done is not looked at again.
        dry_run: Check everything and time a few images, and write nothing.
        shard_of: "2/8" for the second of eight processes; left out, as `torchrun` says. The last scores.

    Raises:
        MissingError: A file or model is not here. Before any work.
        UsageError: A setting or a file is wrong, or there are results and `resume` was not asked for. Before any work.
        OutputError: Results cannot be written.
    """
    progress = progress or Silent()
    own = choose_share(shard_of)
    jobs = make_jobs(recipe, progress)
    networks = _Networks(recipe)
    if dry_run:
        return EvaluateResult(tuple(_plan(job, own, networks, progress) for job in jobs), dry_run=True)
    folder = RunFolder(Path(recipe.out))
    # With one process, taking up a run means that predictions are there; several may begin at any time.
    with folder.opened(recipe, "evaluate", resume=resume, joint=own.count > 1, share=(own.index, own.count)) as record:
        measured, failed = [], 0
        for job in jobs:
            progress.note(_opening(job))
            with resumable(progress):
                measurement, predictions = _measure(job, own, resume, networks, progress)
            if measurement.scores is not None and (broken := measurement.scores.broken):
                progress.warn(
                    f"{job.name}: {broken:,} detections count for nothing, since their score or box is not a number; "
                    "the weights of the model are damaged, or a number grew too large for its type."
                )
            files = {} if measurement.scores is None else write_results(job, measurement, predictions, progress)
            measured.append({**describe(job, measurement), **{kind: str(path) for kind, path in files.items()}})
            failed += len(measurement.failed)
        record.count(measurements=len(measured), images=sum(each.get("images", 0) for each in measured), failed=failed)
    return EvaluateResult(tuple(measured), failed)


class _Networks:
    """Loads models when they are needed, and keeps the last one for the next measurement."""

    def __init__(self, recipe: Recipe) -> None:
        self._device = recipe.device
        self._last: tuple[Any, Loaded] | None = None

    def load(self, job: Job) -> Loaded:
        """Return the model of a job."""
        from regionclip_cli.evaluation.loading import load

        key = (job.model, job.proposals, job.settings.dtype)
        if self._last is None or self._last[0] != key:
            self._last = None  # let go of one model before the next one is loaded
            self._last = key, load(job, self._device)
        return self._last[1]


def _measure(
    job: Job, share: Share, resume: bool, networks: _Networks, progress: Progress
) -> tuple[EvalResult, Callable[[], Iterable[ImagePrediction]]]:
    """Carry out one measurement; return it and what was kept of every image, to be read as often as is wanted."""
    if job.settings.predictions is None:
        job.claim()
        measurement = networks.load(job).measure(job, job.folder, share, resume, progress)
        return measurement, partial(read_predictions, job.folder)
    given = LoadedPredictions(user_path(job.settings.predictions), job.task)
    _tell_strange(given, progress)
    if share.index:  # one process is enough to score a file
        return EvalResult(job.task, {}, None, missing=len(job.task.truth)), given.read
    return compute_metrics(job.task, given.read()), given.read


def _plan(job: Job, share: Share, networks: _Networks, progress: Progress) -> dict[str, Any]:
    """Return what a measurement would do."""
    if job.settings.predictions is not None:
        _tell_strange(LoadedPredictions(user_path(job.settings.predictions), job.task), progress)
    images = len(share.of(len(job.task.truth)))
    seconds = networks.load(job).time(job) if job.model is not None else None
    return describe_plan(job, images, seconds)


def _opening(job: Job) -> str:
    """Return a sentence on what is about to be measured."""
    truth = job.task.truth
    of = f"{pluralize(len(truth), 'images')} of {truth.name}, {pluralize(len(truth.classes), 'classes')}"
    if job.settings.predictions is not None:
        return f"{job.name}: scoring {job.settings.predictions} on {of}."
    return f"{job.name}: measuring {job.model.stem if job.model else ''} on {of}, boxes: {job.settings.boxes}."


def _tell_strange(given: LoadedPredictions, progress: Progress) -> None:
    """Tell what of a file of predictions does not fit the set."""
    if given.strange_images:
        progress.warn(f"{given.strange_images} images in {given.path} are not in the set and were left out.")
    if given.strange_names:
        some = ", ".join(sorted(given.strange_names)[:3])
        progress.warn(f"{len(given.strange_names)} names in {given.path} are none of those that are scored ({some}).")
    if given.missing:
        progress.warn(f"{given.missing} images of the set are not in {given.path}; nothing was found there, it counts.")
