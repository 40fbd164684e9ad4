"""`evaluate`: score a model, or predictions from a file, on annotated sets.

Predictions are stored image by image in `<out>/evaluate/<name>/`, so that memory does not grow with the set, a run can
be interrupted and resumed, and several processes can share one.
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
    """The outcome of a run.

    Attributes:
        measured: Every evaluation in the order of the recipe, as JSON values: metrics in 0..100 (see
            `metrics.EvalResult`), what was evaluated, and the files that were written. One that waits for other
            processes has `missing` images and no metrics.
        failed: Number of images that could not be read.
        dry_run: Whether `measured` only describes what would be done.
    """

    measured: tuple[dict[str, Any], ...]
    failed: int = 0
    dry_run: bool = False

    @property
    def finished(self) -> tuple[dict[str, Any], ...]:
        """Return the evaluations that have metrics."""
        return tuple(each for each in self.measured if not self.dry_run and "missing" not in each)

    def summary(self) -> str:
        """Return one sentence for the terminal."""
        if self.dry_run:
            return "Dry run: nothing was computed."
        parts = [f"{len(self.finished)} of {pluralize(len(self.measured), 'evaluations')} done"]
        parts += ["other processes are still running"] * (len(self.finished) < len(self.measured))
        parts += [f"{pluralize(self.failed, 'images')} could not be read"] if self.failed else []
        reports = [each["report"] for each in self.finished if "report" in each]
        return "; ".join(parts) + (f". Report: {', '.join(reports)}." if reports else ".")


def run(
    recipe: Recipe,
    progress: Progress | None = None,
    *,
    resume: bool = False,
    dry_run: bool = False,
    shard_of: str | None = None,
) -> EvaluateResult:
    """Run every evaluation in the section `evaluate` of a recipe.

    An unreadable image is reported, and counts as one without detections.

    Args:
        recipe: `evaluate` lists the evaluations; `model` and the trained stages decide the model.
        progress: Receives progress and warnings.
        resume: Continue an earlier run; images that are done are skipped.
        dry_run: Check everything and time a few images, but write nothing.
        shard_of: "2/8" for the second of eight processes (default: from `torchrun`). The last one computes the metrics.

    Raises:
        MissingError: A file or model is missing. Before any work.
        UsageError: A setting or a file is wrong, or results exist and `resume` is not set. Before any work.
        OutputError: Results cannot be written.
    """
    progress = progress or Silent()
    own = choose_share(shard_of)
    jobs = make_jobs(recipe, progress)
    networks = _Networks(recipe)
    if dry_run:
        return EvaluateResult(tuple(_plan(job, own, networks, progress) for job in jobs), dry_run=True)
    folder = RunFolder(Path(recipe.out))
    # One process resumes a run that has predictions; several may start at any time.
    with folder.opened(recipe, "evaluate", resume=resume, joint=own.count > 1, share=(own.index, own.count)) as record:
        measured, failed = [], 0
        for job in jobs:
            progress.note(_opening(job))
            with resumable(progress):
                measurement, predictions = _measure(job, own, resume, networks, progress)
            if measurement.scores is not None and (broken := measurement.scores.broken):
                progress.warn(
                    f"{job.name}: {broken:,} detections are ignored because their score or box is NaN or infinite; the "
                    "model's weights are damaged, or its number type is too small (try dtype fp32)."
                )
            files = {} if measurement.scores is None else write_results(job, measurement, predictions, progress)
            measured.append({**describe(job, measurement), **{kind: str(path) for kind, path in files.items()}})
            failed += len(measurement.failed)
        record.count(measurements=len(measured), images=sum(each.get("images", 0) for each in measured), failed=failed)
    return EvaluateResult(tuple(measured), failed)


class _Networks:
    """Loads models when needed, and keeps the last one for the next evaluation."""

    def __init__(self, recipe: Recipe) -> None:
        self._device = recipe.device
        self._last: tuple[Any, Loaded] | None = None

    def load(self, job: Job) -> Loaded:
        """Return the model of a job."""
        from regionclip_cli.evaluation.loading import load

        key = (job.model, job.proposals, job.settings.dtype)
        if self._last is None or self._last[0] != key:
            self._last = None  # free one model before the next is loaded
            self._last = key, load(job, self._device)
        return self._last[1]


def _measure(
    job: Job, share: Share, resume: bool, networks: _Networks, progress: Progress
) -> tuple[EvalResult, Callable[[], Iterable[ImagePrediction]]]:
    """Run one evaluation; return its result, and a function that reads the predictions."""
    if job.settings.predictions is None:
        job.claim()
        measurement = networks.load(job).measure(job, job.folder, share, resume, progress)
        return measurement, partial(read_predictions, job.folder)
    given = LoadedPredictions(user_path(job.settings.predictions), job.task)
    _warn_about_unknown(given, progress)
    if share.index:  # one process scores a file
        return EvalResult(job.task, {}, None, missing=len(job.task.truth)), given.read
    return compute_metrics(job.task, given.read()), given.read


def _plan(job: Job, share: Share, networks: _Networks, progress: Progress) -> dict[str, Any]:
    """Return what an evaluation would do."""
    if job.settings.predictions is not None:
        _warn_about_unknown(LoadedPredictions(user_path(job.settings.predictions), job.task), progress)
    images = len(share.of(len(job.task.truth)))
    seconds = networks.load(job).time(job) if job.model is not None else None
    return describe_plan(job, images, seconds)


def _opening(job: Job) -> str:
    """Return a sentence on what is about to be evaluated."""
    truth = job.task.truth
    of = f"{pluralize(len(truth), 'images')} of {truth.name}, {pluralize(len(truth.classes), 'classes')}"
    if job.settings.predictions is not None:
        return f"{job.name}: scoring {job.settings.predictions} on {of}."
    return f"{job.name}: evaluating {job.model.stem if job.model else ''} on {of}, boxes: {job.settings.boxes}."


def _warn_about_unknown(given: LoadedPredictions, progress: Progress) -> None:
    """Warn about images and names of a predictions file that do not match the set."""
    if given.unknown_images:
        progress.warn(f"{pluralize(given.unknown_images, 'images')} of {given.path} ignored: not in the set.")
    if given.unknown_names:
        some = ", ".join(sorted(given.unknown_names)[:3])
        progress.warn(
            f"{pluralize(len(given.unknown_names), 'names')} of {given.path} ignored: not scored classes ({some})."
        )
    if given.missing:
        progress.warn(
            f"{pluralize(given.missing, 'images')} of the set missing from {given.path}: counted as without detections."
        )
