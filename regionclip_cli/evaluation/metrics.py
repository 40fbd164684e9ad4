"""Counts that grow image by image: how objects were named, how proposals cover them, how long it took."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regionclip_cli.evaluation.scores import Scores, score_detections
from regionclip_cli.evaluation.store import Line
from regionclip_cli.evaluation.task import Task

FEW = 5
LIMITS = (100, 300, 1000)
"""Proposals of an image for which recall is told."""


@dataclass(eq=False)
class RegionAccuracy:
    """How the known objects of a set were named.

    Args:
        classes: C, how many classes the set has.
        names: V, how many names compete.
    """

    classes: int
    names: int
    confusion: np.ndarray = field(init=False)
    in_first: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((self.classes, self.names), np.int64)
        self.in_first = np.zeros((self.classes, FEW), np.int64)

    def add(self, line: Line) -> None:
        """Count one image."""
        if line.truths is not None and line.guesses is not None and line.ranks is not None:
            np.add.at(self.confusion, (line.truths, line.guesses), 1)
            near = line.ranks < FEW
            np.add.at(self.in_first, (line.truths[near], line.ranks[near]), 1)

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
    """How proposals cover the objects of a set.

    Args:
        limits: How many of the best proposals may be used, as `coverage.cover` was told.
    """

    limits: Sequence[int] = LIMITS
    hits: np.ndarray | None = None
    objects: int = 0

    def add(self, line: Line, objects: int) -> None:
        """Count one image with so many objects."""
        self.objects += objects
        if line.hits is not None:
            self.hits = line.hits if self.hits is None else self.hits + line.hits

    def summary(self) -> dict[str, float]:
        """Return AR@100 and its kind in 0..100, the mean over overlaps of 0.5 to 0.95; nothing if not counted."""
        if self.hits is None or not self.objects:
            return {}
        recall = 100 * self.hits.mean(axis=1) / self.objects
        return {f"AR@{limit}": float(value) for limit, value in zip(self.limits, recall, strict=True)}


@dataclass(eq=False)
class Latency:
    """How long images took, in seconds."""

    seconds: list[float] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Count one image."""
        if line.seconds is not None:
            self.seconds.append(line.seconds)

    def summary(self) -> dict[str, float | None]:
        """Return the median time of an image, and how many images a second are looked at; decoding is not in it."""
        if not self.seconds:
            return {"seconds_per_image": None, "images_per_second": None}
        total = sum(self.seconds)
        rate = len(self.seconds) / total if total > 0 else None
        return {"seconds_per_image": float(np.median(self.seconds)), "images_per_second": rate}


def groups_of(classes: Sequence[str], groups: Mapping[str, Iterable[str]]) -> dict[str, list[int]]:
    """Return the places of the classes of each group."""
    place = {name: index for index, name in enumerate(classes)}
    return {key: [place[name] for name in names if name in place] for key, names in groups.items()}


GROUPS = ("base", "novel", "all")


@dataclass(frozen=True, eq=False)
class EvalResult:
    """What a measurement came to.

    Attributes:
        task: What was asked.
        summary: Numbers in 0..100: `AP`, `AP50` and their kind; `top1`, `top5`, `mean_class_accuracy` where boxes were
            given by the annotations; `AR@100` and its kind where boxes were proposed; with a split the same below
            `base`, `novel` and `all`. Besides `images`, `objects`, `failed`, `seconds_per_image`, `images_per_second`.
        scores: Curves, classes and confusions; None while other processes are still at their shares.
        named: How known objects were named, class by class; None where boxes were not those of the annotations.
        missing: Images that no process has looked at yet.
        failed: Why images could not be looked at, by image id; they count as images where nothing was found.
    """

    task: Task
    summary: Mapping[str, Any]
    scores: Scores | None
    named: RegionAccuracy | None = None
    missing: int = 0
    failed: Mapping[int, str] = field(default_factory=dict)


def compute_metrics(task: Task, lines: Iterable[Line]) -> EvalResult:
    """Score what was kept of the images of a question; lines of other images are passed over.

    Args:
        task: What was asked.
        lines: One for each image; they are read once, one at a time.
    """
    truth = task.truth
    reader = _Reader(task)
    scores = score_detections(truth, reader.read(lines), split=task.split, max_dets=task.max_dets)
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
    """Hands detections on to the scorer, and counts all else on the way."""

    def __init__(self, task: Task) -> None:
        self._question = task
        self.named = RegionAccuracy(len(task.truth.classes), len(task.names))
        self.covered = ProposalRecall()
        self.time = Latency()
        self.failed: dict[int, str] = {}

    def read(self, lines: Iterable[Line]) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield image id, boxes (N, 4), scores (N,) and classes (N,); names that are no class are left out."""
        places, truth = self._question.truth.places_by_id, self._question.truth
        for line in lines:
            if line.image not in places:
                continue
            if line.error:
                self.failed[line.image] = line.error
                continue
            for tally in (self.named, self.time):
                tally.add(line)
            self.covered.add(line, objects=int((~truth[places[line.image]].crowd).sum()))
            classes = self._question.classes[line.names]
            counted = classes >= 0
            yield line.image, line.boxes[counted], line.scores[counted], classes[counted]


def _groups(task: Task) -> dict[str, tuple[str, ...]]:
    """Return the classes of base, novel and all."""
    split = task.split
    if split is None:
        return {}
    return {"base": split.base, "novel": split.novel, "all": (*split.base, *split.novel)}
