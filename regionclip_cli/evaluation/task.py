"""Which names compete at test time, and which classes are scored.

The names that compete in the softmax and the classes that are scored need not be the same. The paper's generalised
setting lets the 65 classes of the split compete and reports base and novel ones separately; a vocabulary of the 17
novel names alone is an easier task for the same model, one of all LVIS names a harder one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from regionclip_cli.data.detection_sets import DetectionSet
from regionclip_cli.data.detection_sets.class_names import folded, perhaps, respelt, unknown_class
from regionclip_cli.data.splits import Split, left_out_of, read_split
from regionclip_cli.errors import UsageError
from regionclip_cli.language.class_names import Vocabulary, parse_classes
from regionclip_cli.recipe.schema import EvaluateSection

GROUND_TRUTH, PROPOSALS = "ground-truth", "proposals"
"""Values of `boxes` besides a file: annotated boxes, or those of the proposal network."""
MOST: Mapping[str, int] = {"coco": 100, "lvis": 300}
"""Detections per image that each protocol counts."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is evaluated.

    Attributes:
        truth: The set with the C classes that are scored.
        names: The V names that compete, with their phrases.
        classes: (V,) int64: the class of `truth` that each name stands for; -1 for a name that only competes.
        split: Base and novel classes, all of them in `truth`; None without a split.
        max_dets: Highest-scoring detections that count per image.
    """

    truth: DetectionSet
    names: Vocabulary
    classes: np.ndarray
    split: Split | None
    max_dets: int

    def columns(self) -> np.ndarray:
        """Return (C,) int64: the first name that stands for each class."""
        first = np.zeros(len(self.truth.classes), np.int64)
        spoken = np.flatnonzero(self.classes >= 0)[::-1]
        first[self.classes[spoken]] = spoken
        return first


def build_task(truth: DetectionSet, settings: EvaluateSection) -> Task:
    """Build the task from a set and settings.

    Without a vocabulary the names are the classes of the set, or of the split. A vocabulary replaces them: classes it
    does not name are not scored, and names that are not classes still compete.

    Args:
        truth: The set.
        settings: `split`, `vocabulary` and `scoring` are used. With official scoring an LVIS class has its first name
            only, without synonyms, and COCO images without a box of the classes are dropped, as in the paper's files.

    Raises:
        UsageError: Split or vocabulary cannot be read, none of the names is a class of the set, or no image has any.
    """
    split = None if settings.split is None else read_split(settings.split, truth.classes)
    scored = truth.classes if split is None else split.all(truth.classes)
    names = _own_names(truth, scored)
    if settings.vocabulary is not None:
        names = parse_classes(settings.vocabulary)
        known = {folded(label) for label in names.labels}
        scored = tuple(name for name in scored if folded(name) in known)
        if not scored:
            raise unknown_class(names.labels[0], truth.classes, truth.name)
    official = settings.scoring == "official"
    if official and truth.style == "lvis":
        names = Vocabulary(names.labels, tuple(phrases[:1] for phrases in names.phrases), names.distractors)
    if scored != truth.classes:
        truth = truth.subset(scored, drop_empty=official and truth.style == "coco")
    if not len(truth):
        raise UsageError(f"No image of {truth.name} has any of the classes.", "Choose other classes or another set.")
    place = {folded(name): index for index, name in enumerate(truth.classes)}
    classes = np.array([place.get(folded(label), -1) for label in names.labels], np.int64)
    return Task(
        truth=truth,
        names=names,
        classes=classes,
        split=None if split is None else _among(split, truth.classes),
        max_dets=MOST[truth.style] if settings.max_dets is None else settings.max_dets,
    )


def class_name_warnings(truth: DetectionSet, settings: EvaluateSection) -> list[str]:
    """Return warnings about class names that may be misspelt.

    A split may have classes that the set lacks, and a vocabulary may have names that only compete; a misspelt name
    looks like either.
    """
    told = []
    if settings.split is not None and (sentence := left_out_of(settings.split, truth.classes, truth.name)):
        told.append(sentence)
    if settings.vocabulary is not None:
        near = respelt(parse_classes(settings.vocabulary).labels, truth.classes)
        if near:
            told.append(f"Not every name of the vocabulary is a class of {truth.name}.{perhaps(near)}")
    return told


def _own_names(truth: DetectionSet, scored: tuple[str, ...]) -> Vocabulary:
    """Return classes of a set as names, those of LVIS with their synonyms."""
    phrases: dict[str, tuple[str, ...]] = {}
    if truth.style == "lvis":
        listed = parse_classes("@lvis")
        phrases = {folded(label): own for label, own in zip(listed.labels, listed.phrases, strict=True)}
    return Vocabulary(scored, tuple(phrases.get(folded(name), (name,)) for name in scored))


def _among(split: Split, classes: tuple[str, ...]) -> Split:
    """Return a split with these classes only."""
    known = frozenset(classes)
    return Split(
        base=tuple(name for name in split.base if name in known),
        novel=tuple(name for name in split.novel if name in known),
        groups={key: tuple(name for name in names if name in known) for key, names in split.groups.items()},
    )
