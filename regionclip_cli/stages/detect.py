"""What a run found, small enough to keep however many images it saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from regionclip_cli import __version__
from regionclip_cli.data.boxes import BoxFile, read_boxes
from regionclip_cli.data.images import ImageInput, find_inputs
from regionclip_cli.data.pixels import read_image
from regionclip_cli.errors import InputError, UsageError
from regionclip_cli.hub.model_card import fingerprint
from regionclip_cli.hub.store import resolve
from regionclip_cli.inference.detector import Detector
from regionclip_cli.inference.prefetch import prefetch
from regionclip_cli.inference.preprocess import InferenceConfig, PreparedImage, prepare_image
from regionclip_cli.language.class_names import Vocabulary, parse_classes
from regionclip_cli.recipe.detection import DEFAULT_OUT, DetectSettings
from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.runs.progress import Progress, Silent
from regionclip_cli.stages.detect_output import OutputFolder

FEW_IMAGES = 6
"""Up to so many images are listed one by one."""

FEW_ROWS = 8
"""So many detections are listed of an image."""


@dataclass
class Found:
    """How often a class was found, in how many images, and its best score."""

    count: int = 0
    images: int = 0
    best: float = 0.0


@dataclass
class Tally:
    """Counts by class, and the detections of the first few images.

    Attributes:
        images: How many were added.
        classes: By class name.
        first: Detections of the first images; empty once there are more than a few.
    """

    images: int = 0
    classes: dict[str, Found] = field(default_factory=dict)
    first: list[ImageDetections] = field(default_factory=list)

    @property
    def detections(self) -> int:
        """Return how many objects were found."""
        return sum(found.count for found in self.classes.values())

    def add(self, detections: ImageDetections) -> None:
        """Count one image."""
        self.images += 1
        for label, score in zip(detections.labels, detections.scores, strict=True):
            found = self.classes.setdefault(label, Found())
            found.count += 1
            found.best = max(found.best, float(score))
        for label in set(detections.labels):
            self.classes[label].images += 1
        self.first = [*self.first, detections] if self.images <= FEW_IMAGES else []

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Return headings and rows: what is in each image when there are few, else how often each class was found."""
        if self.images > FEW_IMAGES:
            order = sorted(self.classes.items(), key=lambda item: (-item[1].count, item[0]))
            rows = [[label, found.count, found.images, f"{found.best:.2f}"] for label, found in order]
            return ["object", "found", "in images", "best score"], rows
        rows = []
        for image in self.first:
            name = image.image
            for label, score, box in list(zip(image.labels, image.scores, image.boxes, strict=True))[:FEW_ROWS]:
                rows.append([name, label, f"{score:.2f}", " ".join(str(round(float(x))) for x in box)])
                name = ""
            if not len(image):
                rows.append([name, "nothing", "", ""])
            elif len(image) > FEW_ROWS:
                rows.append(["", f"and {len(image) - FEW_ROWS} more", "", ""])
        return ["image", "object", "score", "box (x1 y1 x2 y2)"], rows


Emit = Callable[[ImageDetections], None]


@dataclass(frozen=True)
class DetectResult:
    """What a run did.

    Attributes:
        images: How many images were looked at.
        skipped: How many an earlier run had done already.
        failed: Names of the images that could not be read.
        out: The output folder, if files were written.
        tally: What was found.
    """

    images: int
    skipped: int
    failed: tuple[str, ...]
    out: Path | None
    tally: Tally

    def summary(self) -> str:
        """Return one sentence for a person."""
        parts = [f"{_count(self.tally.detections, 'object')} in {_count(self.images, 'image')}"]
        parts += [f"{self.skipped} done before"] if self.skipped else []
        parts += (
            [f"{len(self.failed)} failed ({self.failed[0]}{', ...' * (len(self.failed) > 1)})"] if self.failed else []
        )
        return "; ".join(parts) + (f". Results are in {self.out}." if self.out else ".")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def run(settings: DetectSettings, progress: Progress | None = None, emit: Emit | None = None) -> DetectResult:
    """Detect in every input and write each image before the next batch is looked at.

    An image that cannot be read costs only itself: it is warned of, listed in `errors.jsonl` and in the result.

    Args:
        settings: What to do.
        progress: Told what is going on.
        emit: Called with the detections of each image, for a caller that shows or streams them.

    Raises:
        UsageError: Inputs, classes, boxes or formats are wrong, or the output folder is taken. Before any work.
        MissingError: A model or file is not on this machine. Before any work.
        OutputError: Results cannot be written.
        InputError: With `strict`, the first image that cannot be read.
    """
    progress = progress or Silent()
    out = settings.out or (None if settings.json_lines else DEFAULT_OUT)
    sources = find_inputs(settings.inputs, settings.recursive, exclude=out)
    vocabulary = _vocabulary(settings)
    boxes = None if settings.boxes is None else read_boxes(settings.boxes)
    folder = None if out is None else OutputFolder(out, settings.formats, settings.resume)
    for model in (settings.model, settings.proposals or settings.model):
        resolve(model)
    total = sum(1 for _ in find_inputs(settings.inputs, settings.recursive, exclude=out))
    detector = Detector(settings.model, settings.device, settings.dtype, settings.proposals)
    progress.note(f"Model {detector.card.name} on {detector.device}.")
    _teach(detector, settings, vocabulary, progress)
    inference = detector.decide(
        scoring=settings.scoring,
        short_side=settings.short_side,
        conf=settings.conf,
        iou=settings.iou,
        nms=settings.nms,
        max_dets=settings.max_dets,
    )
    if folder is not None:
        folder.open(detector.labels, _about(settings, detector, inference))
    job = _Job(settings, detector, inference, boxes, folder, progress, emit)
    progress.start("Detecting", total, "images")
    try:
        job.work(sources)
        if folder is not None:
            folder.close()
    except BaseException as err:
        if folder is not None:
            folder.abort(err)
        raise
    finally:
        progress.finish()
    unused = [] if boxes is None else boxes.unused()
    if unused:
        progress.warn(f"{len(unused)} entries of {settings.boxes} belong to no image here, for example {unused[0]!r}.")
    return DetectResult(job.images, job.skipped, tuple(job.failed), out, job.tally)


@dataclass
class _Job:
    """One run, and how far it is."""

    settings: DetectSettings
    detector: Detector
    inference: InferenceConfig
    boxes: BoxFile | None
    folder: OutputFolder | None
    progress: Progress
    emit: Emit | None
    images: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def work(self, sources: Iterator[ImageInput]) -> None:
        """Read ahead, look at the images batch by batch, write each batch."""
        batch_size = self.settings.batch
        with closing(prefetch(self._left(sources), self._read, ahead=batch_size + 2)) as reading:
            while arrived := list(islice(reading, batch_size)):
                bad = next((result for _, result in arrived if isinstance(result, InputError)), None)
                stop = bad if self.settings.strict else None
                if stop is not None:
                    arrived = arrived[: [result for _, result in arrived].index(stop) + 1]
                self._look([result for _, result in arrived if not isinstance(result, InputError)])
                for source, result in arrived:
                    if isinstance(result, InputError):
                        self._fail(source.name, result)
                self.progress.advance(len(arrived))
                if stop is not None:
                    raise stop

    def _left(self, sources: Iterator[ImageInput]) -> Iterator[ImageInput]:
        """Pass over what an earlier run has done."""
        for source in sources:
            if self.folder is not None and self.folder.has(source.name):
                self.skipped += 1
                self.progress.advance()
            else:
                yield source

    def _read(self, source: ImageInput) -> PreparedImage:
        """Read one image and make it ready; called from several threads."""
        pixels = read_image(source, self.settings.max_pixels)
        given = None
        if self.boxes is not None:
            height, width = pixels.shape[:2]
            given, clipped = self.boxes.find(source.name).within(source.name, width, height)
            if clipped:
                self.progress.warn(f"{source.name}: {clipped} boxes reach over the border and were clipped.")
        keep = self.folder is not None and self.folder.needs_pixels
        return prepare_image(source.name, pixels, self.inference, given, keep)

    def _look(self, images: list[PreparedImage]) -> None:
        """Detect in a batch and write it."""
        for image, found in zip(images, self.detector.look(images, self.inference) if images else [], strict=True):
            if self.folder is not None:
                self.folder.write(found, image.pixels)
            if self.emit is not None:
                self.emit(found)
            self.tally.add(found)
            self.images += 1

    def _fail(self, name: str, err: InputError) -> None:
        """Record an image that could not be read."""
        self.failed.append(name)
        self.progress.warn(str(err))
        if self.folder is not None:
            self.folder.fail(name, str(err))


def _vocabulary(settings: DetectSettings) -> Vocabulary | None:
    """Return the classes, or None when a bank names them."""
    if settings.concepts is not None:
        return None
    if settings.classes is None:
        raise UsageError(
            "Nothing was named to look for.", 'Add --classes "cat,kettle", --classes @coco or --concepts BANK.'
        )
    return parse_classes(settings.classes, settings.distractors)


def _teach(detector: Detector, settings: DetectSettings, vocabulary: Vocabulary | None, progress: Progress) -> None:
    """Tell the detector what to look for."""
    if vocabulary is None:
        against = parse_classes(settings.distractors) if settings.distractors else None
        phrases = [phrase for each in against.phrases for phrase in each] if against else []
        detector.set_bank(settings.concepts or "", phrases)
        return
    count = sum(map(len, vocabulary.phrases)) + len(vocabulary.distractors)
    progress.start("Reading class names", count, "phrases")
    detector.set_classes(vocabulary, progress=progress.advance)
    progress.finish()


def _about(settings: DetectSettings, detector: Detector, inference: InferenceConfig) -> dict[str, Any]:
    """Return what decides the results, for `run.json`."""
    given = settings.model_dump(mode="json", include={"classes", "distractors", "concepts", "boxes", "proposals"})
    size = {"short_side": inference.short_side, "long_side": inference.long_side}
    scoring = {key: value for key, value in vars(inference.scoring).items() if value is not None}
    model = {"model": detector.card.name, "fingerprint": fingerprint(detector.path)}
    return {"version": __version__, **model, "labels": list(detector.labels), **given, **size, **scoring}
