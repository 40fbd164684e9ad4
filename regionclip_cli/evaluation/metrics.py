"""Metrics of an evaluation: AP and AR, region accuracy, recall of proposals and latency, in all and by class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.data.splits import Split
from regionclip_cli.errors import UsageError
from regionclip_cli.evaluation.coco_eval import (
    COCO_DETECTIONS,
    LVIS_DETECTIONS,
    NO_BOX,
    NO_SCORE,
    Curves,
    Detections,
    measure_curves,
)
from regionclip_cli.evaluation.matching import match_image
from regionclip_cli.evaluation.predictions import ImagePrediction
from regionclip_cli.evaluation.task import Task

FREQUENCIES = "rcf"


@dataclass(frozen=True)
class ClassScore:
    """One class; numbers in 0..100, None for a class without objects.

    Attributes:
        name: The class.
        group: base or novel, or r, c or f, or empty.
        objects: How many it has, crowds left out.
        images: On how many images.
        detections: How many were found, rightly or not.
        AP: Mean over overlaps of 0.5 to 0.95.
        AP50: At overlap 0.5.
        AP75: At overlap 0.75.
        AR: Share of objects that is found, mean over overlaps.
    """

    name: str
    group: str
    objects: int
    images: int
    detections: int
    AP: float | None
    AP50: float | None
    AP75: float | None
    AR: float | None


@dataclass(frozen=True)
class ImageScore:
    """One image of the set.

    Attributes:
        id: Id in the set.
        name: Its file name.
        objects: How many it shows, crowds left out.
        found: How many of them were detected under their own class.
        score: See `matching.ImageMatch`, in 0..100.
    """

    id: int
    name: str
    objects: int
    found: int
    score: float


@dataclass(frozen=True, eq=False)
class Scores:
    """The metrics of an evaluation.

    Attributes:
        truth: The set.
        split: Base and novel classes, if they are reported separately.
        curves: Precision and recall of each class.
        confusion: (C, C + 1) int64: objects of each class by the class of their best detection; last column: none.
        image_scores: (M,) float64 in 0..1 by index in the set; NaN for images without objects.
        image_found: (M,) int64, objects detected under their own class.
        detections: (C,) int64, detections of each class.
        left_out: How many detections were left out, by reason.
    """

    truth: DetectionSet
    split: Split | None
    curves: Curves
    confusion: np.ndarray
    image_scores: np.ndarray
    image_found: np.ndarray
    detections: np.ndarray
    left_out: Mapping[str, int]

    @property
    def broken(self) -> int:
        """How many detections were left out because a score or a box of theirs is not a number."""
        return sum(self.left_out.get(reason, 0) for reason in (NO_SCORE, NO_BOX))

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the set in 0..100; None where no class has an object.

        `AP` (mean over overlaps 0.5 to 0.95), `AP50`, `AP75`, `APs`, `APm`, `APl` (objects below 32x32 pixels, up to
        96x96, above), `AR` (share of objects found by as many detections as count), `AR1`, `AR10` (COCO), `ARs`,
        `ARm`, `ARl`. With a split the same below `base`, `novel` and `all`, and below `groups` for its further groups;
        for LVIS `APr`, `APc` and `APf`.
        """
        told: dict[str, Any] = self.of_classes(None)
        for column, limit in enumerate(self.curves.limits[:-1]):
            told[f"AR{limit}"] = _mean(self.curves.recall[:, :, 0, column])
        if self.truth.frequencies is not None:
            for letter in FREQUENCIES:
                rows = [place for place, own in enumerate(self.truth.frequencies) if own == letter]
                told[f"AP{letter}"] = _mean(self.curves.precision[:, :, rows, 0])
        if self.split is not None:
            told["base"] = self.of_classes(self.split.base)
            told["novel"] = self.of_classes(self.split.novel)
            told["all"] = self.of_classes((*self.split.base, *self.split.novel))
            if self.split.groups and self.truth.frequencies is None:
                told["groups"] = {name: self.of_classes(members) for name, members in self.split.groups.items()}
        return told

    def of_classes(self, names: Iterable[str] | None) -> dict[str, float | None]:
        """Return AP, AR and their kind, 0..100, as the mean over some classes (None: all) that have objects."""
        rows = slice(None) if names is None else self._places(names)
        precision, recall = self.curves.precision[:, :, rows], self.curves.recall[:, rows]
        told = {
            "AP": _mean(precision[..., 0]),
            "AP50": _mean(precision[self._at(0.5), ..., 0]),
            "AP75": _mean(precision[self._at(0.75), ..., 0]),
        }
        told |= {f"AP{name[0]}": _mean(precision[..., area]) for area, name in enumerate(self.curves.areas) if area}
        told["AR"] = _mean(recall[..., 0, -1])
        return told | {
            f"AR{name[0]}": _mean(recall[..., area, -1]) for area, name in enumerate(self.curves.areas) if area
        }

    @property
    def per_class(self) -> tuple[ClassScore, ...]:
        """Each class in label order."""
        images, objects = self.truth.image_counts(), self.confusion.sum(axis=1)
        precision, recall = self.curves.precision[..., 0], self.curves.recall[:, :, 0, -1]
        return tuple(
            ClassScore(
                name=name,
                group=self._group(place),
                objects=int(objects[place]),
                images=int(images[place]),
                detections=int(self.detections[place]),
                AP=_mean(precision[:, :, place]),
                AP50=_mean(precision[self._at(0.5), :, place]),
                AP75=_mean(precision[self._at(0.75), :, place]),
                AR=_mean(recall[:, place]),
            )
            for place, name in enumerate(self.truth.classes)
        )

    def curve(self, names: Iterable[str] | None = None, overlap: float = 0.5) -> np.ndarray | None:
        """Return precision (101,) in 0..1 at recall 0, 0.01 ... 1, the mean over classes; None without objects.

        Args:
            names: Classes; None for all.
            overlap: From which on an object is found: 0.5, 0.55 ... 0.95.
        """
        rows = slice(None) if names is None else self._places(names)
        precision = self.curves.precision[self._at(overlap), :, :, 0][:, rows]
        having = precision[0] > -1
        return precision[:, having].mean(axis=1) if having.any() else None

    def worst_images(self, count: int = 20) -> list[ImageScore]:
        """Return the images with the lowest score, the lowest first; of equals the one with most objects."""
        c = self.truth.columns
        owners = c.objects.owners()[~c.crowd[c.objects.values]]
        objects = np.bincount(owners, minlength=len(self.truth))
        places = np.flatnonzero(objects)
        worst = places[np.lexsort((places, -objects[places], self.image_scores[places]))][:count]
        return [
            ImageScore(
                int(c.ids[place]),
                c.names[place],
                int(objects[place]),
                int(self.image_found[place]),
                100 * float(self.image_scores[place]),
            )
            for place in worst
        ]

    def _group(self, place: int) -> str:
        name = self.truth.classes[place]
        if self.split is not None and self.truth.frequencies is None:
            return "base" if name in self.split.base else "novel" if name in self.split.novel else ""
        return "" if self.truth.frequencies is None else self.truth.frequencies[place]

    def _places(self, names: Iterable[str]) -> list[int]:
        wanted = set(names)
        return [place for place, name in enumerate(self.truth.classes) if name in wanted]

    def _at(self, overlap: float) -> int:
        return int(np.abs(self.curves.overlaps - overlap).argmin())


def _mean(values: np.ndarray | Sequence[float]) -> float | None:
    """Return the mean of the known values in 0..100; -1 means unknown."""
    known = np.asarray(values)
    known = known[known > -1]
    return 100 * float(known.mean()) if known.size else None


def score_detections(
    truth: DetectionSet, found: Iterable[ImagePrediction], *, split: Split | None = None, max_dets: int | None = None
) -> Scores:
    """Score the detections of a set by the protocol of its style.

    All images of the set count, with or without detections, and all its classes; a class without objects has no score
    and enters no mean. Detections whose score or box is NaN or infinite are left out and counted in `Scores.left_out`.
    Scores may be of any range.

    Args:
        truth: The set.
        found: The detections of each image, read once; their labels are classes of the set.
        split: Classes to report separately; those that the set lacks are ignored.
        max_dets: Detections that count: with COCO of an image and class (100), with LVIS of an image (300).

    Raises:
        UsageError: The set has no image, an image or label is not of the set, an image comes twice, or arrays do not
            fit together.
    """
    if not len(truth):
        raise UsageError(f"{truth.name} has no image to score.")
    if max_dets is not None and max_dets < 1:
        raise UsageError(f"At least one detection must count, not {max_dets}.")
    lvis, count = truth.style == "lvis", len(truth.classes)
    limit = max_dets or (LVIS_DETECTIONS if lvis else COCO_DETECTIONS)
    limits = (limit,) if lvis else (*(fewer for fewer in (1, 10) if fewer < limit), limit)
    detections = Detections(truth, limit if lvis else None)
    # An object of an image without detections is missed.
    c = truth.columns
    objects = c.objects.values[~c.crowd[c.objects.values]]
    confusion = np.zeros((count, count + 1), np.int64)
    confusion[:, -1] = np.bincount(c.labels[objects], minlength=count)
    image_found = np.zeros(len(truth), np.int64)
    image_scores = np.full(len(truth), np.nan)
    image_scores[c.objects.owners()[~c.crowd[c.objects.values]]] = 0.0
    detected = np.zeros(count, np.int64)
    for prediction in found:
        place, kept = detections.add(prediction)
        matched = match_image(truth[place], kept, lvis)
        called = matched.called >= 0
        np.add.at(confusion, (matched.labels[called], matched.called[called]), 1)
        confusion[:, -1] -= np.bincount(matched.labels[called], minlength=count)
        image_found[place], image_scores[place] = matched.found, matched.score
        detected += np.bincount(kept.labels, minlength=count)
    return Scores(
        truth=truth,
        split=split,
        curves=measure_curves(truth, detections, limits),
        confusion=confusion,
        image_scores=image_scores,
        image_found=image_found,
        detections=detected,
        left_out={reason: number for reason, number in detections.left_out.items() if number},
    )


FEW = 5
LIMITS = (100, 300, 1000)
"""Numbers of proposals per image at which recall is reported."""


@dataclass(eq=False)
class RegionAccuracy:
    """Top-1, top-5 and mean class accuracy on ground-truth boxes.

    Args:
        classes: Number of classes C of the set.
        names: Number of names V that compete.
    """

    classes: int
    names: int
    confusion: np.ndarray = field(init=False)
    in_first: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((self.classes, self.names), np.int64)
        self.in_first = np.zeros((self.classes, FEW), np.int64)

    def add(self, prediction: ImagePrediction) -> None:
        """Count one image."""
        if prediction.truths is not None and prediction.guesses is not None and prediction.ranks is not None:
            np.add.at(self.confusion, (prediction.truths, prediction.guesses), 1)
            near = prediction.ranks < FEW
            np.add.at(self.in_first, (prediction.truths[near], prediction.ranks[near]), 1)

    @property
    def objects(self) -> np.ndarray:
        """How many objects of each class there were, (C,)."""
        return self.confusion.sum(axis=1)

    def summary(self, among: Sequence[int] | None = None) -> dict[str, float | None]:
        """Return top1, top5 and mean_class_accuracy in 0..100, over all classes or those given; None for no object."""
        chosen = slice(None) if among is None else list(among)
        objects, first = self.objects[chosen], self.in_first[chosen]
        seen = objects > 0
        total = int(objects.sum())
        if not total:
            return {"top1": None, "top5": None, "mean_class_accuracy": None}
        return {
            "top1": 100 * int(first[:, 0].sum()) / total,
            "top5": 100 * int(first.sum()) / total,
            "mean_class_accuracy": 100 * float((first[seen, 0] / objects[seen]).mean()),
        }


@dataclass(eq=False)
class ProposalRecall:
    """Average recall of class-agnostic proposals.

    Args:
        limits: How many of the best proposals count, as passed to `matching.count_hits`.
    """

    limits: Sequence[int] = LIMITS
    hits: np.ndarray | None = None
    objects: int = 0

    def add(self, prediction: ImagePrediction, objects: int) -> None:
        """Count one image with so many objects."""
        self.objects += objects
        if prediction.hits is not None:
            self.hits = prediction.hits if self.hits is None else self.hits + prediction.hits

    def summary(self) -> dict[str, float]:
        """Return AR@100 and its kind in 0..100, the mean over overlaps of 0.5 to 0.95; nothing if not counted."""
        if self.hits is None or not self.objects:
            return {}
        recall = 100 * self.hits.mean(axis=1) / self.objects
        return {f"AR@{limit}": float(value) for limit, value in zip(self.limits, recall, strict=True)}


@dataclass(eq=False)
class Latency:
    """Time per image in seconds."""

    seconds: list[float] = field(default_factory=list)

    def add(self, prediction: ImagePrediction) -> None:
        """Count one image."""
        if prediction.seconds is not None:
            self.seconds.append(prediction.seconds)

    def summary(self) -> dict[str, float | None]:
        """Return the median time per image and the images per second, decoding excluded."""
        if not self.seconds:
            return {"seconds_per_image": None, "images_per_second": None}
        total = sum(self.seconds)
        rate = len(self.seconds) / total if total > 0 else None
        return {"seconds_per_image": float(np.median(self.seconds)), "images_per_second": rate}


def groups_of(classes: Sequence[str], groups: Mapping[str, Iterable[str]]) -> dict[str, list[int]]:
    """Return the class indices of each group."""
    place = {name: index for index, name in enumerate(classes)}
    return {key: [place[name] for name in names if name in place] for key, names in groups.items()}


GROUPS = ("base", "novel", "all")


@dataclass(frozen=True, eq=False)
class EvalResult:
    """The metrics of an evaluation.

    Attributes:
        task: What was evaluated.
        summary: Numbers in 0..100: `AP`, `AP50` and their kind; `top1`, `top5`, `mean_class_accuracy` where boxes were
            given by the annotations; `AR@100` and its kind where boxes were proposed; with a split the same below
            `base`, `novel` and `all`. Besides `images`, `objects`, `failed`, `seconds_per_image`, `images_per_second`.
        scores: Curves, classes and confusions; None while other processes are still working.
        named: Accuracy on ground-truth boxes by class; None where boxes were not those of the annotations.
        missing: Images that no process has done yet.
        failed: Why images could not be read, by image id; they count as images without detections.
    """

    task: Task
    summary: Mapping[str, Any]
    scores: Scores | None
    named: RegionAccuracy | None = None
    missing: int = 0
    failed: Mapping[int, str] = field(default_factory=dict)


def compute_metrics(task: Task, predictions: Iterable[ImagePrediction]) -> EvalResult:
    """Score the predictions of an evaluation; those of images outside the set are ignored.

    Args:
        task: What is evaluated.
        predictions: One per image, read once.
    """
    truth = task.truth
    reader = _Reader(task)
    scores = score_detections(truth, reader.read(predictions), split=task.split, max_dets=task.max_dets)
    summary: dict[str, Any] = dict(scores.summary())
    groups = {} if task.split is None else groups_of(truth.classes, _groups(task))
    if reader.named.objects.sum():
        summary |= reader.named.summary()
        for key, members in groups.items():
            summary[key] = {**summary.get(key, {}), **reader.named.summary(members)}
    for key, members in groups.items():
        summary[key] = {**summary.get(key, {}), "classes": len(members)}
    summary |= reader.covered.summary()
    own = {key: summary.pop(key) for key in GROUPS if key in summary}
    objects = int((~truth.columns.crowd[truth.columns.objects.values]).sum())
    summary |= {"images": len(truth), "objects": objects, "failed": len(reader.failed), **reader.time.summary()}
    return EvalResult(
        task=task,
        summary=summary | own,
        scores=scores,
        named=reader.named if reader.named.objects.sum() else None,
        failed=reader.failed,
    )


class _Reader:
    """Passes detections on to the scorer, and counts everything else on the way."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.named = RegionAccuracy(len(task.truth.classes), len(task.names))
        self.covered = ProposalRecall()
        self.time = Latency()
        self.failed: dict[int, str] = {}

    def read(self, predictions: Iterable[ImagePrediction]) -> Iterator[ImagePrediction]:
        """Yield predictions labelled by the classes of the set; detections of names that are no class are left out."""
        places, truth = self._task.truth.places_by_id, self._task.truth
        for prediction in predictions:
            if prediction.image not in places:
                continue
            if prediction.error:
                self.failed[prediction.image] = prediction.error
                continue
            self.named.add(prediction)
            self.time.add(prediction)
            self.covered.add(prediction, objects=int((~truth[places[prediction.image]].crowd).sum()))
            classes = self._task.classes[prediction.labels]
            yield prediction.select(classes >= 0, classes)


def _groups(task: Task) -> dict[str, tuple[str, ...]]:
    """Return the classes of base, novel and all."""
    split = task.split
    if split is None:
        return {}
    return {"base": split.base, "novel": split.novel, "all": (*split.base, *split.novel)}
