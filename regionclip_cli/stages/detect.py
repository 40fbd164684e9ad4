"""`detect`: find objects by name in files, folders or an image on standard input.

The detections of an image are in `detections.jsonl` before the next batch is read; the other formats are rendered from
that file at the end.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionclip_cli import __version__
from regionclip_cli.data.boxes import BoxFile, read_boxes
from regionclip_cli.data.images import ImageInput, find_inputs
from regionclip_cli.data.pixels import read_image
from regionclip_cli.errors import InputError, UsageError, pluralize
from regionclip_cli.files import writing
from regionclip_cli.hub.store import resolve
from regionclip_cli.inference.prefetch import prefetch
from regionclip_cli.language.class_names import Vocabulary, parse_classes
from regionclip_cli.recipe.detection import DEFAULT_OUT, DetectSettings
from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.runs.progress import Progress, Silent, loading
from regionclip_cli.stages.detect_output import OutputFolder, Rendered

if TYPE_CHECKING:  # imported once the inputs have been checked
    from regionclip_cli.inference.detector import Detector
    from regionclip_cli.inference.preprocess import InferenceConfig, PreparedImage

MAX_LISTED_IMAGES = 6
"""Up to this many images, detections are listed one by one."""

MAX_LISTED_DETECTIONS = 8
"""Detections listed per image."""


@dataclass
class Found:
    """How often a class was found, in how many images, and its best score."""

    count: int = 0
    images: int = 0
    best: float = 0.0


@dataclass
class Tally:
    """Counts per class, and the detections of the first few images.

    Attributes:
        images: Images added.
        classes: Counts by class name.
        first: Detections of the first images; empty once there are more than a few.
    """

    images: int = 0
    classes: dict[str, Found] = field(default_factory=dict)
    first: list[ImageDetections] = field(default_factory=list)

    @property
    def detections(self) -> int:
        """Return the number of detections."""
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
        self.first = [*self.first, detections] if self.images <= MAX_LISTED_IMAGES else []

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Return headings and rows: the detections of each image when there are few, else the counts of each class."""
        if self.images > MAX_LISTED_IMAGES:
            order = sorted(self.classes.items(), key=lambda item: (-item[1].count, item[0]))
            rows = [[label, found.count, found.images, f"{found.best:.2f}"] for label, found in order]
            return ["class", "detections", "images", "best score"], rows
        rows = []
        for image in self.first:
            name = image.image
            listed = list(zip(image.labels, image.scores, image.boxes, strict=True))[:MAX_LISTED_DETECTIONS]
            for label, score, box in listed:
                rows.append([name, label, f"{score:.2f}", " ".join(str(round(float(x))) for x in box)])
                name = ""
            if not len(image):
                rows.append([name, "nothing", "", ""])
            elif len(image) > MAX_LISTED_DETECTIONS:
                rows.append(["", f"and {len(image) - MAX_LISTED_DETECTIONS} more", "", ""])
        return ["image", "class", "score", "box (x1 y1 x2 y2)"], rows


Emit = Callable[[ImageDetections], None]


@dataclass(frozen=True)
class DetectResult:
    """The outcome of a run.

    Attributes:
        images: Images processed.
        skipped: Images that an earlier run had done.
        failed: Names of the images that could not be read, or that a format left out.
        out: The output folder, if files were written.
        tally: What was found.
        broken_formats: Names of plugin formats that failed.
    """

    images: int
    skipped: int
    failed: tuple[str, ...]
    out: Path | None
    tally: Tally
    broken_formats: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return one sentence for the terminal."""
        parts = [f"{pluralize(self.tally.detections, 'objects')} in {pluralize(self.images, 'images')}"]
        parts += [f"{self.skipped} already done"] if self.skipped else []
        if self.failed:
            parts.append(f"{len(self.failed)} failed ({self.failed[0]}{', ...' * (len(self.failed) > 1)})")
        parts += [f"format {name!r} failed" for name in self.broken_formats]
        return "; ".join(parts) + (f". Results are in {self.out}." if self.out else ".")


def run(settings: DetectSettings, progress: Progress | None = None, emit: Emit | None = None) -> DetectResult:
    """Detect objects in every input, and write each image before the next batch is read.

    Unreadable images are skipped: each is warned about and listed in `errors.jsonl` and in the result. A plugin format
    that fails is warned about and listed in the result; the other formats are written.

    Args:
        settings: What to detect, where, and what to write.
        progress: Receives progress and warnings.
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
    folder = None if out is None else _output(out, settings)
    for model in (settings.model, settings.proposals or settings.model):
        resolve(model)
    with _Spool(sources) as inputs:
        with loading(progress, settings.model):
            from regionclip_cli.inference.detector import Detector

            detector = Detector(settings.model, settings.device, settings.dtype, settings.proposals, settings.engine)
        progress.note(f"Model {detector.card.name} on {detector.device} ({detector.engine}).")
        _set_classes(detector, settings, vocabulary, progress)
        inference = detector.decide(
            scoring=settings.scoring,
            short_side=settings.short_side,
            tiles=settings.tiles,
            overlap=settings.overlap,
            flip=settings.flip,
            conf=settings.conf,
            iou=settings.iou,
            nms=settings.nms,
            max_dets=settings.max_dets,
        )
        if folder is not None:
            folder.open(detector.labels, _about(settings, detector, inference))
        job = _Job(settings, detector, inference, boxes, folder, progress, emit)
        rendered = Rendered()
        try:
            progress.start("Detecting", len(inputs), "images")
            try:
                job.work(inputs)
            finally:
                progress.finish()
            if folder is not None:
                rendered = folder.close(progress)
        except BaseException as err:
            if folder is not None:
                folder.abort(err)
            raise
    unused = [] if boxes is None else boxes.unused()
    if unused:
        progress.warn(f"{len(unused)} entries of {settings.boxes} match no image of this run, e.g. {unused[0]!r}.")
    failed = tuple(dict.fromkeys([*job.failed, *rendered.skipped]))
    return DetectResult(job.images, job.skipped, failed, out, job.tally, rendered.broken)


def _output(out: Path, settings: DetectSettings) -> OutputFolder:
    return OutputFolder(out, settings.formats, settings.resume, settings.max_pixels, settings.format_options)


class _Spool:
    """The inputs of a run, listed once: a temporary file holds them, so that their number is known in flat memory."""

    def __init__(self, sources: Iterable[ImageInput]) -> None:
        self._count = 0
        self._file = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        try:
            with writing(Path(tempfile.gettempdir())):
                for source in sources:
                    path = None if source.path is None else str(source.path)
                    self._file.write(json.dumps([source.name, path]) + "\n")
                    self._count += 1
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[ImageInput]:
        self._file.seek(0)
        for line in self._file:
            name, path = json.loads(line)
            yield ImageInput(name, None if path is None else Path(path))

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@dataclass
class _Job:
    """One run and its counts."""

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

    def work(self, sources: Iterable[ImageInput]) -> None:
        """Read ahead, detect batch by batch, write each batch."""
        batch_size = self.settings.batch
        with closing(prefetch(self._left(sources), self._read, ahead=batch_size + 2)) as reading:
            while arrived := list(islice(reading, batch_size)):
                bad = next((result for _, result in arrived if isinstance(result, InputError)), None)
                stop = bad if self.settings.strict else None
                if stop is not None:
                    arrived = arrived[: [result for _, result in arrived].index(stop) + 1]
                self._detect([(source, image) for source, image in arrived if not isinstance(image, InputError)])
                for source, result in arrived:
                    if isinstance(result, InputError):
                        self._fail(source.name, result)
                self.progress.advance(len(arrived))
                if stop is not None:
                    raise stop

    def _left(self, sources: Iterable[ImageInput]) -> Iterator[ImageInput]:
        """Skip what an earlier run has done."""
        for source in sources:
            if self.folder is not None and self.folder.has(source.name):
                self.skipped += 1
                self.progress.advance()
            else:
                yield source

    def _read(self, source: ImageInput) -> PreparedImage:
        """Read and resize one image; called from several threads."""
        from regionclip_cli.inference.preprocess import prepare_image

        pixels = read_image(source, self.settings.max_pixels)
        given = None
        if self.boxes is not None:
            height, width = pixels.shape[:2]
            given, clipped = self.boxes.find(source.name).within(source.name, width, height)
            if clipped:
                self.progress.warn(f"{source.name}: {pluralize(clipped, 'boxes')} clipped at the image border.")
        keep = self.folder is not None and source.path is None
        return prepare_image(source.name, pixels, self.inference, given, keep)

    def _detect(self, batch: list[tuple[ImageInput, PreparedImage]]) -> None:
        """Detect in a batch and write it."""
        if not batch:
            return
        results = self.detector.look([image for _, image in batch], self.inference)
        for (source, image), found in zip(batch, results, strict=True):
            if self.folder is not None:
                self.folder.write(found, source.path, image.pixels)
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
        raise UsageError("No classes given.", 'Add --classes "cat,kettle", --classes @coco or --concepts BANK.')
    return parse_classes(settings.classes, settings.distractors)


def _set_classes(
    detector: Detector, settings: DetectSettings, vocabulary: Vocabulary | None, progress: Progress
) -> None:
    """Set the detector's classes from names or from a bank."""
    if vocabulary is None:
        against = parse_classes(settings.distractors) if settings.distractors else None
        phrases = [phrase for synonyms in against.phrases for phrase in synonyms] if against else []
        detector.set_bank(settings.concepts or "", phrases)
        return
    count = sum(map(len, vocabulary.phrases)) + len(vocabulary.distractors)
    progress.start("Embedding class names", count, "phrases")
    detector.set_classes(vocabulary, progress=progress.advance)
    progress.finish()


def _about(settings: DetectSettings, detector: Detector, inference: InferenceConfig) -> dict[str, Any]:
    """Return what decides the results, for `run.json`."""
    given = settings.model_dump(mode="json", include={"classes", "distractors", "concepts", "boxes", "proposals"})
    size: dict[str, Any] = {"short_side": inference.short_side, "long_side": inference.long_side}
    if inference.tiles:
        size |= {"tiles": inference.tiles, "overlap": inference.overlap}
    if inference.flip:
        size |= {"flip": True}
    scoring = {key: value for key, value in vars(inference.scoring).items() if value is not None}
    model = {"model": detector.card.name, "fingerprint": detector.fingerprint}
    return {"version": __version__, **model, "labels": list(detector.labels), **given, **size, **scoring}
