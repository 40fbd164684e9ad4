"""Predictions from a file: output of `detect`, or a COCO result list; scoring them needs no model.

`detections.jsonl` and `coco.json` name images and classes. A COCO result list has only ids, which must be those of the
annotation file.
"""

from __future__ import annotations

import codecs
import json
from array import array
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from regionclip_cli.data.detection_sets.class_names import folded, unknown_class
from regionclip_cli.data.image_names import ImageNames
from regionclip_cli.data.json_stream import stream_json
from regionclip_cli.errors import InputError, MissingError, UsageError
from regionclip_cli.evaluation.predictions import ImagePrediction
from regionclip_cli.evaluation.task import Task
from regionclip_cli.files import parsing

FORMS = "Supported are detections.jsonl and coco.json of `regionclip detect`, and COCO result lists."


class LoadedPredictions:
    """The predictions in a file, as those of a task.

    Args:
        path: The file.
        task: What is evaluated.

    Attributes:
        unknown_images: Number of images in it that are not in the set.
        unknown_names: Names in it that are not classes of the set.
        missing: Number of images of the set that it does not have.

    Raises:
        MissingError: There is no such file.
        UsageError: Its format is unknown, an entry is wrong, or no class or image in it is known.
    """

    def __init__(self, path: Path, task: Task) -> None:
        self.path, self.task = path, task
        self.unknown_images = 0
        self.unknown_names: set[str] = set()
        self._any_known_name = False
        self._names = {folded(label): index for index, label in enumerate(task.names.labels)}
        self._images = ImageNames(task.truth.columns.names)
        self._whole = None if self._is_lines() else {one.image: one for one in self._grouped()}
        seen = sum(1 for _ in self.read())
        if not seen:
            raise UsageError(f"No image in {path} is in {task.truth.name}.", "Check that it is the right set.")
        if self.unknown_names and not self._any_known_name:
            raise unknown_class(min(self.unknown_names), task.truth.classes, task.truth.name)
        self.missing = len(task.truth) - seen

    def read(self) -> Iterator[ImagePrediction]:
        """Yield the predictions of each image of the set that the file knows, one at a time."""
        if self._whole is not None:
            yield from self._whole.values()
            return
        self.unknown_images = 0
        done: dict[int, int] = {}
        for number, record in self._records():
            where = f"{self.path}:{number}"
            image = self._find(_get(record, "image", str, where), where)
            if image is None:
                self.unknown_images += 1
                continue
            if image in done:
                raise UsageError(f"{where} is about the same image as line {done[image]}.", "Remove one of them.")
            done[image] = number
            found = _get(record, "detections", list, where)
            names = [self._name(_get(one, "label", str, where)) for one in found]
            yield self._prediction(
                image,
                np.array([_box(_get(one, "box", list, where), where) for one in found], np.float32).reshape(-1, 4),
                np.array([_number(_get(one, "score", object, where), where) for one in found], np.float32),
                np.array(names, np.int64),
            )

    def _is_lines(self) -> bool:
        """Return whether the file is JSON Lines: its first line is an object with an `image`."""
        try:
            with self.path.open("rb") as file:
                first = json.loads(file.readline().removeprefix(codecs.BOM_UTF8))
        except FileNotFoundError as err:
            raise MissingError(f"Predictions file not found: {self.path}.") from err
        except OSError as err:
            raise UsageError(f"{self.path} cannot be read: {err.strerror}.") from err
        except (ValueError, RecursionError):
            return False
        return isinstance(first, dict) and "image" in first

    def _records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with self.path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if not text.strip():
                    continue
                with parsing(f"{self.path}:{number} is not JSON", "The run may have been interrupted."):
                    record = json.loads(text.removeprefix(codecs.BOM_UTF8))
                yield number, record

    def _grouped(self) -> Iterator[ImagePrediction]:
        """Read a COCO data set or result list; its entries may be in any order."""
        kinds = {element.key for element in islice(stream_json(self.path), 1)}
        if kinds == {""}:
            if (self.path.parent / "coco.json").exists():
                raise UsageError(
                    f"{self.path} has the ids of the `detect` run that wrote it.",
                    f"Use {self.path.parent / 'coco.json'}, which has the names.",
                )
            listed: dict[int, int | None] = {}
            find_image, find_name = self._by_set_numbers()
        else:
            listed, find_name = self._by_own_numbers()

            def find_image(number: int, where: str) -> int | None:
                return listed.get(number)

        entries = (each for each in stream_json(self.path) if each.key in ("", "annotations"))
        images, names, numbers = array("q"), array("q"), array("d")
        strange = {number for number, image in listed.items() if image is None}
        for element in entries:
            if element.position is None:
                continue
            one, where = element.value, f"{self.path}: {element.key or 'entry'}[{element.position}]"
            image = find_image(_get(one, "image_id", int, where), where)
            if image is None:
                strange.add(one["image_id"])
                continue
            x, y, width, height = _box(_get(one, "bbox", list, where), where)
            images.append(image)
            names.append(find_name(_get(one, "category_id", int, where), where))
            numbers.extend((x, y, x + width, y + height, _number(_get(one, "score", object, where), where)))
        self.unknown_images = len(strange)
        owners, kept = np.array(images, np.int64), np.array(names, np.int64)
        rows = np.array(numbers, np.float64).astype(np.float32).reshape(-1, 5)
        order = np.argsort(owners, kind="stable")
        for rows_of_one in np.split(order, np.flatnonzero(np.diff(owners[order])) + 1) if len(order) else []:
            yield self._prediction(
                int(owners[rows_of_one[0]]), rows[rows_of_one, :4], rows[rows_of_one, 4], kept[rows_of_one]
            )
        for image in sorted({image for image in listed.values() if image is not None} - {*images}):
            yield self._prediction(image, rows[:0, :4], rows[:0, 4], kept[:0])  # processed, without detections

    def _by_own_numbers(self) -> tuple[dict[int, int | None], _FindName]:
        """Return the images of the set by the ids of the file, and a function from its category ids to names.

        Raises:
            UsageError: The file has another format, or two of its images match the same image of the set.
        """
        where, files, labels = str(self.path), {}, {}
        kinds = set()
        for element in stream_json(self.path):
            kinds.add(element.key)
            if element.key == "images" and element.position is not None:
                files[_get(element.value, "id", int, where)] = _get(element.value, "file_name", str, where)
            if element.key == "categories" and element.position is not None:
                labels[_get(element.value, "id", int, where)] = _get(element.value, "name", str, where)
        if not {"images", "categories", "annotations"} <= kinds:
            raise UsageError(f"{self.path} is not a predictions file.", FORMS)
        images: dict[int, int | None] = {}
        first: dict[int, str] = {}
        for number, file in files.items():
            image = images[number] = self._find(file, where)
            if image in first:
                raise UsageError(
                    f"{where}: {first[image]!r} and {file!r} match the same image of the set.", "Remove one."
                )
            if image is not None:
                first[image] = file
        names = {number: self._name(label) for number, label in labels.items()}

        def name(number: int, where: str) -> int:
            if number not in names:
                raise UsageError(f"{where} has an unknown category id {number}.")
            return names[number]

        return images, name

    def _by_set_numbers(self) -> tuple[_Find, _FindName]:
        """Return functions from image and category ids of the annotation file to images and names."""
        truth = self.task.truth
        names = {number: self._name(label) for number, label in zip(truth.category_ids, truth.classes, strict=True)}
        return (
            lambda number, where: number if number in truth.places_by_id else None,
            lambda number, where: names.get(number, -1),
        )

    def _find(self, name: str, where: str) -> int | None:
        """Return the id of an image of the set, None if it is not there.

        Raises:
            UsageError: Several images match equally well.
        """
        try:
            place = self._images.find(name)
        except InputError as err:
            raise UsageError(f"{where}: {err.message}", err.hint) from err
        return None if place is None else int(self.task.truth.columns.ids[place])

    def _name(self, label: str) -> int:
        """Return the index of a name in the task, -1 if it is not there."""
        index = self._names.get(folded(label), -1)
        if index < 0:
            self.unknown_names.add(label)
        else:
            self._any_known_name = True
        return index

    def _prediction(self, image: int, boxes: np.ndarray, scores: np.ndarray, names: np.ndarray) -> ImagePrediction:
        return ImagePrediction(image, boxes, scores, names).select(names >= 0)


_Find = Callable[[int, str], int | None]
_FindName = Callable[[int, str], int]


def _get(entry: Any, key: str, kind: type, where: str) -> Any:
    """Return a required value of an entry."""
    if not isinstance(entry, dict) or not isinstance(entry.get(key), kind) or entry.get(key) is None:
        raise UsageError(f"{where} has no valid {key!r}.", FORMS)
    return entry[key]


def _box(value: list[Any], where: str) -> tuple[float, float, float, float]:
    if len(value) != 4:
        raise UsageError(f"{where} has a box of {len(value)} numbers; four are needed.")
    a, b, c, d = (_number(each, where) for each in value)
    return a, b, c, d


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise UsageError(f"{where} has {value!r} instead of a number.")
    return float(value)
