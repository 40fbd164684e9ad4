"""Where the training data lies, and how each source is read.

Everything below takes `--data DIR`, a folder with `coco-mini/`, `imagenet-sample/`, `caltech101-sample/`,
`flickr8k-1000/`, `pseudo-boxes/`, `captions/`, `clip-text/` and `lvis/`; README.md says what each holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

CALTECH_NAMES = {"Faces": "human face", "Faces_easy": "human face", "Leopards": "leopard", "Motorbikes": "motorbike"}
CALTECH_SKIP = {"BACKGROUND_Google"}


@dataclass
class Photo:
    """One training photo: its boxes (R, 4) xyxy in file pixels, a name or None for each, objectness, captions."""

    path: Path
    boxes: np.ndarray
    names: list[str | None]
    objectness: np.ndarray
    captions: list[str] = field(default_factory=list)
    source: str = ""


def read_jsonl(path: Path) -> list[dict]:
    """Return the objects of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def coco(data: Path, part: str) -> list[Photo]:
    """Return the photos of coco-mini `part` (train or val) with their named boxes; crowds are left out."""
    root = data / "coco-mini"
    book = json.loads((root / "annotations" / f"instances_{part}.json").read_text())
    names = {c["id"]: c["name"] for c in book["categories"]}
    by_image: dict[int, list[dict]] = {image["id"]: [] for image in book["images"]}
    for note in book["annotations"]:
        if not note["iscrowd"] and min(note["bbox"][2:]) > 1:
            by_image[note["image_id"]].append(note)
    photos = []
    for image in book["images"]:
        notes = by_image[image["id"]]
        xywh = np.array([n["bbox"] for n in notes], np.float32).reshape(-1, 4)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
        labels: list[str | None] = [names[n["category_id"]] for n in notes]
        photos.append(Photo(root / part / image["file_name"], boxes, labels, np.ones(len(boxes)), source="coco"))
    return photos


def pseudo_boxes(data: Path, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return {image: (boxes (K, 4) xyxy, objectness (K,))} of one pseudo-box file."""
    rows = read_jsonl(data / "pseudo-boxes" / f"{name}.jsonl")
    return {r["image"]: (np.array(r["boxes"], np.float32).reshape(-1, 4), np.array(r["objectness"])) for r in rows}


def labelled(data: Path, name: str) -> list[Photo]:
    """Return the photos of `imagenet-sample` or `caltech101-sample`; the surest box carries the photo's label."""
    boxes = pseudo_boxes(data, name)
    photos = []
    for row in read_jsonl(data / name / "labels.jsonl"):
        label = CALTECH_NAMES.get(row["label"], row["label"].replace("_", " "))
        if row["label"] in CALTECH_SKIP:
            continue
        found, objectness = boxes.get(row["image"], (np.zeros((0, 4), np.float32), np.zeros(0)))
        names: list[str | None] = [None] * len(found)
        if len(found) and objectness[0] > 0.3:
            names[0] = label
        photos.append(Photo(data / name / row["image"], found, names, objectness, [label], name))
    return photos


def captioned(data: Path) -> list[Photo]:
    """Return the photos of flickr8k-1000 with pseudo boxes (nameless) and captions."""
    boxes = pseudo_boxes(data, "flickr8k-1000")
    photos = []
    for row in read_jsonl(data / "flickr8k-1000" / "captions.jsonl"):
        found, objectness = boxes.get(row["image"], (np.zeros((0, 4), np.float32), np.zeros(0)))
        path = data / "flickr8k-1000" / row["image"]
        photos.append(Photo(path, found, [None] * len(found), objectness, row["captions"], "flickr"))
    return photos


def clip_vectors(data: Path) -> tuple[list[str], np.ndarray]:
    """Return names and their CLIP ViT-B/32 text vectors (N, 512) of COCO, LVIS, Objects365 and OpenImages."""
    folder = data / "clip-text"
    coco_names = json.loads((data / "coco-mini/annotations/instances_val.json").read_text())["categories"]
    lvis = json.loads((data / "lvis/lvis_v1_categories.json").read_text())
    lists = {
        "coco": [c["name"] for c in sorted(coco_names, key=lambda c: c["id"])],
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
    """Return an LVIS name as words: underscores to spaces, "(qualifier)" moved to the front.

    >>> plain("bow_(decorative_ribbons)")
    'bow decorative ribbons'
    """
    return name.replace("_", " ").replace("(", "").replace(")", "").strip().lower()
