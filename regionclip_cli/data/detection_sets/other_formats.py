"""Annotations in formats other than COCO's: Pascal VOC, YOLO, CVAT, Label Studio and Open Images.

A reader yields one `AnnotatedImage` per image; `collect` turns them into the columns of an annotation file, so that
every format passes the same checks.
"""

from __future__ import annotations

import csv
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

import yaml

from regionclip_cli.data.detection_sets.annotations import Raw
from regionclip_cli.data.detection_sets.validation import Problems, Wrong, shown
from regionclip_cli.data.images import IMAGE_SUFFIXES
from regionclip_cli.data.pixels import upright_size
from regionclip_cli.errors import MissingError, UsageError, did_you_mean
from regionclip_cli.files import parsing, user_path

Part = Literal["train", "val"]


class Box(NamedTuple):
    """One annotated object.

    Attributes:
        label: Class name.
        corners: x1, y1, x2, y2: in pixels, or in 0..1 if `AnnotatedImage.relative`.
        crowd: Whether the box covers several objects or is too hard to count (VOC's `difficult`).
    """

    label: str
    corners: tuple[float, float, float, float]
    crowd: bool = False


@dataclass(frozen=True)
class AnnotatedImage:
    """One image and its objects.

    Attributes:
        name: File name below the image folder.
        objects: Its objects.
        where: The file or entry it was read from, for messages.
        size: Width and height in pixels; None to read them from the image.
        relative: Whether the corners of boxes are fractions of the size.
    """

    name: str
    objects: list[Box]
    where: str
    size: tuple[int, int] | None = None
    relative: bool = False


@dataclass(frozen=True)
class Annotations:
    """What a reader found.

    Attributes:
        images: The images, read once.
        folder: The image folder, if the user named one or the format implies one.
        classes: Class names in label order; None for all that occur, sorted.
    """

    images: Iterable[AnnotatedImage]
    folder: Path | None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Request:
    """What to read.

    Attributes:
        path: The annotation file or folder.
        folder: The image folder named by the user.
        part: Part of a YOLO dataset.
        options: Options of the dataset.
        problems: Collects invalid entries.
    """

    path: Path
    folder: Path | None
    part: Part
    options: Mapping[str, Any]
    problems: Problems = field(repr=False)


def collect(found: Annotations, problems: Problems) -> Raw:
    """Return the columns of the images.

    Args:
        found: What a reader found.
        problems: Collects images whose size is unknown and boxes that are empty or not finite.

    Raises:
        UsageError: There is no image, or two class names differ only in capitals.
    """
    raw = Raw()
    labels: dict[str, int] = {name: number for number, name in enumerate(found.classes or (), 1)}
    places: list[str] = []
    for number, image in enumerate(found.images, 1):
        try:
            width, height = image.size or _size(found.folder, image.name)
        except Wrong as err:
            problems.add(f"{image.where} {err}.")
            continue
        raw.image_ids.append(number)
        raw.names.append(image.name)
        raw.sizes.extend((width, height))
        scale = (width, height, width, height) if image.relative else (1, 1, 1, 1)
        for index, one in enumerate(image.objects, 1):
            x1, y1, x2, y2 = (corner * factor for corner, factor in zip(one.corners, scale, strict=True))
            if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 <= x1 or y2 <= y1:
                problems.add(f"{image.where} object {index} has the empty or invalid box {shown(list(one.corners))}.")
                continue
            raw.ids.append(len(raw.ids) + 1)
            raw.owners.append(number)
            raw.category_ids.append(labels.setdefault(one.label, len(labels) + 1))
            raw.crowd.append(int(one.crowd))
            raw.xywh.extend((x1, y1, x2 - x1, y2 - y1))
            raw.area.append((x2 - x1) * (y2 - y1))
            raw.spans.extend((0, 0))
            raw.indices.append(len(places))
            places.append(f"{image.where} object {index}")
    if not raw.names and not problems.count:
        raise UsageError(f"{problems.source} has no annotated image.")
    raw.describe = places.__getitem__
    names = list(labels)
    if found.classes is None:
        names.sort()
        order = {labels[name]: number for number, name in enumerate(names, 1)}
        for place, category in enumerate(raw.category_ids):
            raw.category_ids[place] = order[category]
    folded: dict[str, str] = {}
    for name in names:
        if (other := folded.setdefault(name.casefold(), name)) != name:
            raise UsageError(f"{problems.source}: the classes {other!r} and {name!r} differ only in capitals.")
    raw.categories = {number: (name, "") for number, name in enumerate(names, 1)}
    return raw


def _size(folder: Path | None, name: str) -> tuple[int, int]:
    """Return width and height of an image file, upright.

    Raises:
        Wrong: The folder is unknown, or the file is missing or damaged.
    """
    from PIL import Image

    if folder is None:
        raise Wrong(f"names the image {name}, whose size is unknown without an image folder (--images)")
    path = folder / name
    try:
        with Image.open(path) as image:
            return upright_size(image)
    except FileNotFoundError as err:
        raise Wrong(f"names the image {name}, which is not in {folder}") from err
    except Exception as err:
        raise Wrong(f"names the image {name}, which cannot be read") from err


# Pascal VOC


def read_voc(request: Request) -> Annotations:
    """Read a folder of XML files, or the folder above it (`Annotations/`, `JPEGImages/`, `labelmap.txt`).

    Corners are whole pixels counted from 1 and lie inside the box, as in the VOC devkit. Objects marked `difficult`
    count neither as objects nor as errors.

    Raises:
        MissingError: The folder does not exist.
        UsageError: It has no XML file, or one is damaged.
    """
    root = request.path
    if not root.is_dir():
        raise MissingError(f"Annotation folder not found: {root}.", "Pascal VOC needs a folder of XML files.")
    if (root / "Annotations").is_dir():
        root /= "Annotations"
    folder = request.folder
    if folder is None and (root.parent / "JPEGImages").is_dir():
        folder = root.parent / "JPEGImages"
    files = sorted(root.rglob("*.xml"))
    if not files:
        raise UsageError(f"{root} has no XML file.")
    labelmap = root.parent / "labelmap.txt"
    classes = None
    if labelmap.is_file():
        with parsing(f"{labelmap} is not a label map"):
            lines = labelmap.read_text(encoding="utf-8-sig").splitlines()
            names = [line.partition(":")[0].strip() for line in lines if line.strip() and not line.startswith("#")]
            classes = tuple(name for name in names if name != "background") or None
    return Annotations(_voc_images(root, folder, files, request.problems), folder, classes)


def _voc_images(root: Path, folder: Path | None, files: list[Path], problems: Problems) -> Iterator[AnnotatedImage]:
    for file in files:
        with parsing(f"{file} is not a Pascal VOC file"):
            tree = ElementTree.fromstring(file.read_bytes())
        where = file.relative_to(root).as_posix()
        try:
            size = _whole(tree, "size/width"), _whole(tree, "size/height")
            inside = file.parent.relative_to(root)
            name = _voc_name(tree, file, inside, folder)
            objects = []
            for element in tree.iter("object"):
                x1, y1, x2, y2 = (_number(element, f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax"))
                crowd = (element.findtext("difficult") or "0").strip() == "1"
                objects.append(Box(_text(element, "name"), (x1 - 1, y1 - 1, x2, y2), crowd))
        except Wrong as err:
            problems.add(f"{where} {err}.")
            continue
        yield AnnotatedImage(name, objects, where, size if min(size) > 0 else None)


def _voc_name(tree: ElementTree.Element, file: Path, inside: Path, folder: Path | None) -> str:
    """Return the image's name: `filename`, below the folder that the XML file has below its own root."""
    name = (tree.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    candidates = [name or f"{file.stem}.jpg", *(file.stem + suffix for suffix in sorted(IMAGE_SUFFIXES))]
    found = (each for each in candidates if folder is not None and (folder / inside / each).is_file())
    return (PurePosixPath(inside.as_posix()) / next(found, candidates[0])).as_posix()


def _text(element: ElementTree.Element, path: str) -> str:
    value = (element.findtext(path) or "").strip()
    if not value:
        raise Wrong(f"has no <{path}>")
    return value


def _number(element: ElementTree.Element, path: str) -> float:
    return _as_number(_text(element, path), f"<{path}>")


def _whole(element: ElementTree.Element, path: str) -> int:
    return int(_number(element, path))


def _as_number(text: Any, what: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError) as err:
        raise Wrong(f"has the {what} {shown(text)}, not a number") from err
    if not math.isfinite(value):
        raise Wrong(f"has the {what} {shown(text)}, not a finite number")
    return value


# YOLO


def read_yolo(request: Request) -> Annotations:
    """Read `data.yaml` as Ultralytics does: `path`, `train` and `val` (folders or lists of images), `names`.

    The labels of `images/a/1.jpg` are in `labels/a/1.txt`: a line `class cx cy w h` per object, in 0..1; of polygons
    the bounding box is taken. An image without such a file has no object.

    Raises:
        MissingError: The file or an image folder does not exist.
        UsageError: The file is damaged, or has no such part.
    """
    path = request.path
    with parsing(f"{path} is not a YOLO dataset file"):
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict):
            raise TypeError("it is not a mapping")
        names = content["names"]
        numbered = dict(enumerate(names)) if isinstance(names, list) else {int(key): names[key] for key in names}
        classes = tuple(str(numbered[number]) for number in range(len(numbered)))
    part = request.part if request.part in content else "train" if "train" in content else request.part
    if not content.get(part):
        raise UsageError(f"{path} has no {part!r}.", "It needs train or val: a folder or list of images.")
    if part != request.part and request.part == "val":
        raise UsageError(f"{path} has no 'val' to evaluate on.", "Add `val: FOLDER` to it.")
    root = path.parent
    if content.get("path"):
        stated = user_path(str(content["path"]))
        root = stated if stated.is_absolute() else path.parent / stated
    sources = content[part] if isinstance(content[part], list) else [content[part]]
    files = [file for source in sources for file in _yolo_files(root, str(source), path)]
    if not files:
        raise UsageError(f"{path}: there is no image in {part!r}.")
    only = root / str(sources[0])
    folder = (
        only.absolute() if only.is_dir() and len(sources) == 1 else Path(os.path.commonpath([f.parent for f in files]))
    )
    return Annotations(_yolo_images(folder, files, classes, request.problems), folder, classes)


def _yolo_files(root: Path, source: str, path: Path) -> list[Path]:
    place = root / source
    if place.is_dir():
        return sorted(file.absolute() for file in place.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if place.is_file():
        with parsing(f"{place} is not a list of images"):
            lines = place.read_text(encoding="utf-8-sig").splitlines()
        return [Path(os.path.abspath(place.parent / line.strip())) for line in lines if line.strip()]
    raise MissingError(f"{path} names {place}, which does not exist.")


def _yolo_images(
    folder: Path, files: list[Path], classes: tuple[str, ...], problems: Problems
) -> Iterator[AnnotatedImage]:
    for file in files:
        parts = list(file.parts)
        last = max((place for place, part in enumerate(parts) if part == "images"), default=None)
        if last is not None:
            parts[last] = "labels"
        labels = Path(*parts).with_suffix(".txt")
        name = file.relative_to(folder).as_posix()
        objects: list[Box] = []
        if labels.is_file():
            with parsing(f"{labels} is not a YOLO label file"):
                lines = labels.read_text(encoding="utf-8-sig").splitlines()
            for number, line in enumerate(lines, 1):
                try:
                    if line.strip():
                        objects.append(_yolo_box(line.split(), classes))
                except Wrong as err:
                    problems.add(f"{labels}:{number} {err}.")
        yield AnnotatedImage(name, objects, str(labels), relative=True)


def _yolo_box(words: list[str], classes: tuple[str, ...]) -> Box:
    label, *numbers = (_as_number(word, "value") for word in words)
    if label != int(label) or not 0 <= label < len(classes):
        raise Wrong(f"has the class {words[0]}; there are {len(classes)} classes")
    if len(numbers) in (4, 5):  # the fifth is a score
        x, y, width, height = numbers[:4]
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        across, down = numbers[::2], numbers[1::2]
        corners = (min(across), min(down), max(across), max(down))
    else:
        raise Wrong(f"has {len(words)} values; a box has 5, a polygon an odd number of at least 7")
    return Box(classes[int(label)], corners)


# CVAT


def read_cvat(request: Request) -> Annotations:
    """Read an export "CVAT for images 1.1": the XML file, or the zip archive that holds it.

    Polygons are replaced by their bounding boxes; other shapes are ignored.

    Raises:
        MissingError: There is no such file.
        UsageError: It is damaged.
    """
    path = request.path
    with parsing(f"{path} is not a CVAT export"):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                tree = ElementTree.fromstring(archive.read("annotations.xml"))
        else:
            tree = ElementTree.fromstring(path.read_bytes())
        if tree.tag != "annotations":
            raise ValueError(f"its root is <{tree.tag}>, not <annotations>")
    declared = tuple((element.findtext("name") or "").strip() for element in tree.iterfind("meta//labels/label"))
    return Annotations(_cvat_images(tree, request.problems), request.folder, declared or None)


def _cvat_images(tree: ElementTree.Element, problems: Problems) -> Iterator[AnnotatedImage]:
    for element in tree.iterfind("image"):
        name = element.get("name", "").replace("\\", "/")
        where = f"image {name!r}"
        objects = []
        try:
            width, height = (int(_as_number(element.get(key), key)) for key in ("width", "height"))
            for shape in element:
                label = shape.get("label", "").strip()
                if shape.tag == "box":
                    x1, y1, x2, y2 = (_as_number(shape.get(key), key) for key in ("xtl", "ytl", "xbr", "ybr"))
                elif shape.tag == "polygon":
                    points = [
                        [_as_number(x, "point") for x in pair.split(",")] for pair in shape.get("points", "").split(";")
                    ]
                    across, down = zip(*points, strict=True)
                    x1, y1, x2, y2 = min(across), min(down), max(across), max(down)
                else:
                    continue
                if not label:
                    raise Wrong(f"has a <{shape.tag}> without a label")
                objects.append(Box(label, (x1, y1, x2, y2)))
        except (Wrong, ValueError) as err:
            problems.add(f"{where} {err}.")
            continue
        yield AnnotatedImage(name, objects, where, (width, height))


# Label Studio


def read_label_studio(request: Request) -> Annotations:
    """Read a JSON export of Label Studio: tasks with `annotations`, or with `predictions` where nobody has annotated.

    The image of a task is `data.name`, else the path in the address `data.image`. Of several annotations of a task the
    last that was not cancelled counts. Rotated rectangles are reported.

    Raises:
        MissingError: There is no such file.
        UsageError: It is damaged.
    """
    path = request.path
    with parsing(f"{path} is not a JSON export of Label Studio"):
        tasks = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(tasks, list):
            raise TypeError("it is not a list of tasks")
    return Annotations(_studio_images(tasks, request.problems), request.folder)


def _studio_images(tasks: list[Any], problems: Problems) -> Iterator[AnnotatedImage]:
    for index, task in enumerate(tasks):
        where = f"tasks[{index}]"
        try:
            data = task["data"]
            name = data["name"] if isinstance(data.get("name"), str) else _studio_name(data["image"])
            done = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
            results = (done or task.get("predictions") or [{}])[-1].get("result") or []
            boxes = [_studio_box(one) for one in results if one.get("type") == "rectanglelabels"]
        except Wrong as err:
            problems.add(f"{where} {err}.")
            continue
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as err:
            problems.add(f"{where} is not a task: {type(err).__name__} {err}.")
            continue
        yield AnnotatedImage(name, boxes, where, relative=True)


def _studio_name(address: str) -> str:
    """Return the path that an address serves: that of `?d=PATH` for local files, else its own without the server."""
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    return unquote(parts.path).lstrip("/") if local is None else local[0]


def _studio_box(one: Mapping[str, Any]) -> Box:
    value = one["value"]
    if value.get("rotation"):
        raise Wrong("has a rotated rectangle, which has no place in an axis-aligned dataset")
    (label,) = value["rectanglelabels"]
    x, y, width, height = (_as_number(value[key], key) / 100 for key in ("x", "y", "width", "height"))
    return Box(str(label).strip(), (x, y, x + width, y + height))


# Open Images


def read_openimages(request: Request) -> Annotations:
    """Read a box file of Open Images (`ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,...`), in image order.

    Class names come from `class-descriptions-boxable.csv` beside it, or from the option `names`. Boxes of groups
    (`IsGroupOf`) count neither as objects nor as errors.

    Raises:
        MissingError: A file does not exist.
        UsageError: One is damaged, or lacks a column.
    """
    path = request.path
    names_file = user_path(request.options.get("names") or path.with_name("class-descriptions-boxable.csv"))
    if not names_file.is_file():
        raise MissingError(f"Class name file not found: {names_file}.", "Set `options: {names: FILE}`.")
    with (
        parsing(f"{names_file} is not a list of class names"),
        names_file.open(newline="", encoding="utf-8-sig") as file,
    ):
        names = {row[0]: row[1].strip() for row in csv.reader(file) if len(row) >= 2}
    return Annotations(_openimages_images(path, names, request.problems), request.folder)


def _openimages_images(path: Path, names: Mapping[str, str], problems: Problems) -> Iterator[AnnotatedImage]:
    columns = ("ImageID", "LabelName", "XMin", "YMin", "XMax", "YMax")
    boxes: dict[str, list[Box]] = {}
    with parsing(f"{path} is not a box file of Open Images"), path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in columns if name not in (reader.fieldnames or ())]
        if lacking:
            raise UsageError(f"{path} has no column {lacking[0]!r}.")
        for row in reader:
            where = f"{path.name}:{reader.line_num}"
            try:
                if row["LabelName"] not in names:
                    raise Wrong(f"has the unknown class {shown(row['LabelName'])}")
                x1, y1, x2, y2 = (_as_number(row[key], key) for key in columns[2:])
                one = Box(names[row["LabelName"]], (x1, y1, x2, y2), row.get("IsGroupOf") == "1")
                boxes.setdefault(row["ImageID"], []).append(one)
            except Wrong as err:
                problems.add(f"{where} {err}.")
    for name, objects in boxes.items():
        yield AnnotatedImage(f"{name}.jpg", objects, f"image {name}", relative=True)


READERS: Mapping[str, Callable[[Request], Annotations]] = {
    "voc": read_voc,
    "yolo": read_yolo,
    "cvat": read_cvat,
    "label-studio": read_label_studio,
    "openimages": read_openimages,
}
"""Reader of each format."""


def check_options(dataset: str, options: Mapping[str, Any]) -> None:
    """Check the options of a format.

    Raises:
        UsageError: One is unknown.
    """
    known = ("names",) if dataset == "openimages" else ()
    for name in options:
        if name not in known:
            raise UsageError(f"The dataset format {dataset!r} has no option {name!r}.", did_you_mean(name, known))
