"""One image of a detection set: what is on it, and how its bytes are had."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from regionclip_cli.data.detection_sets.class_names import match_classes
from regionclip_cli.errors import UsageError

Segmentation = Any
"""Of one object as the file has it: polygons [[x1, y1, x2, y2, ...], ...], a run-length object, or None."""


@dataclass(frozen=True, eq=False)
class DetectionImage:
    """An image with N objects of C classes.

    Attributes:
        id: The number that the annotation file gives it.
        name: Its file name as the annotation file has it, with forward slashes.
        path: Where the file is; None when no folder of images was named, or the image is not a file.
        width: Pixels.
        height: Pixels.
        boxes: (N, 4) float32, xyxy in pixels, inside the image.
        labels: (N,) int64 in 0..C-1.
        crowd: (N,) bool; such a box covers several objects, and is neither to be found nor a mistake to find.
        area: (N,) float32, pixels of the object (of its mask where the file has masks).
        neg: Labels of classes that are known to be absent (LVIS).
        not_exhaustive: Labels of classes that are not fully annotated here (LVIS).
    """

    id: int
    name: str
    path: Path | None
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    neg: frozenset[int]
    not_exhaustive: frozenset[int]
    _read: Callable[[], bytes] = field(repr=False)
    _segmentation: Callable[[], list[Segmentation] | None] = field(repr=False)

    def __len__(self) -> int:
        """Return the number of objects N."""
        return len(self.labels)

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            InputError: The file is missing or cannot be read, or no folder of images was named.
        """
        return self._read()

    @property
    def segmentation(self) -> list[Segmentation] | None:
        """One segmentation for each box, read from the annotation file now; None when the set has none."""
        return self._segmentation()


class Source(Protocol):
    """Where images and segmentations of a set come from; picklable, so that loader processes can have it."""

    def path(self, image: int) -> Path | None:
        """Return the file of an image (by its place in the whole source), if it is one."""

    def read(self, image: int) -> bytes:
        """Return the encoded image."""

    def segmentations(self, annotations: np.ndarray) -> list[Segmentation] | None:
        """Return the segmentations of annotations (by their places in the whole source), if there are any."""


@dataclass(frozen=True, eq=False)
class Lists:
    """M lists of numbers in two arrays: list i is `values[starts[i]:starts[i + 1]]`."""

    starts: np.ndarray
    values: np.ndarray

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one list."""
        return self.values[self.starts[index] : self.starts[index + 1]]

    @staticmethod
    def of(owners: np.ndarray, values: np.ndarray, count: int) -> Lists:
        """Gather values by their owner, 0..count-1; the order among one owner's stays."""
        order = np.argsort(owners, kind="stable")
        return Lists(np.searchsorted(owners[order], np.arange(count + 1)), values[order])

    def owners(self) -> np.ndarray:
        """Return whose each value is."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


@dataclass(frozen=True, eq=False)
class Columns:
    """The content of a set: M images, N annotations.

    Attributes:
        ids: (M,) int64, ids of the images.
        names: M file names.
        sizes: (M, 2) int32, width and height in pixels.
        places: (M,) int64, the places of the images in the source.
        objects: For each image the rows of its annotations below.
        labels: (N,) int64, classes in 0..C-1.
        xywh: (N, 4) float64, boxes as the file has them: left, top, width, height in pixels.
        area: (N,) float64, pixels.
        crowd: (N,) bool.
        rows: (N,) int64, the places of the annotations in the source.
        neg: For each image the labels that are known to be absent (LVIS).
        not_exhaustive: For each image the labels that are not fully annotated (LVIS).
    """

    ids: np.ndarray
    names: tuple[str, ...]
    sizes: np.ndarray
    places: np.ndarray
    objects: Lists
    labels: np.ndarray
    xywh: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    rows: np.ndarray
    neg: Lists
    not_exhaustive: Lists


@dataclass(frozen=True, eq=False)
class DetectionSet(Sequence[DetectionImage]):
    """A sequence of images with boxes.

    Attributes:
        name: What messages call it: the annotation file, or the data set's name.
        style: Which protocol scores it: LVIS sets say what is absent and what is not fully annotated.
        classes: C names in label order.
        category_ids: The C numbers that the annotation file gives them, rising.
        frequencies: r (rare), c (common) or f (frequent) for each class; None where the file does not say.
        columns: The content.
        problems: What was wrong with entries that were left out.
        dropped: How many entries were left out.
    """

    name: str
    style: Literal["coco", "lvis"]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    frequencies: tuple[str, ...] | None
    columns: Columns
    source: Source
    problems: tuple[str, ...] = ()
    dropped: int = 0

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.columns.names)

    def __iter__(self) -> Iterator[DetectionImage]:
        """Yield the images in order."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        """Return the image at a place; slices are not offered."""
        at, c = range(len(self))[index], self.columns
        rows, (width, height) = c.objects[at], (int(side) for side in c.sizes[at])
        boxes = c.xywh[rows].copy()
        boxes[:, 2:] += boxes[:, :2]
        place = int(c.places[at])
        return DetectionImage(
            id=int(c.ids[at]),
            name=c.names[at],
            path=self.source.path(place),
            width=width,
            height=height,
            boxes=boxes.clip(0, [width, height, width, height]).astype(np.float32),
            labels=c.labels[rows],
            crowd=c.crowd[rows],
            area=c.area[rows].astype(np.float32),
            neg=frozenset(c.neg[at].tolist()),
            not_exhaustive=frozenset(c.not_exhaustive[at].tolist()),
            _read=functools.partial(self.source.read, place),
            _segmentation=functools.partial(self.source.segmentations, c.rows[rows]),
        )

    def subset(self, classes: Sequence[str], drop_empty: bool = False) -> DetectionSet:
        """Return this set with some of its classes only, in the order given, labels 0..C-1 anew.

        Args:
            classes: Names of this set, in any capitals.
            drop_empty: Leave out images without a box of these classes too; otherwise all images stay.

        Raises:
            UsageError: A name is unknown (the hint tells the nearest ones) or comes twice, or none is given.
        """
        kept = match_classes(classes, self.classes, self.name)
        if not kept:
            raise UsageError(f"No class of {self.name} is left.")
        new = np.full(len(self.classes), -1, np.int64)
        new[list(kept)] = np.arange(len(kept))
        c = self.columns
        columns = replace(
            c,
            objects=_chosen(c.objects, new[c.labels[c.objects.values]] >= 0),
            labels=new[c.labels],
            neg=_relabelled(c.neg, new),
            not_exhaustive=_relabelled(c.not_exhaustive, new),
        )
        made = replace(
            self,
            classes=tuple(self.classes[index] for index in kept),
            category_ids=tuple(self.category_ids[index] for index in kept),
            frequencies=None if self.frequencies is None else tuple(self.frequencies[index] for index in kept),
            columns=columns,
        )
        return made.at(np.flatnonzero(np.diff(columns.objects.starts))) if drop_empty else made

    def at(self, places: np.ndarray) -> DetectionSet:
        """Return this set with the images at these places only, in this order."""
        c = self.columns
        columns = replace(
            c,
            ids=c.ids[places],
            names=tuple(c.names[place] for place in places),
            sizes=c.sizes[places],
            places=c.places[places],
            objects=_lists_at(c.objects, places),
            neg=_lists_at(c.neg, places),
            not_exhaustive=_lists_at(c.not_exhaustive, places),
        )
        return replace(self, columns=columns)

    @functools.cached_property
    def places_by_id(self) -> dict[int, int]:
        """The place of each image id in this set."""
        return {int(number): place for place, number in enumerate(self.columns.ids)}

    def left_out(self, named: int = 3) -> str:
        """Return a sentence on the entries that were left out because they are wrong; empty where there was none.

        Args:
            named: How many of them it tells one by one.
        """
        if not self.dropped:
            return ""
        entries = "1 wrong entry was" if self.dropped == 1 else f"{self.dropped:,} wrong entries were"
        told = "; ".join(problem.rstrip(".") for problem in self.problems[:named])
        more = f"; and {self.dropped - named:,} more" if self.dropped > named else ""
        return f"{self.name}: {entries} left out: {told}{more}."

    def image_counts(self) -> np.ndarray:
        """Return (C,) int64: on how many images each class is."""
        c = self.columns
        pairs = np.unique(c.objects.owners() * len(self.classes) + c.labels[c.objects.values])
        return np.bincount(pairs % len(self.classes), minlength=len(self.classes))

    def box_counts(self) -> np.ndarray:
        """Return (C,) int64: how many boxes each class has, crowds included."""
        return np.bincount(self.columns.labels[self.columns.objects.values], minlength=len(self.classes))

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of all that this set says, but not of the pixels."""
        c, rows = self.columns, self.columns.objects.values
        told = hashlib.sha256(repr((self.style, self.classes, self.frequencies, c.names)).encode())
        lists = [part for each in (c.neg, c.not_exhaustive) for part in (each.starts, each.values)]
        for array in (c.ids, c.sizes, c.objects.starts, c.labels[rows], c.xywh[rows], c.area[rows], c.crowd[rows]):
            told.update(np.ascontiguousarray(array).tobytes())
        for array in lists:
            told.update(np.ascontiguousarray(array, np.int64).tobytes())
        return told.hexdigest()[:16]


def _chosen(lists: Lists, keep: np.ndarray) -> Lists:
    """Return lists without the values that `keep` is false for."""
    return Lists(np.concatenate([[0], np.cumsum(keep)])[lists.starts], lists.values[keep])


def _relabelled(lists: Lists, new: np.ndarray) -> Lists:
    """Return lists of labels in new numbers, without those that have none."""
    labels = new[lists.values]
    return _chosen(Lists(lists.starts, labels), labels >= 0)


def _lists_at(lists: Lists, places: np.ndarray) -> Lists:
    """Return some of the lists, in the order of `places`."""
    lengths = np.diff(lists.starts)[places]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    shift = np.repeat(lists.starts[places] - starts[:-1], lengths)
    return Lists(starts, lists.values[np.arange(starts[-1]) + shift])
