"""Boxes that the user brings (`--boxes FILE`): regions to be named, in place of a proposal network's.

Two kinds of JSON are read. The plain one maps an image to its boxes, with or without objectness:

    {"a/1.jpg": [[x1, y1, x2, y2], ...], "2.jpg": {"boxes": [[x1, y1, x2, y2], ...], "scores": [0.9, ...]}}

and COCO's has `images` and `annotations` (boxes as [x, y, width, height], `score` optional).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from regionclip_cli.data.images import safe_name
from regionclip_cli.errors import InputError, MissingError, UsageError, did_you_mean


@dataclass(frozen=True)
class GivenBoxes:
    """The boxes of one image.

    Attributes:
        boxes: (R, 4) float32, xyxy in pixels of the original, upright image.
        scores: (R,) float32 objectness in 0..1, or None where the file has none.
    """

    boxes: np.ndarray
    scores: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of boxes R."""
        return len(self.boxes)

    def within(self, name: str, width: int, height: int) -> tuple[GivenBoxes, int]:
        """Return these boxes clipped to an image of this size, and how many had to be clipped.

        Raises:
            InputError: A box lies outside the image altogether.
        """
        limits = np.array([width, height, width, height], np.float32)
        clipped = np.clip(self.boxes, 0, limits)
        empty = np.flatnonzero((clipped[:, 2] <= clipped[:, 0]) | (clipped[:, 3] <= clipped[:, 1]))
        if len(empty):
            box = [round(float(x), 2) for x in self.boxes[empty[0]]]
            raise InputError(f"{name}: box {empty[0]} {box} lies outside the image of {width} x {height} pixels.")
        return GivenBoxes(clipped, self.scores), int((np.abs(clipped - self.boxes).max(axis=1, initial=0) > 0.5).sum())


NO_BOXES = GivenBoxes(np.zeros((0, 4), np.float32))


@dataclass
class BoxFile:
    """All boxes of a file, found by image name.

    Attributes:
        path: Where they were read, for messages.
        entries: Boxes by the key that the file uses.
    """

    path: Path
    entries: Mapping[str, GivenBoxes]
    _owners: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._keys: dict[str, list[str]] = {}
        for key in self.entries:
            self._keys.setdefault(_posix(key).name, []).append(key)

    def find(self, name: str) -> GivenBoxes:
        """Return the boxes of the image called `name`; no boxes when the file has no entry for it.

        The key may be the path of the image from the working folder, its full path, or the end of either, down to
        the bare file name; the longest such key wins. A longer key fits too when the image's name is the end of it.

        Raises:
            InputError: Several keys fit equally well, or the one that fits belongs to another image already.
        """
        fitting = {key: _overlap(key, name) for key in self._keys.get(PurePosixPath(name).name, [])}
        best = max(fitting.values(), default=0)
        keys = [key for key, overlap in fitting.items() if overlap == best and best > 0]
        if not keys:
            return NO_BOXES
        if len(keys) > 1:
            raise InputError(f"{name} fits {len(keys)} entries of {self.path}: {', '.join(map(repr, keys[:3]))}.")
        owner = self._owners.setdefault(keys[0], name)
        if owner != name:
            raise InputError(f"The entry {keys[0]!r} of {self.path} fits {owner} and {name}; use paths as its keys.")
        return self.entries[keys[0]]

    def unused(self) -> list[str]:
        """Return the keys that no image has asked for yet."""
        return [key for key in self.entries if key not in self._owners]


def _posix(key: str) -> PurePosixPath:
    """Return a key as a path; files that were written on Windows have backslashes."""
    return PurePosixPath(key.replace("\\", "/"))


def _overlap(key: str, name: str) -> int:
    """Return how many path parts a key and an image name share when one is the end of the other, else 0."""
    if safe_name(Path(key)) == name:
        return len(name) + len(key)
    ours, theirs = PurePosixPath(name).parts, _posix(key.lstrip("/")).parts
    shared = min(len(ours), len(theirs))
    return shared if ours[-shared:] == theirs[-shared:] else 0


def read_boxes(path: Path) -> BoxFile:
    """Read a box file of either kind.

    Raises:
        MissingError: There is no such file.
        UsageError: It is not JSON, or an entry of it is wrong; the sentence names the entry.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as err:
        raise MissingError(f"There is no boxes file {path}.") from err
    except OSError as err:
        raise UsageError(f"The boxes file {path} cannot be read: {err.strerror}.") from err
    except (ValueError, RecursionError) as err:
        raise UsageError(f"The boxes file {path} is not JSON: {err}.") from err
    if not isinstance(content, dict):
        raise UsageError(
            f"The boxes file {path} holds a {type(content).__name__}, not an object.",
            'It needs {"image.jpg": [[x1, y1, x2, y2], ...]} or COCO\'s images and annotations.',
        )
    if "images" in content and "annotations" in content:
        return BoxFile(path, _from_coco(path, content))
    return BoxFile(path, {key: _entry(path, key, value) for key, value in content.items()})


def _entry(path: Path, key: str, value: Any) -> GivenBoxes:
    """Check the boxes of one image of a plain file."""
    where = f"{path}: {key!r}"
    scores = None
    if isinstance(value, dict):
        unknown = sorted(set(value) - {"boxes", "scores"})
        if unknown or "boxes" not in value:
            what = f"has an unknown key {unknown[0]!r}" if unknown else 'has no "boxes"'
            raise UsageError(f"{where} {what}.", did_you_mean(unknown[0], ["boxes", "scores"]) if unknown else "")
        value, scores = value["boxes"], value.get("scores")
    if not isinstance(value, list):
        raise UsageError(f"{where} is a {type(value).__name__}, not a list of boxes [x1, y1, x2, y2].")
    boxes = [_box(f"{where}, box {index}", box) for index, box in enumerate(value)]
    if scores is not None and (not isinstance(scores, list) or len(scores) != len(boxes)):
        raise UsageError(f"{where} needs one score for each of its {len(boxes)} boxes.")
    return _pack(where, boxes, scores)


def _from_coco(path: Path, content: dict[str, Any]) -> dict[str, GivenBoxes]:
    """Gather the annotations of a COCO file by file name."""
    images, annotations = content["images"], content["annotations"]
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise UsageError(f"{path}: COCO's images and annotations must be lists.")
    names: dict[Any, str] = {}
    for index, image in enumerate(images):
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str) or "id" not in image:
            raise UsageError(f"{path}: images[{index}] needs an id and a file_name.")
        names[str(image["id"])] = image["file_name"]
    boxes: dict[str, list[list[float]]] = {name: [] for name in names.values()}
    scores: dict[str, list[Any]] = {name: [] for name in names.values()}
    for index, annotation in enumerate(annotations):
        where = f"{path}: annotations[{index}]"
        if not isinstance(annotation, dict) or "bbox" not in annotation:
            raise UsageError(f"{where} has no bbox.")
        name = names.get(str(annotation.get("image_id")))
        if name is None:
            raise UsageError(f"{where} is of an unknown image, image_id {annotation.get('image_id')!r}.")
        x, y, width, height = _numbers(where, annotation["bbox"], "[x, y, width, height]")
        boxes[name].append(_box(where, [x, y, x + width, y + height]))
        if "score" in annotation:
            scores[name].append(annotation["score"])
    mixed = next((name for name in boxes if scores[name] and len(scores[name]) != len(boxes[name])), None)
    if mixed is not None:
        raise UsageError(f"{path}: only some boxes of {mixed!r} have a score.")
    return {name: _pack(f"{path}: {name!r}", boxes[name], scores[name] or None) for name in boxes}


def _numbers(where: str, value: Any, form: str) -> list[float]:
    """Return four finite numbers."""
    fine = isinstance(value, list) and len(value) == 4
    fine = fine and all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in value)
    if not fine:
        raise UsageError(f"{where} is {json.dumps(value)[:80]}, not four numbers {form}.")
    return [float(x) for x in value]


def _box(where: str, value: Any) -> list[float]:
    """Return one box xyxy with a positive area."""
    x1, y1, x2, y2 = _numbers(where, value, "[x1, y1, x2, y2]")
    if x2 <= x1 or y2 <= y1:
        raise UsageError(f"{where} [{x1:g}, {y1:g}, {x2:g}, {y2:g}] is empty: x2 must be above x1 and y2 above y1.")
    return [x1, y1, x2, y2]


def _pack(where: str, boxes: list[list[float]], scores: list[Any] | None) -> GivenBoxes:
    """Make arrays, and see that every score is a number in 0..1."""
    array = np.array(boxes, np.float32).reshape(-1, 4)
    if scores is None:
        return GivenBoxes(array)
    for score in scores:
        if not isinstance(score, int | float) or isinstance(score, bool) or not 0 <= score <= 1:
            raise UsageError(f"{where} has the score {json.dumps(score)}; objectness is a number between 0 and 1.")
    return GivenBoxes(array, np.array(scores, np.float32))
