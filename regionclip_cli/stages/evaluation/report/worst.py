"""The photos of a measurement that went worst, and what was right and wrong on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from regionclip_cli.data.detection_sets import DetectionImage
from regionclip_cli.data.pixels import decode
from regionclip_cli.errors import InputError
from regionclip_cli.results.evaluation_report import Marked, WorstPhoto
from regionclip_cli.scoring import Found
from regionclip_cli.scoring.matching import OVERLAP, overlap
from regionclip_cli.stages.evaluation.outcome import Measurement
from regionclip_cli.stages.evaluation.predictions.lines import Line

MOST_PHOTOS = 12
FEWEST = 3
"""Detections that are shown of a photo at least, if there are so many."""

NAMED = "Those on which the largest share of the objects was given the wrong name."
FOUND = (
    "Those with the lowest average precision, all classes in one list: objects are missed, misnamed, or stand below "
    "detections of nothing. As many of the best detections are shown as there are objects."
)


class WorstPhotos:
    """The photos on which most went wrong.

    Args:
        measurement: With scores.
        lines: What was kept of each image; called once or twice.
    """

    def __init__(self, measurement: Measurement, lines: Callable[[], Iterable[Line]]) -> None:
        self._question, self._lines = measurement.question, lines
        self._places = self._question.truth.places_by_id
        self._named = measurement.named is not None
        if self._named:
            self._chosen = self._worst_named()
        elif measurement.scores is not None:
            worst = measurement.scores.worst_photos(MOST_PHOTOS)
            self._chosen = {
                photo.id: f"Average precision {photo.score:.1f}; {photo.objects} objects." for photo in worst
            }

    @property
    def said(self) -> str:
        """How they were chosen."""
        return NAMED if self._named else FOUND

    def photos(self) -> Iterator[WorstPhoto]:
        """Yield them, the worst first; one picture is in memory at a time."""
        kept = {line.image: line for line in self._lines() if line.image in self._chosen}
        for number, said in self._chosen.items():
            image: DetectionImage = self._question.truth[self._places[number]]
            line = kept.get(number)
            mark = self._mark_names if self._named else self._mark_detections
            truth, found = (_nothing(), _nothing()) if line is None else mark(image, line)
            yield WorstPhoto(image.name, said, _pixels(image), truth, found)

    def _worst_named(self) -> Mapping[int, str]:
        """Return image ids with a sentence each: most wrong names first, of equals those with more objects."""
        shares: dict[int, tuple[float, int, int]] = {}
        for line in self._lines():
            if line.ranks is not None and line.image in self._places and (line.ranks > 0).any():
                wrong, count = int((line.ranks > 0).sum()), len(line.ranks)
                shares[line.image] = (-wrong / count, -count, wrong)
        worst = sorted(shares, key=lambda image: shares[image])[:MOST_PHOTOS]
        return {image: f"{shares[image][2]} of {-shares[image][1]} objects have the wrong name." for image in worst}

    def _mark_names(self, image: DetectionImage, line: Line) -> tuple[Marked, Marked]:
        """Return the objects by their own and by their given names."""
        boxes = image.boxes[~image.crowd]
        if line.truths is None or line.guesses is None or line.ranks is None:
            return _nothing(), _nothing()
        right = line.ranks == 0
        said = tuple(self._question.names.labels[guess] for guess in line.guesses)
        return Marked(boxes, self._class_names(line.truths), right), Marked(boxes, said, right)

    def _mark_detections(self, image: DetectionImage, line: Line) -> tuple[Marked, Marked]:
        """Return the objects, and as many of the best detections."""
        classes = self._question.classes[line.names]
        order = np.flatnonzero(classes >= 0)
        order = order[np.argsort(-line.scores[order], kind="stable")][: max(FEWEST, int((~image.crowd).sum()))]
        best = Found(line.boxes[order], line.scores[order], classes[order])
        objects = _find(best, image)
        found = np.isin(np.arange(len(image)), objects) | image.crowd
        labels = tuple(
            f"{name} {score:.2f}" for name, score in zip(self._class_names(best.labels), best.scores, strict=True)
        )
        return Marked(image.boxes, self._class_names(image.labels), found), Marked(best.boxes, labels, objects >= 0)

    def _class_names(self, labels: np.ndarray) -> tuple[str, ...]:
        return tuple(self._question.truth.classes[label] for label in labels)


def _find(found: Found, image: DetectionImage) -> np.ndarray:
    """Return (N,) int64: the object of its own class that each detection finds, the surest first; -1 for none."""
    objects = np.full(len(found.scores), -1, np.int64)
    same = found.labels[:, None] == image.labels[None]
    able = np.where(same, overlap(found.boxes, image.boxes), 0.0)
    for detection in np.flatnonzero(able.max(axis=1, initial=0.0) >= OVERLAP):
        best = int(able[detection].argmax())
        if able[detection, best] >= OVERLAP:
            objects[detection] = best
            able[:, best] = 0
    return objects


def _nothing() -> Marked:
    return Marked(np.zeros((0, 4), np.float32), (), np.zeros(0, bool))


def _pixels(image: DetectionImage) -> np.ndarray | None:
    try:
        return decode(image.read(), image.name)
    except InputError:
        return None
