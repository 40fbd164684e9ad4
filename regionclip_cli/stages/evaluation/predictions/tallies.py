"""Counts that grow image by image: how objects were named, how proposals cover them, how long it took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from regionclip_cli.stages.evaluation.predictions.lines import Line

FEW = 5
LIMITS = (100, 300, 1000)
"""Proposals of an image for which recall is told."""


@dataclass(eq=False)
class NamedTally:
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
class CoverTally:
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
class TimeTally:
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
