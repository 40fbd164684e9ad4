"""From the entries of an annotation file to a detection set: ids looked up, boxes and image files checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regionclip_cli.data.detection_sets.annotations import Raw, Style, read_annotations, read_segmentations
from regionclip_cli.data.detection_sets.class_names import lvis_words
from regionclip_cli.data.detection_sets.detection_set import Columns, DetectionSet, Lists, Segmentation
from regionclip_cli.data.detection_sets.other_formats import READERS, Part, Request, check_options, collect
from regionclip_cli.data.detection_sets.validation import Problems
from regionclip_cli.errors import InputError, MissingError, UsageError
from regionclip_cli.files import user_path
from regionclip_cli.language import vocabularies
from regionclip_cli.recipe.schema import DetectionData

OVERHANG = 1.0
"""Pixels that a box may reach beyond its image: annotation tools round. It is clipped then."""


@dataclass(frozen=True, eq=False)
class FileSource:
    """An annotation file and a folder of images.

    Attributes:
        annotations: The file.
        folder: The folder of images; None when no pixels are needed.
        files: Path of each image below the folder.
        spans: (N, 2) int64, byte offsets of each annotation in the file.
        segmented: Whether the file can have segmentations.
    """

    annotations: Path
    folder: Path | None
    files: tuple[str, ...]
    spans: np.ndarray
    segmented: bool = True

    def path(self, image: int) -> Path | None:
        """Return the file of an image."""
        return None if self.folder is None else self.folder / self.files[image]

    def read(self, image: int) -> bytes:
        """Return the encoded image.

        Raises:
            InputError: It cannot be read, or no folder of images was named.
        """
        path = self.path(image)
        if path is None:
            raise InputError(f"{self.files[image]}: no folder of images was named.", "Name it with --images.")
        try:
            return path.read_bytes()
        except OSError as err:
            raise InputError(f"{path} cannot be read: {err.strerror}.") from err

    def segmentations(self, annotations: np.ndarray) -> list[Segmentation] | None:
        """Return the segmentations of annotations; None when none of them has one."""
        if not self.segmented:
            return None
        found = read_segmentations(self.annotations, self.spans[annotations])
        return found if any(each is not None for each in found) or not found else None


def open_coco(path: Path, folder: Path | None, style: Style, lenient: bool, limit: int | None) -> DetectionSet:
    """Open a COCO or LVIS file; see `open_detection_set`."""
    problems = Problems(path)
    raw = read_annotations(path, style, problems)
    return _detection_set(raw, path, folder, style, lenient, limit, problems)


def open_other(data: DetectionData, part: Part) -> DetectionSet:
    """Open annotations in one of `other_formats.READERS`; see `open_detection_set`."""
    if data.annotations is None:
        raise UsageError(f"The dataset format {data.dataset} needs annotations.", "Name them with --annotations.")
    path = user_path(data.annotations)
    if not path.exists():
        raise MissingError(f"Annotations not found: {path}.", "Check --annotations.")
    problems = Problems(path)
    folder = None if data.images is None else user_path(data.images)
    _check_image_folder(folder)
    check_options(data.dataset, data.options)
    found = READERS[data.dataset](Request(path, folder, part, data.options, problems))
    raw = collect(found, problems)
    return _detection_set(raw, path, found.folder, "coco", data.lenient, data.limit, problems, segmented=False)


def _check_image_folder(folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        raise MissingError(f"There is no folder of images {folder}.", "Name it with --images.")


def _detection_set(
    raw: Raw,
    path: Path,
    folder: Path | None,
    style: Style,
    lenient: bool,
    limit: int | None,
    problems: Problems,
    segmented: bool = True,
) -> DetectionSet:
    if not raw.categories:
        problems.settle(lenient)
        raise UsageError(f"{path} has no categories.")
    _check_image_folder(folder)
    kept, files = _present(raw, folder, limit, problems)
    category_ids = sorted(raw.categories)
    names = tuple(raw.categories[number][0] for number in category_ids)
    columns = _columns(raw, kept, np.array(category_ids), problems)
    problems.settle(lenient)
    frequencies = _frequencies(raw, category_ids, names) if style == "lvis" else None
    source = FileSource(path, folder, tuple(files), np.array(raw.spans, np.int64).reshape(-1, 2), segmented)
    return DetectionSet(
        name=path.name,
        style=style,
        classes=lvis_words(names) if style == "lvis" else names,
        category_ids=tuple(category_ids),
        frequencies=frequencies,
        columns=columns,
        source=source,
        problems=problems.sentences(),
        dropped=problems.count,
    )


def _present(raw: Raw, folder: Path | None, limit: int | None, problems: Problems) -> tuple[np.ndarray, list[str]]:
    """Return the places of the images whose file is there, and the path of each below the folder."""
    places: list[int] = []
    files: list[str] = []
    for place, name in enumerate(raw.names):
        if limit is not None and len(places) == limit:
            break
        found = name if folder is None else _find(folder, name)
        if found is None:
            problems.add(f"the file {name} of image {raw.image_ids[place]} is not in {folder}.")
            raw.bad_images.add(raw.image_ids[place])
            continue
        places.append(place)
        files.append(found)
    if raw.names and not places:
        raise MissingError(f"None of the {len(raw.names):,} images of {problems.source} is in {folder}.")
    return np.array(places, np.int64), files


def _find(folder: Path, name: str) -> str | None:
    """Return the path of an image below the folder: as the file has it, or without its own folder."""
    for candidate in (name, name.rpartition("/")[2]):
        if (folder / candidate).is_file():
            return candidate
    return None


def _columns(raw: Raw, kept: np.ndarray, category_ids: np.ndarray, problems: Problems) -> Columns:
    """Look up images and categories, and check what needs both."""
    all_ids, ids = np.array(raw.image_ids, np.int64), np.array(raw.ids, np.int64)
    image_ids, sizes = all_ids[kept], np.array(raw.sizes, np.int32).reshape(-1, 2)[kept]
    owner, category = np.array(raw.owners, np.int64), np.array(raw.category_ids, np.int64)
    xywh = np.array(raw.xywh, np.float64).reshape(-1, 4)
    image, label = _lookup(owner, image_ids), _lookup(category, category_ids)
    fine = np.ones(len(ids), bool)

    def refuse(wrong: np.ndarray, say: str) -> None:
        for row in np.flatnonzero(wrong & fine).tolist():
            values = {"image": owner[row], "category": category[row], "box": _round(xywh[row])}
            values["size"] = " x ".join(map(str, sizes[image[row]])) if image[row] >= 0 else ""
            problems.add(f"{raw.describe(raw.indices[row])} (id {ids[row]}) {say.format(**values)}.")
        fine[wrong] = False

    # What hangs on an entry that was left out goes with it, and is not told again.
    gone = np.isin(owner, list(raw.bad_images)) & (image < 0)
    gone |= np.isin(category, list(raw.bad_categories)) & (label < 0)
    unused = np.isin(owner, all_ids) & (image < 0)
    fine &= ~(gone | unused)
    refuse(_repeated(ids), "has the id of an earlier annotation")
    refuse(image < 0, "is of the image {image}, which is not in the file")
    refuse(label < 0, "is of the category {category}, which is not in the file")
    limits: np.ndarray = sizes[np.maximum(image, 0)] if len(sizes) else np.zeros((len(ids), 2))
    ends = xywh[:, :2] + xywh[:, 2:]
    beyond = np.any(np.concatenate([xywh[:, :2] < -OVERHANG, ends > limits + OVERHANG], axis=1), axis=1)
    beyond |= np.any(np.concatenate([xywh[:, :2] >= limits, ends <= 0], axis=1), axis=1)
    refuse(beyond, "has the bbox {box}, which leaves the image {image} of {size} pixels")
    rows = np.flatnonzero(fine)
    return Columns(
        ids=image_ids,
        names=tuple(raw.names[place] for place in kept),
        sizes=sizes,
        places=np.arange(len(kept)),
        objects=Lists.of(image[rows], rows, len(kept)),
        labels=label,
        xywh=xywh,
        area=np.array(raw.area, np.float64),
        crowd=np.array(raw.crowd, bool),
        rows=np.arange(len(ids)),
        neg=_labels(raw.absent, image_ids, category_ids),
        not_exhaustive=_labels(raw.partial, image_ids, category_ids),
    )


def _lookup(wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the place of each wanted number among the known ones, -1 where there is none."""
    if not len(known):
        return np.full(len(wanted), -1)
    order = np.argsort(known)
    at = order[np.searchsorted(known[order], wanted).clip(max=len(known) - 1)]
    return np.where(known[at] == wanted, at, -1)


def _repeated(ids: np.ndarray) -> np.ndarray:
    """Say of each id whether it came before."""
    _, first = np.unique(ids, return_index=True)
    repeated = np.ones(len(ids), bool)
    repeated[first] = False
    return repeated


def _labels(pairs: object, image_ids: np.ndarray, category_ids: np.ndarray) -> Lists:
    """Gather pairs of image id and category id as labels by image; what is unknown is left out."""
    both = np.array(pairs, np.int64).reshape(-1, 2)
    image, label = _lookup(both[:, 0], image_ids), _lookup(both[:, 1], category_ids)
    fine = (image >= 0) & (label >= 0)
    return Lists.of(image[fine], label[fine], len(image_ids))


def _frequencies(raw: Raw, category_ids: list[int], names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the frequency groups that the file tells, or else those of LVIS v1 where it has all the names."""
    told = tuple(raw.categories[number][1] for number in category_ids)
    if all(told):
        return told
    known = dict(zip(vocabularies.lvis_labels(), vocabularies.lvis_frequencies(), strict=True))
    return tuple(known[name] for name in names) if all(name in known for name in names) else None


def _round(box: np.ndarray) -> str:
    return "[" + ", ".join(f"{x:.6g}" for x in box) + "]"
