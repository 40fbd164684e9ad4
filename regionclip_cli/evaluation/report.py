"""Results of an evaluation in its folder: `results.json`, and a report with the worst images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from regionclip_cli.data.detection_sets import DetectionImage
from regionclip_cli.data.pixels import decode
from regionclip_cli.errors import InputError, pluralize
from regionclip_cli.evaluation.jobs import Job
from regionclip_cli.evaluation.matching import IOU, assign, iou
from regionclip_cli.evaluation.metrics import EvalResult, Scores
from regionclip_cli.evaluation.predictions import ImagePrediction
from regionclip_cli.evaluation.tables import describe, result_table
from regionclip_cli.files import whole_file
from regionclip_cli.results.html.content import ClassRow, Confusion, Curve, Marked, ReportContent, WorstImage
from regionclip_cli.results.html.evaluation_page import write_report
from regionclip_cli.runs.progress import Progress

MAX_IMAGES = 12
MIN_DETECTIONS = 3
"""Least number of detections shown per image, if there are as many."""

NAMED = "Images with the largest share of misclassified objects."
FOUND = (
    "Images with the lowest average precision, all classes in one list: objects are missed, misclassified, or ranked "
    "below false positives. As many of the best detections are shown as there are objects."
)


class WorstImages:
    """The images with the worst results.

    Args:
        measurement: The result, with scores.
        predictions: Returns the predictions of all images; called once or twice.
    """

    def __init__(self, measurement: EvalResult, predictions: Callable[[], Iterable[ImagePrediction]]) -> None:
        self._task, self._predictions = measurement.task, predictions
        self._places = self._task.truth.places_by_id
        self._named = measurement.named is not None
        if self._named:
            self._chosen = self._worst_named()
        elif measurement.scores is not None:
            worst = measurement.scores.worst_images(MAX_IMAGES)
            self._chosen = {
                image.id: f"Average precision {image.score:.1f}; {pluralize(image.objects, 'objects')}."
                for image in worst
            }

    @property
    def note(self) -> str:
        """How the images were chosen."""
        return NAMED if self._named else FOUND

    def images(self) -> Iterator[WorstImage]:
        """Yield the images, the worst first; one is in memory at a time."""
        kept = {one.image: one for one in self._predictions() if one.image in self._chosen}
        for number, note in self._chosen.items():
            image: DetectionImage = self._task.truth[self._places[number]]
            prediction = kept.get(number)
            mark = self._mark_names if self._named else self._mark_detections
            truth, found = (_nothing(), _nothing()) if prediction is None else mark(image, prediction)
            yield WorstImage(image.name, note, _pixels(image), truth, found)

    def _worst_named(self) -> Mapping[int, str]:
        """Return image ids with a sentence each: most errors first, of equals those with more objects."""
        shares: dict[int, tuple[float, int, int]] = {}
        for prediction in self._predictions():
            if prediction.ranks is not None and prediction.image in self._places and (prediction.ranks > 0).any():
                wrong, count = int((prediction.ranks > 0).sum()), len(prediction.ranks)
                shares[prediction.image] = (-wrong / count, -count, wrong)
        worst = sorted(shares, key=lambda image: shares[image])[:MAX_IMAGES]
        return {image: f"{shares[image][2]} of {-shares[image][1]} objects are misclassified." for image in worst}

    def _mark_names(self, image: DetectionImage, prediction: ImagePrediction) -> tuple[Marked, Marked]:
        """Return the objects with their true and their predicted names."""
        boxes = image.boxes[~image.crowd]
        if prediction.truths is None or prediction.guesses is None or prediction.ranks is None:
            return _nothing(), _nothing()
        right = prediction.ranks == 0
        guessed = tuple(self._task.names.labels[guess] for guess in prediction.guesses)
        return Marked(boxes, self._class_names(prediction.truths), right), Marked(boxes, guessed, right)

    def _mark_detections(self, image: DetectionImage, prediction: ImagePrediction) -> tuple[Marked, Marked]:
        """Return the objects, and as many of the best detections."""
        classes = self._task.classes[prediction.labels]
        order = np.flatnonzero(classes >= 0)
        order = order[np.argsort(-prediction.scores[order], kind="stable")][
            : max(MIN_DETECTIONS, int((~image.crowd).sum()))
        ]
        best = prediction.select(order, classes)
        objects = _match(best, image)
        found = np.isin(np.arange(len(image)), objects) | image.crowd
        labels = tuple(
            f"{name} {score:.2f}" for name, score in zip(self._class_names(best.labels), best.scores, strict=True)
        )
        return Marked(image.boxes, self._class_names(image.labels), found), Marked(best.boxes, labels, objects >= 0)

    def _class_names(self, labels: np.ndarray) -> tuple[str, ...]:
        return tuple(self._task.truth.classes[label] for label in labels)


def _match(found: ImagePrediction, image: DetectionImage) -> np.ndarray:
    """Return (N,) int64: the object of its class that each detection matches; -1 for none."""
    overlaps = iou(found.boxes, image.boxes)
    same = found.labels[:, None] == image.labels[None]
    objects = np.full(len(found.scores), -1, np.int64)
    for detection, best in assign(np.where(same & (overlaps >= IOU), overlaps, -1.0)):
        objects[detection] = best
    return objects


def _nothing() -> Marked:
    return Marked(np.zeros((0, 4), np.float32), (), np.zeros(0, bool))


def _pixels(image: DetectionImage) -> np.ndarray | None:
    try:
        return decode(image.read(), image.name)
    except InputError:
        return None


RESULTS, REPORT = "results.json", "report.html"
MISSED = "(missed)"
WORST_CLASSES, OTHER_NAMES = 12, 16
"""Rows and columns of the confusion table."""
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


def write_results(
    job: Job, measurement: EvalResult, predictions: Callable[[], Iterable[ImagePrediction]], progress: Progress
) -> dict[str, Path]:
    """Write the results of an evaluation into its folder.

    Args:
        job: What was evaluated.
        measurement: The result, with scores.
        predictions: Returns the predictions of all images.
        progress: Receives a note about the report.

    Returns:
        The files: `results`, and `report` if it is enabled.

    Raises:
        OutputError: The disk refuses.
    """
    scores = measurement.scores
    if scores is None:
        return {}
    rows = class_rows(measurement, scores)
    files = {"results": job.folder / RESULTS}
    content = {
        **describe(job, measurement),
        "per_class": [row.model_dump(mode="json", exclude_defaults=True) for row in rows],
    }
    with whole_file(files["results"]) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if job.settings.report:
        files["report"] = job.folder / REPORT
        worst = WorstImages(measurement, predictions)
        progress.note(f"Writing {files['report']}.")
        write_report(files["report"], page_content(job, measurement, scores, rows, worst.note), worst.images())
    return files


def class_rows(measurement: EvalResult, scores: Scores) -> tuple[ClassRow, ...]:
    """Return one row per class: the lowest AP50 first, those without objects last."""
    counts, names = _confusions(measurement, scores)
    own = measurement.task.columns() if measurement.named is not None else np.arange(len(scores.truth.classes))
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
                AP=score.AP,
                AP50=score.AP50,
                top1=100 * right / total if measurement.named is not None and total else None,
                taken_for={names[name]: int(row[name]) for name in most},
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.AP50 is None, row.AP50 or 0.0, -row.objects)))


def page_content(
    job: Job, measurement: EvalResult, scores: Scores, rows: tuple[ClassRow, ...], note: str
) -> ReportContent:
    """Return the content of the report."""
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
        images_note=note,
    )


def _facts(described: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the facts at the top of the report."""
    yield "set", f"{described['dataset']}, {described['images']} images with {described['objects']} objects"
    yield "classes", f"{described['classes']} scored, {described['names']} names compete"
    for key in ("model", "boxes", "predictions", "split", "vocabulary", "scoring"):
        if described[key] is not None:
            yield key, str(described[key])
    if described["crops"]:
        yield "baseline", "each box is cropped and encoded as an image of its own"
    if described.get("seconds_per_image") is not None:
        yield "time", f"{described['seconds_per_image']:.3g} s per image (median), decoding excluded"
    if described["failed"]:
        yield "failed", f"{described['failed']} images could not be read and count as empty"


def _curves(scores: Scores) -> Iterator[Curve]:
    """Yield precision over recall of all classes, and of base and novel ones with a split."""
    recall = scores.curves.recalls
    groups: dict[str, tuple[str, ...] | None] = {"all classes": None}
    if scores.split is not None:
        groups |= {"base": scores.split.base, "novel": scores.split.novel}
    for label, names in groups.items():
        precision = scores.curve(names)
        if precision is not None:
            yield Curve(label, recall, precision)


def _confusions(measurement: EvalResult, scores: Scores) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the confusion counts (C, names), and the names."""
    if measurement.named is not None:
        return measurement.named.confusion, measurement.task.names.labels
    return scores.confusion, (*scores.truth.classes, MISSED)


def _worst_confusions(measurement: EvalResult, scores: Scores, rows: tuple[ClassRow, ...]) -> Confusion | None:
    """Return the confusions of the worst classes; the most frequent names are the columns."""
    counts, names = _confusions(measurement, scores)
    place = {name: index for index, name in enumerate(scores.truth.classes)}
    worst = [row.name for row in rows if row.objects][:WORST_CLASSES]
    chosen = counts[[place[name] for name in worst]]
    if not chosen.any():
        return None
    often = [int(name) for name in np.argsort(-chosen.sum(axis=0), kind="stable")[:OTHER_NAMES]]
    columns = [name for name in often if chosen[:, name].any()]
    return Confusion(tuple(worst), tuple(names[name] for name in columns), chosen[:, columns])
