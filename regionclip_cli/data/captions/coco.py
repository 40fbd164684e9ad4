"""COCO's caption files: `images` with ids and file names, `annotations` with a caption each.

The file is read an element at a time. Kept of it are file names and captions, packed: 40 MB for all of COCO.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from regionclip_cli.data.captions.base import (
    PackedTexts,
    Pair,
    PairSet,
    expand,
    fingerprint,
    key_hash,
    read_image_file,
    require_folder,
)
from regionclip_cli.data.json_stream import stream_json
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.recipe.schema import CaptionData

_EXAMPLE = "COCO's caption files have `images` with id and file_name, and `annotations` with image_id and caption."


class CocoPairs(PairSet):
    """The images of COCO caption files that have a caption, in the order of `images`.

    Args:
        data: The source: files, the folder of the images, a limit.

    Raises:
        MissingError: A file or the folder is not there, or none of the first images is.
        UsageError: The file is not JSON, or no caption file; an entry is wrong; the folder is not named.
    """

    def __init__(self, data: CaptionData) -> None:
        files = expand(data.paths())
        if data.images is None:
            raise UsageError(f"The folder of the images of {files[0]} is not named.", "Set `images`.")
        self._folder = require_folder(data.images)
        self.fingerprint = fingerprint(files, "coco-captions", data.images, data.limit)
        names: list[str] = []
        texts: list[str] = []
        owners = []
        for path in files:
            ids, own_names = _images(path)
            owned, captions = _captions(path, ids)
            owners.append(owned + len(names))
            names += own_names
            texts += captions
        owner = np.concatenate(owners)  # (captions,) the image of each
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=len(names))
        with_caption = np.flatnonzero(counts)[: data.limit]
        self._names = PackedTexts(names[index] for index in with_caption)
        self._texts = PackedTexts(texts[index] for index in order)  # those of one image stand together
        starts = np.append(0, np.cumsum(counts))
        self._starts, self._ends = starts[:-1][with_caption], starts[1:][with_caption]
        self._hashes = np.array([key_hash(names[index]) for index in with_caption], np.uint64)
        if not any((self._folder / self._names[index]).is_file() for index in range(min(5, len(self)))):
            raise MissingError(f"The images of {files[0]} are not in {data.images}: {self._names[0]} is the first.")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._names)

    def key(self, index: int) -> str:
        """Return the file name."""
        return self._names[index]

    def pair(self, index: int) -> Pair:
        """Return an image with all its captions."""
        key = self._names[index]
        captions = tuple(self._texts[at] for at in range(self._starts[index], self._ends[index]))
        return Pair(key, captions, partial(read_image_file, self._folder / key, key))

    def key_hashes(self) -> np.ndarray:
        """Return (len,) uint64."""
        return self._hashes


def stream_coco(data: CaptionData) -> Iterator[str]:
    """Yield the captions of COCO caption files in the order of `annotations`.

    With a limit, they are those of the images that `CocoPairs` has with it: the first ones of `images`.

    Raises:
        MissingError: A file is not there.
        UsageError: It is not JSON, or no caption file.
    """
    left = data.limit
    for path in expand(data.paths()):
        if left is None:
            yield from (caption for _, caption in _annotations(path))
        elif left:
            chosen = _first(path, left)
            left -= len(chosen)
            yield from (caption for image, caption in _annotations(path) if image in chosen)


def _first(path: Path, most: int) -> set[int]:
    """Return the ids of the first images of a file that have a caption, at most so many."""
    ids, _ = _images(path)
    captioned = np.fromiter((image for image, _ in _annotations(path)), np.int64)
    return set(ids[np.isin(ids, captioned)][:most].tolist())


def _images(path: Path) -> tuple[np.ndarray, list[str]]:
    """Return the ids (n,) int64 and the file names of `images`."""
    ids, names = array("q"), []
    for element in stream_json(path):
        if element.key != "images" or element.position is None:
            continue
        image, where = element.value, f"{path}: images[{element.position}]"
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str) or not _is_id(image.get("id")):
            raise UsageError(f"{where} needs a whole number `id` and a `file_name`.", _EXAMPLE)
        ids.append(image["id"])
        names.append(image["file_name"])
    if not names:
        raise UsageError(f"{path} has no `images`.", _EXAMPLE)
    found = np.array(ids, np.int64)
    values, counts = np.unique(found, return_counts=True)
    if len(values) < len(found):
        raise UsageError(f"{path}: two images have the id {values[counts > 1][0]}.")
    return found, names


def _captions(path: Path, ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return for each caption the place of its image in `ids`, (n,) int64, and the captions."""
    owners, texts = array("q"), []
    for image, caption in _annotations(path):
        owners.append(image)
        texts.append(caption)
    order = np.argsort(ids, kind="stable")
    wanted = np.array(owners, np.int64)
    place = np.searchsorted(ids[order], wanted)
    place[place == len(ids)] = 0
    unknown = np.flatnonzero(ids[order][place] != wanted)
    if len(unknown):
        raise UsageError(
            f"{path}: the caption {texts[unknown[0]]!r} is of an image {wanted[unknown[0]]} that is not there."
        )
    return order[place], texts


def _annotations(path: Path) -> Iterator[tuple[int, str]]:
    """Yield image id and caption of every annotation whose caption is not empty."""
    found = False
    for element in stream_json(path):
        if element.key != "annotations" or element.position is None:
            continue
        entry, where = element.value, f"{path}: annotations[{element.position}]"
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("caption"), str)
            or not _is_id(entry.get("image_id"))
        ):
            boxes = isinstance(entry, dict) and "bbox" in entry
            hint = "It has boxes: captions are in captions_*.json." if boxes else _EXAMPLE
            raise UsageError(f"{where} needs a whole number `image_id` and a `caption`.", hint)
        if entry["caption"].strip():
            found = True
            yield entry["image_id"], " ".join(entry["caption"].split())
    if not found:
        raise UsageError(f"{path} has no captions.", _EXAMPLE)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62
