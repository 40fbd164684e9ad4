"""From what was kept of every image to the numbers of a measurement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regionclip_cli.scoring import Scores, score_detections
from regionclip_cli.stages.evaluation.predictions.lines import Line
from regionclip_cli.stages.evaluation.predictions.tallies import CoverTally, NamedTally, TimeTally, groups_of
from regionclip_cli.stages.evaluation.question import Question

GROUPS = ("base", "novel", "all")


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a measurement came to.

    Attributes:
        question: What was asked.
        summary: Numbers in 0..100: `AP`, `AP50` and their kind; `top1`, `top5`, `mean_class_accuracy` where boxes were
            given by the annotations; `AR@100` and its kind where boxes were proposed; with a split the same below
            `base`, `novel` and `all`. Besides `images`, `objects`, `failed`, `seconds_per_image`, `images_per_second`.
        scores: Curves, classes and confusions; None while other processes are still at their shares.
        named: How known objects were named, class by class; None where boxes were not those of the annotations.
        missing: Images that no process has looked at yet.
        failed: Why images could not be looked at, by image id; they count as images where nothing was found.
    """

    question: Question
    summary: Mapping[str, Any]
    scores: Scores | None
    named: NamedTally | None = None
    missing: int = 0
    failed: Mapping[int, str] = field(default_factory=dict)


def conclude(question: Question, lines: Iterable[Line]) -> Measurement:
    """Score what was kept of the images of a question; lines of other images are passed over.

    Args:
        question: What was asked.
        lines: One for each image; they are read once, one at a time.
    """
    truth = question.truth
    reader = _Reader(question)
    scores = score_detections(truth, reader.read(lines), split=question.split, max_dets=question.max_dets)
    summary: dict[str, Any] = dict(scores.summary())
    groups = {} if question.split is None else groups_of(truth.classes, _groups(question))
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
    return Measurement(
        question=question,
        summary=summary | own,
        scores=scores,
        named=reader.named if reader.named.objects.sum() else None,
        failed=reader.failed,
    )


class _Reader:
    """Hands detections on to the scorer, and counts all else on the way."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self.named = NamedTally(len(question.truth.classes), len(question.names))
        self.covered = CoverTally()
        self.time = TimeTally()
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


def _groups(question: Question) -> dict[str, tuple[str, ...]]:
    """Return the classes of base, novel and all."""
    split = question.split
    if split is None:
        return {}
    return {"base": split.base, "novel": split.novel, "all": (*split.base, *split.novel)}
