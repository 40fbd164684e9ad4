"""Content of an evaluation report as plain values; the page only displays it."""

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
    """Precision over recall at IoU 0.5, mean over some classes.

    Attributes:
        label: Name of the group of classes.
        recall: (P,) in 0..1, ascending.
        precision: (P,) in 0..1.
    """

    label: str
    recall: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True, eq=False)
class Confusion:
    """Confusion counts of some classes.

    Attributes:
        rows: True classes.
        columns: Predicted names.
        counts: (rows, columns) objects.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class Marked:
    """Boxes on an image.

    Attributes:
        boxes: (N, 4) xyxy in pixels.
        labels: N texts.
        right: (N,) bool: whether each is correct.
    """

    boxes: np.ndarray
    labels: tuple[str, ...]
    right: np.ndarray


@dataclass(frozen=True, eq=False)
class WorstImage:
    """An image with poor results.

    Attributes:
        name: Of the image.
        note: One sentence on the errors.
        pixels: RGB uint8 (H, W, 3); None if it can no longer be read.
        truth: The annotated objects.
        found: The predictions.
    """

    name: str
    note: str
    pixels: np.ndarray | None
    truth: Marked
    found: Marked


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Content of the page.

    Attributes:
        title: What was evaluated.
        facts: Facts about the evaluation by name.
        headings: Headings of the results table.
        results: Its rows.
        classes: One row per class.
        curves: Curves of the plot.
        confusion: Confusions of the worst classes; None without any.
        images_note: How the images below were chosen.
    """

    title: str
    facts: Mapping[str, str]
    headings: Sequence[str]
    results: Sequence[Sequence[object]]
    classes: Sequence[ClassRow]
    curves: Sequence[Curve]
    confusion: Confusion | None
    images_note: str
