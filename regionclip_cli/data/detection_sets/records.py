"""Detection sets that no annotation file holds: drawn scenes, and the data sets that other packages add."""

from __future__ import annotations

import io
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from regionclip_cli import plugins
from regionclip_cli.data.captions.synthetic import encode_png, image_bytes, load_records, scene_options
from regionclip_cli.data.detection_sets.coco_files import OVERHANG
from regionclip_cli.data.detection_sets.detection_set import Columns, DetectionSet, Lists, Segmentation, Source
from regionclip_cli.data.detection_sets.validation import Problems, Wrong
from regionclip_cli.data.pixels import upright_size
from regionclip_cli.data.scenes import SCENE_CLASSES, draw_scene
from regionclip_cli.errors import InputError, PluginError, UsageError
from regionclip_cli.recipe.schema import CaptionData, DetectionData


@dataclass(frozen=True)
class SceneSource:
    """Scenes are drawn again whenever their pixels are asked for."""

    seed: int
    size: int

    def path(self, image: int) -> Path | None:
        """Return None: a scene is no file."""
        return None

    def read(self, image: int) -> bytes:
        """Return a scene as PNG."""
        return encode_png(draw_scene(image, self.seed, self.size).pixels)

    def segmentations(self, annotations: np.ndarray) -> list[Segmentation] | None:
        """Return None: scenes have boxes only."""
        return None


class RecordSource:
    """The pictures of a plugin's records: asked for by number, or kept in a temporary file where that is impossible."""

    def __init__(self, records: Any) -> None:
        self.records: Sequence[Mapping[str, Any]] | None = None
        self.files: list[Path | tuple[int, int]] = []
        if hasattr(records, "__getitem__") and hasattr(records, "__len__"):
            self.records = records

    def stream(self, records: Iterable[Any]) -> Iterator[Any]:
        """Yield records, and put their pictures aside where they cannot be had again."""
        if self.records is not None:
            yield from records
            return
        handle, name = tempfile.mkstemp(prefix="regionclip-records-")
        self.spool = Path(name)
        self._remove = weakref.finalize(self, self.spool.unlink, missing_ok=True)
        with open(handle, "wb") as file:
            for record in records:
                image = record.get("image") if isinstance(record, Mapping) else None
                if isinstance(image, str | Path):
                    self.files.append(Path(image))
                elif image is not None:
                    start = file.tell()
                    self.files.append((start, file.write(image_bytes(image, "record"))))
                else:
                    self.files.append((0, 0))
                yield record

    def path(self, image: int) -> Path | None:
        """Return the file of an image, if it is one."""
        found = self.files[image] if self.records is None else self.records[image]["image"]
        return Path(found) if isinstance(found, str | Path) else None

    def read(self, image: int) -> bytes:
        """Return the encoded image."""
        if self.records is not None:
            return image_bytes(self.records[image]["image"], f"record {image}")
        found = self.files[image]
        if isinstance(found, Path):
            return image_bytes(found, str(found))
        with self.spool.open("rb") as file:
            file.seek(found[0])
            return file.read(found[1])

    def segmentations(self, annotations: np.ndarray) -> list[Segmentation] | None:
        """Return None: records have boxes only."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the temporary file to whoever made it."""
        return {name: value for name, value in vars(self).items() if name != "_remove"}


@dataclass(frozen=True, eq=False)
class _Record:
    """One image, checked."""

    name: str
    place: int
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray


def open_records(data: DetectionData) -> DetectionSet:
    """Open `scenes` or a plugin's data set; see `open_detection_set`."""
    if data.dataset == "scenes":
        options = scene_options(data.options)
        count = min(options["count"], data.limit or options["count"])
        seed, size = options["seed"], options["size"]
        drawn = ((index, draw_scene(index, seed, size)) for index in range(count))
        records = [
            _Record(
                f"scene-{seed}-{index:06}",
                index,
                (size, size),
                scene.boxes,
                scene.labels,
                np.zeros(len(scene.labels), bool),
            )
            for index, scene in drawn
        ]
        return _gather("scenes", SCENE_CLASSES, records, SceneSource(seed, size), Problems("scenes"))
    spec = plugins.find("datasets", data.dataset)
    if not spec.classes:
        raise UsageError(f"The dataset {data.dataset!r} has captions and no classes, so nothing can be detected in it.")
    problems = Problems(f"the dataset {data.dataset!r}")
    entry = plugins.lookup("datasets", data.dataset)
    loaded = load_records(CaptionData(dataset=data.dataset, options=data.options))
    with plugins.blame(entry):
        source = RecordSource(loaded)
        kept = []
        for place, record in enumerate(source.stream(islice(iter(loaded), data.limit))):
            try:
                kept.append(_checked(record, place, data.dataset, len(spec.classes)))
            except (Wrong, InputError) as err:
                problems.add(f"record {place} {err}")
    problems.settle(data.lenient)
    if not kept:
        raise UsageError(f"The dataset {data.dataset!r} has no record.")
    return _gather(data.dataset, spec.classes, kept, source, problems)


def _checked(record: Any, place: int, name: str, classes: int) -> _Record:
    """Return a record of a plugin.

    Raises:
        PluginError: It is not what `DatasetSpec` promises.
        Wrong: A box or label is wrong.
    """
    if not isinstance(record, Mapping):
        raise PluginError(f"Record {place} of the dataset {name!r} is no mapping.")
    lacking = [key for key in ("image", "boxes", "labels") if record.get(key) is None]
    if lacking:
        raise PluginError(
            f"Record {place} of the dataset {name!r} has no {lacking[0]!r}.",
            "To detect and to be measured it needs image, boxes and labels.",
        )
    try:
        boxes = np.asarray(record["boxes"], np.float64).reshape(-1, 4)
        labels = np.asarray(record["labels"])
        crowd = np.asarray(record.get("crowd", np.zeros(len(labels))), bool)
    except (TypeError, ValueError) as err:
        raise Wrong("has boxes that are not rows of four numbers.") from err
    if labels.size and labels.dtype.kind not in "iu":
        raise Wrong("has labels that are not whole numbers.")
    if labels.shape != (len(boxes),) or crowd.shape != labels.shape:
        raise Wrong(f"has {len(boxes)} boxes and {labels.size} labels.")
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise Wrong(f"has the label {int(labels[(labels < 0) | (labels >= classes)][0])}; there are {classes} classes.")
    width, height = _size(record, place)
    good = np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    good &= (boxes[:, :2] >= -OVERHANG).all(1) & (boxes[:, 2:] <= np.array([width, height]) + OVERHANG).all(1)
    if not good.all():
        raise Wrong(f"has the box {boxes[~good][0].tolist()}, which is empty or leaves {width} x {height} pixels.")
    key = record.get("key")
    shown = Path(record["image"]).as_posix() if isinstance(record["image"], str | Path) else f"{name}-{place:06}"
    return _Record(shown if key is None else str(key), place, (width, height), boxes, labels.astype(np.int64), crowd)


def _size(record: Mapping[str, Any], place: int) -> tuple[int, int]:
    """Return width and height: as told, or as the picture has it when it stands upright."""
    if isinstance(record.get("width"), int) and isinstance(record.get("height"), int):
        return record["width"], record["height"]
    from PIL import Image, UnidentifiedImageError

    image = record["image"]
    if not isinstance(image, Image.Image):
        try:
            image = Image.open(io.BytesIO(image_bytes(image, f"record {place}")))
        except (UnidentifiedImageError, OSError) as err:
            raise Wrong("has an image that cannot be read.") from err
    return upright_size(image)


def _gather(
    name: str, classes: tuple[str, ...], records: Sequence[_Record], source: Source, problems: Problems
) -> DetectionSet:
    """Put records into columns."""
    counts = [len(record.labels) for record in records]
    boxes = np.concatenate([record.boxes for record in records]).astype(np.float64).reshape(-1, 4)
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    none = Lists(np.zeros(len(records) + 1, np.int64), np.zeros(0, np.int64))
    columns = Columns(
        ids=np.arange(1, len(records) + 1),
        names=tuple(record.name for record in records),
        sizes=np.array([record.size for record in records], np.int32),
        places=np.array([record.place for record in records], np.int64),
        objects=Lists(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), np.arange(len(boxes))),
        labels=np.concatenate([record.labels for record in records]).astype(np.int64),
        xywh=xywh,
        area=xywh[:, 2] * xywh[:, 3],
        crowd=np.concatenate([record.crowd for record in records]),
        rows=np.arange(len(boxes)),
        neg=none,
        not_exhaustive=none,
    )
    ids = tuple(range(1, len(classes) + 1))
    return DetectionSet(name, "coco", classes, ids, None, columns, source, problems.sentences(), problems.count)
