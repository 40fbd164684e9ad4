"""What an evaluation report says, as plain values: whoever measures fills it in, the page only shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, field_serializer


class ClassRow(BaseModel):
    """One class of a report; `model_dump(mode="json", exclude_defaults=True)` is its entry in `results.json`.

    Attributes:
        name: Class name.
        group: base, novel, rare, ...; "" where classes are not grouped.
        objects: Number of annotated objects.
        AP: Average precision in 0..100; None without objects.
        AP50: The same at IoU 0.5.
        top1: Accuracy on its ground-truth boxes in 0..100; None where boxes were not given.
        taken_for: Other names that its objects were given, the most frequent first, with counts.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    group: str = ""
    objects: int
    AP: float | None = None
    AP50: float | None = None
    top1: float | None = None
    taken_for: dict[str, int]

    @field_serializer("AP", "AP50", "top1")
    def _round(self, value: float | None) -> float | None:
        return None if value is None else round(value, 4)


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision over recall at an overlap of 0.5, the mean over some classes.

    Attributes:
        label: Which classes.
        recall: (P,) in 0..1, rising.
        precision: (P,) in 0..1.
    """

    label: str
    recall: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True, eq=False)
class Confusion:
    """What objects of some classes were taken for.

    Attributes:
        rows: Names of the classes.
        columns: What they were taken for.
        counts: (rows, columns) objects.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class Marked:
    """Boxes on a picture.

    Attributes:
        boxes: (N, 4) xyxy in pixels.
        labels: N texts.
        right: (N,) bool: found, or rightly so.
    """

    boxes: np.ndarray
    labels: tuple[str, ...]
    right: np.ndarray


@dataclass(frozen=True, eq=False)
class WorstPhoto:
    """A photo on which much went wrong.

    Attributes:
        name: Of the image.
        said: What went wrong, one sentence.
        pixels: RGB uint8 (H, W, 3); None if it cannot be read any more.
        truth: The objects on it.
        found: What was found.
    """

    name: str
    said: str
    pixels: np.ndarray | None
    truth: Marked
    found: Marked


@dataclass(frozen=True, eq=False)
class ReportContent:
    """The whole page.

    Attributes:
        title: What was measured.
        facts: What to know about it, name and value.
        headings: Of the table of results.
        results: Its rows.
        classes: One row a class.
        curves: For the plot.
        confusion: Of the classes that went worst; None where nothing was confused.
        photos_said: How the photos below were chosen.
    """

    title: str
    facts: Mapping[str, str]
    headings: Sequence[str]
    results: Sequence[Sequence[object]]
    classes: Sequence[ClassRow]
    curves: Sequence[Curve]
    confusion: Confusion | None
    photos_said: str
