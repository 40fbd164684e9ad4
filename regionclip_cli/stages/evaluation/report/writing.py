"""What is written of a measurement: `results.json`, and `report.html` to look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from regionclip_cli.hub.model_file import whole_file
from regionclip_cli.results.evaluation_report import ClassRow, Confusion, Curve, ReportContent, write_report
from regionclip_cli.scoring import Scores
from regionclip_cli.stages.evaluation.jobs import Job
from regionclip_cli.stages.evaluation.outcome import Measurement
from regionclip_cli.stages.evaluation.predictions.lines import Line
from regionclip_cli.stages.evaluation.report.worst import WorstPhotos
from regionclip_cli.stages.evaluation.tables import describe, result_table
from regionclip_cli.stages.progress import Progress

RESULTS, REPORT = "results.json", "report.html"
MISSED = "(missed)"
WORST_CLASSES, OTHER_NAMES = 12, 16
"""Rows and columns of the table of confusions."""
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


def write_results(
    job: Job, measurement: Measurement, lines: Callable[[], Iterable[Line]], progress: Progress
) -> dict[str, Path]:
    """Write what a measurement came to into its folder.

    Args:
        job: What was measured.
        measurement: With scores.
        lines: What was kept of each image, to be read as often as is wanted.
        progress: Told of the page.

    Returns:
        The files: `results`, and `report` where one is wanted.

    Raises:
        OutputError: The disk refuses.
    """
    scores = measurement.scores
    if scores is None:
        return {}
    rows = class_rows(measurement, scores)
    files = {"results": job.folder / RESULTS}
    content = {**describe(job, measurement), "per_class": [_plain(row) for row in rows]}
    with whole_file(files["results"]) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if job.settings.report:
        files["report"] = job.folder / REPORT
        worst = WorstPhotos(measurement, lines)
        progress.note(f"Writing {files['report']}.")
        write_report(files["report"], page_content(job, measurement, scores, rows, worst.said), worst.photos())
    return files


def class_rows(measurement: Measurement, scores: Scores) -> tuple[ClassRow, ...]:
    """Return one row a class: the lowest AP50 first, those without objects last."""
    counts, names = _confusions(measurement, scores)
    own = measurement.question.columns() if measurement.named is not None else np.arange(len(scores.truth.classes))
    rows = []
    for place, score in enumerate(scores.per_class):
        row = counts[place].copy()
        right, total = int(row[own[place]]), int(row.sum())
        row[own[place]] = 0
        most = [int(name) for name in np.argsort(-row, kind="stable")[:3] if row[name]]
        rows.append(
            ClassRow(
                name=score.name,
                group=FREQUENCIES.get(score.group, score.group),
                objects=score.objects,
                ap=score.AP,
                ap50=score.AP50,
                top1=100 * right / total if measurement.named is not None and total else None,
                taken_for=tuple((names[name], int(row[name])) for name in most),
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.ap50 is None, row.ap50 or 0.0, -row.objects)))


def page_content(
    job: Job, measurement: Measurement, scores: Scores, rows: tuple[ClassRow, ...], said: str
) -> ReportContent:
    """Return what the page says."""
    described = describe(job, measurement)
    headings, results = result_table([described])
    return ReportContent(
        title=f"{described['name']}: {described['model'] or 'predictions'} on {described['dataset']}",
        facts=dict(_facts(described)),
        headings=headings[1:],
        results=[row[1:] for row in results],
        classes=rows,
        curves=tuple(_curves(scores)),
        confusion=_worst_confusions(measurement, scores, rows),
        photos_said=said,
    )


def _facts(described: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what to know of a measurement."""
    yield "set", f"{described['dataset']}, {described['images']} images with {described['objects']} objects"
    yield "classes", f"{described['classes']} that count, {described['names']} names to choose from"
    for key in ("model", "boxes", "predictions", "split", "vocabulary", "scoring"):
        if described[key] is not None:
            yield key, str(described[key])
    if described["crops"]:
        yield "baseline", "every box was cropped and encoded as a picture of its own"
    if described.get("seconds_per_image") is not None:
        yield "time", f"{described['seconds_per_image']:.3g} s an image (median), decoding not counted"
    if described["failed"]:
        yield "failed", f"{described['failed']} images could not be looked at, and count as empty"


def _curves(scores: Scores) -> Iterator[Curve]:
    """Yield precision over recall of all classes, and of base and novel ones where they are told apart."""
    recall = scores.curves.recalls
    groups: dict[str, tuple[str, ...] | None] = {"all classes": None}
    if scores.split is not None:
        groups |= {"base": scores.split.base, "novel": scores.split.novel}
    for label, names in groups.items():
        precision = scores.curve(names)
        if precision is not None:
            yield Curve(label, recall, precision)


def _confusions(measurement: Measurement, scores: Scores) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return what objects of each class were taken for, (C, names), and the names."""
    if measurement.named is not None:
        return measurement.named.confusion, measurement.question.names.labels
    return scores.confusion, (*scores.truth.classes, MISSED)


def _worst_confusions(measurement: Measurement, scores: Scores, rows: tuple[ClassRow, ...]) -> Confusion | None:
    """Return what the objects of the worst classes were taken for; the names that came up most often are columns."""
    counts, names = _confusions(measurement, scores)
    place = {name: index for index, name in enumerate(scores.truth.classes)}
    worst = [row.name for row in rows if row.objects][:WORST_CLASSES]
    chosen = counts[[place[name] for name in worst]]
    if not chosen.any():
        return None
    often = [int(name) for name in np.argsort(-chosen.sum(axis=0), kind="stable")[:OTHER_NAMES]]
    columns = [name for name in often if chosen[:, name].any()]
    return Confusion(tuple(worst), tuple(names[name] for name in columns), chosen[:, columns])


def _plain(row: ClassRow) -> dict[str, Any]:
    """Return a row as JSON has it, numbers rounded to four places."""
    values = {"AP": row.ap, "AP50": row.ap50, "top1": row.top1}
    return {
        "name": row.name,
        **({"group": row.group} if row.group else {}),
        "objects": row.objects,
        **{key: round(value, 4) for key, value in values.items() if value is not None},
        "taken_for": dict(row.taken_for),
    }
