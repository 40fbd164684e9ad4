"""The numbers of a measurement: for the set, for base and novel classes, class by class and photo by photo."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.data.splits import Split
from regionclip_cli.errors import UsageError
from regionclip_cli.evaluation.coco_eval import COCO_DETECTIONS, LVIS_DETECTIONS, Curves, measure_curves
from regionclip_cli.evaluation.matching import NO_BOX, NO_SCORE, Collector, Found, Stream, match_photo

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
class PhotoScore:
    """One photo.

    Attributes:
        id: Its number in the set.
        name: Its file name.
        objects: How many it shows, crowds left out.
        found: How many of them were found under their own name.
        score: See `matching.PhotoMatch`, in 0..100.
    """

    id: int
    name: str
    objects: int
    found: int
    score: float


@dataclass(frozen=True, eq=False)
class Scores:
    """What a measurement came to.

    Attributes:
        truth: The set.
        split: Base and novel classes, if they are told apart.
        curves: Precision and recall of each class.
        confusion: (C, C + 1) int64: objects of each class by what the surest detection about them said; last: none.
        photo_scores: (M,) float64 in 0..1 by place in the set; NaN for photos without objects.
        photo_found: (M,) int64, objects found under their own name.
        detections: (C,) int64, detections of each class.
        left_out: How many detections were left out, by reason.
    """

    truth: DetectionSet
    split: Split | None
    curves: Curves
    confusion: np.ndarray
    photo_scores: np.ndarray
    photo_found: np.ndarray
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
        lines = self.curves.precision[self._at(overlap), :, :, 0][:, rows]
        having = lines[0] > -1
        return lines[:, having].mean(axis=1) if having.any() else None

    def worst_photos(self, count: int = 20) -> list[PhotoScore]:
        """Return the photos that went worst, the worst first; of equals the one with most objects."""
        c = self.truth.columns
        owners = c.objects.owners()[~c.crowd[c.objects.values]]
        objects = np.bincount(owners, minlength=len(self.truth))
        places = np.flatnonzero(objects)
        worst = places[np.lexsort((places, -objects[places], self.photo_scores[places]))][:count]
        return [
            PhotoScore(
                int(c.ids[place]),
                c.names[place],
                int(objects[place]),
                int(self.photo_found[place]),
                100 * float(self.photo_scores[place]),
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
    """Return the mean of what is known, in 0..100; -1 stands for unknown."""
    known = np.asarray(values)
    known = known[known > -1]
    return 100 * float(known.mean()) if known.size else None


__all__ = ["Found", "score_detections"]


def score_detections(
    truth: DetectionSet, found: Stream, *, split: Split | None = None, max_dets: int | None = None
) -> Scores:
    """Score what was found in a set by the protocol of its style.

    All images of the set count, whether something was found in them or not, and all its classes; a class without an
    object has no score, and enters no mean. Detections whose score or box is NaN or infinite are left out and counted
    in `Scores.left_out`. Scores may be of any range.

    Args:
        truth: The set.
        found: {image id: Found}, or tuples of image id, boxes (N, 4) xyxy in pixels, scores (N,) and labels (N,), one
            an image, taken one at a time.
        split: Classes to report apart; those that the set lacks are passed over.
        max_dets: Surest detections that count: with COCO of an image and class (100), with LVIS of an image (300).

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
    collector = Collector(truth, limit if lvis else None)
    # An object of an image that nothing was found in is missed.
    c = truth.columns
    objects = c.objects.values[~c.crowd[c.objects.values]]
    confusion = np.zeros((count, count + 1), np.int64)
    confusion[:, -1] = np.bincount(c.labels[objects], minlength=count)
    photo_found = np.zeros(len(truth), np.int64)
    photo_scores = np.full(len(truth), np.nan)
    photo_scores[c.objects.owners()[~c.crowd[c.objects.values]]] = 0.0
    for place, kept in collector.take(found):
        matched = match_photo(truth[place], kept, lvis)
        called = matched.called >= 0
        np.add.at(confusion, (matched.labels[called], matched.called[called]), 1)
        confusion[:, -1] -= np.bincount(matched.labels[called], minlength=count)
        photo_found[place], photo_scores[place] = matched.found, matched.score
    detections = collector.finish()
    return Scores(
        truth=truth,
        split=split,
        curves=measure_curves(truth, detections, limits),
        confusion=confusion,
        photo_scores=photo_scores,
        photo_found=photo_found,
        detections=np.bincount(detections.labels, minlength=count),
        left_out={reason: number for reason, number in detections.left_out.items() if number},
    )
