"""Which photos went worst, and what was right and wrong on them.

A detection is right when it overlaps an object of its class by half, each object once, the best detection first. What
counts as a detection is decided by a score: the one at which precision and recall over the whole set balance best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from regionclip_cli.data.detection_sets import DetectionImage
from regionclip_cli.data.pixels import decode
from regionclip_cli.errors import InputError
from regionclip_cli.results.evaluation_report import Marked, WorstPhoto
from regionclip_cli.stages.evaluation.predictions.coverage import overlap
from regionclip_cli.stages.evaluation.predictions.lines import Line
from regionclip_cli.stages.evaluation.question import Question

MOST_PHOTOS = 12
HALF = 0.5


@dataclass(frozen=True, eq=False)
class Judged:
    """One image.

    Attributes:
        scores: (N,) float32 of detections, the best first.
        objects: (N,) int64, the object that each detection found; -1 where it is wrong.
        count: How many objects there are.
    """

    scores: np.ndarray
    objects: np.ndarray
    count: int

    def above(self, score: float) -> tuple[int, int, int]:
        """Return how many objects were found, how many detections are wrong, and how many objects were missed."""
        chosen = self.objects[self.scores >= score]
        right = int((chosen >= 0).sum())
        return right, len(chosen) - right, self.count - right


class WorstPhotos:
    """The photos of a measurement on which most went wrong.

    Args:
        question: What was asked.
        lines: What was kept of each image; called twice.
    """

    def __init__(self, question: Question, lines: Callable[[], Iterable[Line]]) -> None:
        self._question, self._lines = question, lines
        self._places = question.truth.places_by_id
        self._named = False
        judged: dict[int, Judged] = {}
        for line in lines():
            if line.image in self._places and not line.error:
                judged[line.image] = self._judge(line)
        self.score = 0.0 if self._named else best_score(judged.values())
        outcomes = {image: each.above(self.score) for image, each in judged.items()}
        wrong = {image: (balance(*each), -each[1] - each[2]) for image, each in outcomes.items() if each[1] + each[2]}
        chosen = sorted(wrong, key=lambda image: wrong[image])[:MOST_PHOTOS]
        self._outcomes = {image: outcomes[image] for image in chosen}

    @property
    def said(self) -> str:
        """How they were chosen, in a sentence or two."""
        if self._named:
            return "Those on which the largest share of the objects was given the wrong name."
        return (
            "Those with most objects missed and most detections that are wrong, among detections that score at least "
            f"{self.score:.3g}, where precision and recall over the whole set balance best. A detection is right when "
            "it overlaps an object of its class by half."
        )

    def photos(self) -> Iterator[WorstPhoto]:
        """Yield them, the worst first; one picture is in memory at a time."""
        kept = {line.image: line for line in self._lines() if line.image in self._outcomes}
        for number, (right, wrong, missed) in self._outcomes.items():
            image: DetectionImage = self._question.truth[self._places[number]]
            line = kept[number]
            if self._named:
                said = f"{missed} of {right + missed} objects have the wrong name."
                truth, found = self._mark_names(image, line)
            else:
                said = f"{right} of {right + missed} objects found, {wrong} detections wrong."
                truth, found = self._mark_detections(image, line)
            yield WorstPhoto(image.name, said, _pixels(image), truth, found)

    def _judge(self, line: Line) -> Judged:
        image: DetectionImage = self._question.truth[self._places[line.image]]
        if line.ranks is not None:
            self._named = True
            right = np.flatnonzero(line.ranks == 0)
            return Judged(np.ones(len(right), np.float32), right, len(line.ranks))
        boxes, scores, classes = self._counted(image, line)
        objects = match(boxes, classes, image.boxes, image.labels)
        # Finding a crowd is neither right nor wrong.
        crowd = (objects >= 0) & image.crowd[objects] if len(image) else np.zeros(len(objects), bool)
        return Judged(scores[~crowd], objects[~crowd], int((~image.crowd).sum()))

    def _counted(self, image: DetectionImage, line: Line) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return boxes, scores and classes of detections that the set can judge, the best first."""
        classes = self._question.classes[line.names]
        known = classes >= 0
        if self._question.truth.style == "lvis":
            judged = (set(image.labels.tolist()) | image.neg) - image.not_exhaustive
            known &= np.isin(classes, list(judged))
        order = np.flatnonzero(known)[np.argsort(-line.scores[known], kind="stable")]
        return line.boxes[order], line.scores[order], classes[order]

    def _mark_names(self, image: DetectionImage, line: Line) -> tuple[Marked, Marked]:
        """Return the objects by their own and by their given names."""
        boxes = image.boxes[~image.crowd]
        if line.truths is None or line.guesses is None or line.ranks is None:
            raise ValueError(f"{image.name} was not named")
        right = line.ranks == 0
        names = self._question.names.labels
        said = tuple(names[guess] for guess in line.guesses)
        return Marked(boxes, self._class_names(line.truths), right), Marked(boxes, said, right)

    def _mark_detections(self, image: DetectionImage, line: Line) -> tuple[Marked, Marked]:
        """Return objects and detections above the score."""
        boxes, scores, classes = self._counted(image, line)
        chosen = scores >= self.score
        boxes, scores, classes = boxes[chosen], scores[chosen], classes[chosen]
        objects = match(boxes, classes, image.boxes, image.labels)
        found = np.isin(np.arange(len(image)), objects) | image.crowd
        labels = tuple(f"{name} {score:.2f}" for name, score in zip(self._class_names(classes), scores, strict=True))
        return Marked(image.boxes, self._class_names(image.labels), found), Marked(boxes, labels, objects >= 0)

    def _class_names(self, labels: np.ndarray) -> tuple[str, ...]:
        return tuple(self._question.truth.classes[label] for label in labels)


def match(boxes: np.ndarray, classes: np.ndarray, objects: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return (N,) int64: the object that each detection finds, -1 for none; detections come best first."""
    found = np.full(len(boxes), -1, np.int64)
    overlaps = np.where(classes[:, None] == labels[None], overlap(boxes, objects), 0.0)
    if not overlaps.size:
        return found
    for detection in np.flatnonzero(overlaps.max(axis=1) >= HALF):
        best = int(overlaps[detection].argmax())
        if overlaps[detection, best] >= HALF:
            found[detection] = best
            overlaps[:, best] = 0
    return found


def best_score(judged: Iterable[Judged]) -> float:
    """Return the score at which twice the right detections over detections and objects together are most (F1)."""
    judged = list(judged)
    scores = np.concatenate([each.scores for each in judged]) if judged else np.zeros(0, np.float32)
    if not len(scores):
        return 0.0
    right = np.concatenate([each.objects >= 0 for each in judged])
    order = np.argsort(-scores, kind="stable")
    total = sum(each.count for each in judged)
    values = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + total)
    # Of equal scores all are taken, so the last one of them tells the value.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    return float(scores[order][last[values[last].argmax()]])


def balance(right: int, wrong: int, missed: int) -> float:
    """Return F1, the balance of precision and recall."""
    return 2 * right / (2 * right + wrong + missed) if right else 0.0


def _pixels(image: DetectionImage) -> np.ndarray | None:
    try:
        return decode(image.read(), image.name)
    except InputError:
        return None
