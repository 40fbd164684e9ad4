"""Small annotation files of COCO's and LVIS's form, and detections of what is in them, drawn from a seed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from regionclip_cli.data.detection_sets import DetectionSet, open_detection_set
from regionclip_cli.evaluation.predictions import ImagePrediction
from regionclip_cli.recipe.schema import DetectionData

CONTENT: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80},
        {"id": 3, "file_name": "b.jpg", "width": 60, "height": 50},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 5, "bbox": [10, 20, 30, 40], "area": 900.5, "iscrowd": 0},
        {"id": 2, "image_id": 3, "category_id": 2, "bbox": [0, 0, 60.5, 50], "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 2, "bbox": [50, 10, 20, 20], "area": 400},
    ],
    "categories": [{"id": 5, "name": "tea kettle"}, {"id": 2, "name": "Cat"}, {"id": 9, "name": "dog"}],
}
"""Two images, three boxes (one a crowd), three classes, ids in no order."""


def content() -> dict[str, Any]:
    """Return a copy to change."""
    return copy.deepcopy(CONTENT)


def write(path: Path, value: Any) -> Path:
    """Write JSON and return the path."""
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def open_content(path: Path, value: Any, **settings: Any) -> DetectionSet:
    """Write an annotation file and open it."""
    return open_detection_set(DetectionData(annotations=str(write(path, value)), **settings))


def random_content(seed: int, images: int = 30, classes: int = 6, lvis: bool = False) -> dict[str, Any]:
    """Draw an annotation file with objects of all sizes, crowds (COCO), masks smaller than boxes, and empty images.

    The last class has no object.
    """
    chance = np.random.default_rng(seed)
    made: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    for label in range(classes):
        made["categories"].append({"id": 3 * label + 1, "name": f"class {label}"})
        if lvis:
            made["categories"][-1]["frequency"] = "rcf"[label % 3]
    numbers = chance.permutation(images) * 11 + 5
    for number in numbers.tolist():
        image: dict[str, Any] = {"id": number, "width": 640, "height": 480, "file_name": f"{number:06}.jpg"}
        present = set()
        for _ in range(int(chance.integers(0, 7))):
            label = int(chance.integers(0, classes - 1))
            width, height = (float(side) for side in np.exp(chance.uniform(2, 5.5, 2)).round(2))
            left, top = float(chance.uniform(0, 640 - width)), float(chance.uniform(0, 480 - height))
            present.add(label)
            made["annotations"].append(
                {
                    **{"id": len(made["annotations"]) + 1, "image_id": number, "category_id": 3 * label + 1},
                    **{"bbox": [left, top, width, height], "area": width * height * float(chance.uniform(0.3, 1))},
                    "iscrowd": int(not lvis and chance.random() < 0.15),
                }
            )
        if lvis:
            absent = [label for label in range(classes) if label not in present]
            image["neg_category_ids"] = [3 * label + 1 for label in absent if chance.random() < 0.4]
            image["not_exhaustive_category_ids"] = [3 * label + 1 for label in present if chance.random() < 0.3]
        made["images"].append(image)
    return made


def random_found(truth: DetectionSet, seed: int, false: int = 6) -> dict[int, ImagePrediction]:
    """Draw detections near the objects and elsewhere, some with other labels, many with equal scores.

    One image of seven has none.
    """
    chance = np.random.default_rng(seed)
    found = {}
    for image in truth:
        if image.id % 7 == 3:
            continue
        repeats = np.repeat(np.arange(len(image)), chance.integers(0, 4, len(image)))
        boxes = image.boxes[repeats].astype(np.float64)
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        boxes += chance.normal(0, 0.08, boxes.shape) * sides
        corners = chance.uniform(0, 400, (false, 2))
        wild = np.concatenate([corners, corners + chance.uniform(2, 200, (false, 2))], axis=1)
        labels = np.concatenate([image.labels[repeats], chance.integers(0, len(truth.classes), false)])
        swapped = chance.random(len(labels)) < 0.2
        labels[swapped] = chance.integers(0, len(truth.classes), swapped.sum())
        boxes = np.concatenate([boxes, wild])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        found[image.id] = ImagePrediction(image.id, boxes, chance.random(len(labels)).round(1), labels)
    return found
