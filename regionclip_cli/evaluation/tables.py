"""Evaluation results as JSON and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regionclip_cli.evaluation.jobs import Job
from regionclip_cli.evaluation.metrics import GROUPS, EvalResult

NUMBERS: Mapping[str, str] = {
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "APr": "APr",
    "APc": "APc",
    "APf": "APf",
    "APs": "APs",
    "APm": "APm",
    "APl": "APl",
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_accuracy": "class mean",
    "AR@100": "AR@100",
    "AR@300": "AR@300",
    "AR@1000": "AR@1000",
}
"""Columns of tables, by the key of a summary."""


def describe(job: Job, measurement: EvalResult) -> dict[str, Any]:
    """Return a result as plain values: metrics in 0..100, rounded to four places, and what was evaluated."""
    waiting = {"missing": measurement.missing} if measurement.missing else {}
    return {**_rounded(measurement.summary), **_about(job), **waiting}


def describe_plan(job: Job, images: int, seconds_per_image: float | None) -> dict[str, Any]:
    """Return what an evaluation would do.

    Args:
        job: The evaluation.
        images: Number of images it would process.
        seconds_per_image: Measured on a few of them; None without a model.
    """
    plan = {"dry_run": True, **_about(job), "images": images, "folder": str(job.folder)}
    if seconds_per_image is not None:
        plan |= {"seconds_per_image": _rounded(seconds_per_image), "seconds": _rounded(seconds_per_image * images)}
    return plan


def result_table(measured: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Return headings and rows: one row per evaluation, or base, novel and all below each other with a split."""
    rows: list[tuple[str, str, Mapping[str, Any]]] = []
    for each in measured:
        # Metrics of the whole set, such as recall of proposals, are shown in the row of all classes.
        for key in (key for key in GROUPS if key in each or key == "all"):
            rows.append((each["name"], key, {**each, **each.get(key, {})} if key == "all" else each[key]))
    keys = [key for key in NUMBERS if any(_is_number(row[2].get(key)) for row in rows)]
    table = [
        [name, group, numbers.get("classes"), *(_shown(numbers.get(key)) for key in keys)]
        for name, group, numbers in rows
    ]
    return ["evaluation", "group", "classes", *(NUMBERS[key] for key in keys)], table


def plan_table(planned: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Return headings and rows for a dry run."""
    rows = []
    for each in planned:
        seconds = each.get("seconds")
        time = "" if seconds is None else _time(float(seconds))
        rows.append([each["name"], each["model"] or "", each["images"], each["classes"], time, each["folder"]])
    return ["evaluation", "model", "images", "classes", "estimated time", "output"], rows


def _about(job: Job) -> dict[str, Any]:
    settings = job.settings
    return {
        "name": job.name,
        "model": None if job.model is None else job.model.stem,
        "dataset": job.truth.name,
        "boxes": settings.boxes if settings.predictions is None else None,
        "predictions": settings.predictions,
        "split": settings.split,
        "vocabulary": settings.vocabulary,
        "names": len(job.task.names),
        "classes": len(job.task.truth.classes),
        "scoring": settings.scoring,
        "crops": settings.crops,
    }


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _shown(value: Any) -> str:
    return f"{value:.1f}" if _is_number(value) else ""


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(below) for key, below in value.items()}
    return round(value, 4) if isinstance(value, float) else value
