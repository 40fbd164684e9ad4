"""The training and validation photos, their boxes and names, read from the folders that README.md describes.

Labels are partial: each source knows some things and not others. COCO's photos name every object of 80 classes; the
photos of `boxed/` name what they were made for; the rest has the boxes of a YOLOX-Nano (`pseudo-boxes/`), sure ones as
objects, with a COCO name where that is sure too, weaker ones as regions to ignore.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

CALTECH_NAMES = {
    "Faces": "human face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "airplanes": "airplane",
    "cougar body": "cougar",
    "cougar face": "cougar",
    "car side": "car",
}
CALTECH_SKIP = {"BACKGROUND_Google", "Faces", "Faces_easy"}
SURE, WEAK, NAMED = 0.3, 0.08, 0.35
"""Objectness of a pseudo-box that is an object, of one to ignore; objectness x name score of a sure name."""


@dataclass
class Photo:
    """One photo with what is known about it.

    Attributes:
        path: The file.
        source: The folder it comes from.
        boxes: (N, 4) float32 xyxy of the objects, in pixels of the file.
        names: Name of each object, or None.
        coarse: A COCO name above a finer one, or None.
        weights: (N,) how sure each name is, 0..1.
        ignored: (M, 4) regions that may show an object.
        exhaustive: Whether every object of COCO's 80 classes has a box.
        narrow: Whether the photo is one of many alike.
        captions: What is said about the whole photo.
        size: Width and height in pixels where the annotations tell them.
    """

    path: Path
    source: str
    boxes: np.ndarray
    names: list[str | None]
    coarse: list[str | None]
    weights: np.ndarray
    ignored: np.ndarray
    exhaustive: bool = False
    narrow: bool = False
    captions: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def coco_names(data: Path) -> list[str]:
    """Return COCO's 80 names in the order of their ids."""
    book = json.loads((data / "coco-mini/annotations/instances_val.json").read_text())
    return [each["name"] for each in sorted(book["categories"], key=lambda each: each["id"])]


def coco(data: Path, part: str) -> list[Photo]:
    """Return the photos of coco-mini `part` (train or val) with their named boxes; crowds are ignored regions."""
    root = data / "coco-mini"
    book = json.loads((root / "annotations" / f"instances_{part}.json").read_text())
    found = [_annotated(root / part / image["file_name"], "coco", image, notes) for image, notes in _by_image(book)]
    pseudo = _pseudo_boxes(data, "coco-mini-train") if part == "train" else {}
    for photo in found:
        photo.exhaustive = True
        row = pseudo.get(f"train/{photo.path.name}")
        if row is not None:  # things outside COCO's classes are no background
            boxes, objectness = _boxes(row["boxes"]), np.array(row["objectness"])
            apart = (objectness > 0.5) & (_largest_iou(boxes, photo.boxes) < 0.5)
            photo.ignored = np.concatenate([photo.ignored, boxes[apart]])
    return found


def boxed(data: Path) -> list[Photo]:
    """Return the photos of `boxed/`; objects that it does not name come from the pseudo-boxes."""
    book = json.loads((data / "boxed/instances.json").read_text())
    pseudo, found = _pseudo_boxes(data, "boxed"), []
    for image, notes in _by_image(book):
        photo = _annotated(data / "boxed/images" / image["file_name"], "boxed", image, notes)
        photo.exhaustive, photo.narrow = len(image["exhaustive"]) >= 80, image["quality"] == "narrow"
        row = pseudo.get(f"images/{image['file_name']}")
        if row is not None and not photo.exhaustive:
            _add_pseudo_boxes(photo, row)
        found.append(photo)
    return found


def labelled(data: Path, name: str) -> list[Photo]:
    """Return the photos of `imagenet-sample` or `caltech101-sample`; the surest box carries the photo's label."""
    pseudo, found = _pseudo_boxes(data, name), []
    for row in read_jsonl(data / name / "labels.jsonl"):
        boxes = pseudo.get(row["image"])
        if row["label"] in CALTECH_SKIP or boxes is None:
            continue
        words = row["label"].replace("_", " ")
        label = CALTECH_NAMES.get(words, words)
        photo = _empty(data / name / row["image"], name)
        photo.captions = [label]
        _add_pseudo_boxes(photo, boxes)
        if len(photo.boxes) and boxes["objectness"][0] > SURE:
            photo.coarse[0] = photo.names[0] if photo.names[0] != label else None
            photo.names[0], photo.weights[0] = label, 1
        found.append(photo)
    return found


def captioned(data: Path) -> list[Photo]:
    """Return the photos of flickr8k-1000 with pseudo-boxes and captions."""
    pseudo, found = _pseudo_boxes(data, "flickr8k-1000"), []
    for row in read_jsonl(data / "flickr8k-1000" / "captions.jsonl"):
        if row["image"] in pseudo:
            photo = _empty(data / "flickr8k-1000" / row["image"], "flickr8k-1000")
            photo.captions = row["captions"]
            _add_pseudo_boxes(photo, pseudo[row["image"]])
            found.append(photo)
    return found


def training(data: Path) -> tuple[list[Photo], list[Photo]]:
    """Return the photos to learn from, and 120 fully labelled ones that are kept back for choices (the dev split)."""
    photos = [
        *coco(data, "train"),
        *boxed(data),
        *labelled(data, "imagenet-sample"),
        *labelled(data, "caltech101-sample"),
        *captioned(data),
    ]
    rng, dev = np.random.default_rng(7), set()
    for source in ("coco", "boxed"):
        whole = [i for i, photo in enumerate(photos) if photo.source == source and photo.exhaustive]
        dev |= set(rng.permutation(whole)[:60].tolist())
    return [p for i, p in enumerate(photos) if i not in dev and len(p.boxes)], [photos[i] for i in sorted(dev)]


def clip_vectors(data: Path) -> tuple[list[str], np.ndarray]:
    """Return names and their CLIP ViT-B/32 text vectors (N, 512) of COCO, LVIS, Objects365 and OpenImages."""
    folder = data / "clip-text"
    lvis = json.loads((data / "lvis/lvis_v1_categories.json").read_text())
    lists = {
        "coco": coco_names(data),
        "lvis_v1": [plain(c["name"]) for c in sorted(lvis, key=lambda c: c["id"])],
        "o365": (folder / "o365_names.txt").read_text().splitlines(),
        "oid": (folder / "oid_names.txt").read_text().splitlines(),
    }
    names: list[str] = []
    rows = []
    for key, words in lists.items():
        vectors = np.load(folder / f"{key}.npy").astype(np.float32)
        if len(words) != len(vectors):
            raise SystemExit(f"{key}: {len(words)} names but {len(vectors)} vectors")
        names += [w.strip().lower() for w in words]
        rows.append(vectors)
    return names, np.concatenate(rows)


def plain(name: str) -> str:
    """Return an LVIS name as words: underscores to spaces, brackets left out.

    >>> plain("bow_(decorative_ribbons)")
    'bow decorative ribbons'
    """
    return name.replace("_", " ").replace("(", "").replace(")", "").strip().lower()


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the overlap (N, M) of boxes (N, 4) and (M, 4)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (a, b)]
    return shared / np.maximum(area[0][:, None] + area[1][None] - shared, 1e-9)


def _empty(path: Path, source: str) -> Photo:
    none = np.zeros((0, 4), np.float32)
    return Photo(path, source, none, [], [], np.zeros(0, np.float32), none)


def _boxes(given: list[list[float]]) -> np.ndarray:
    return np.array(given, np.float32).reshape(-1, 4)


def _by_image(book: dict[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Return each image with its annotations, which carry their category's name."""
    names = {each["id"]: each["name"] for each in book["categories"]}
    notes: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in book["images"]}
    for note in book["annotations"]:
        if min(note["bbox"][2:]) > 1:
            notes[note["image_id"]].append(note | {"name": names[note["category_id"]]})
    return [(image, notes[image["id"]]) for image in book["images"]]


def _annotated(path: Path, source: str, image: dict[str, Any], notes: list[dict[str, Any]]) -> Photo:
    objects = [note for note in notes if not note.get("iscrowd")]
    corners = [
        _boxes([[x, y, x + w, y + h] for x, y, w, h in (note["bbox"] for note in some)])
        for some in (objects, [note for note in notes if note.get("iscrowd")])
    ]
    return Photo(
        path,
        source,
        corners[0],
        [note["name"] for note in objects],
        [note.get("coarse") for note in objects],
        np.ones(len(objects), np.float32),
        corners[1],
        size=(image["width"], image["height"]),
    )


def _pseudo_boxes(data: Path, name: str) -> dict[str, dict[str, Any]]:
    return {row["image"]: row for row in read_jsonl(data / "pseudo-boxes" / f"{name}.jsonl")}


def _largest_iou(boxes: np.ndarray, known: np.ndarray) -> np.ndarray:
    return iou(boxes, known).max(axis=1) if len(known) else np.zeros(len(boxes))


def _add_pseudo_boxes(photo: Photo, row: dict[str, Any]) -> None:
    """Add what overlaps no known object: sure boxes as objects, with a sure name or none, weak ones as ignored."""
    weak = []
    for box, objectness, name, score in zip(
        _boxes(row["boxes"]), row["objectness"], row["names"], row["name_scores"], strict=True
    ):
        if _largest_iou(box[None], photo.boxes)[0] > 0.5:
            continue
        if objectness >= SURE:
            known = objectness * score >= NAMED
            photo.boxes = np.concatenate([photo.boxes, box[None]])
            photo.names.append(name if known else None)
            photo.coarse.append(None)
            photo.weights = np.append(photo.weights, np.float32(objectness * score if known else 0))
        elif objectness >= WEAK:
            weak.append(box)
    photo.ignored = np.concatenate([photo.ignored, _boxes(weak)])
