"""One pass over a set with a detector that is ready: every image is looked at once, kept, and scored in the end.

    measured = measure(detector, truth, EvaluateSection(split="coco-48-17"), text=TextEncoder(path))
    measured.summary["novel"]["AP50"]

A training loop may call it between two steps: the detector is left as it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

from regionclip_cli.data.boxes import BoxFile, GivenBoxes
from regionclip_cli.data.detection_sets import DetectionImage, DetectionSet
from regionclip_cli.data.pixels import decode
from regionclip_cli.errors import InputError, UsageError
from regionclip_cli.evaluation.inference_config import choose_inference_config
from regionclip_cli.evaluation.metrics import LIMITS, EvalResult, compute_metrics
from regionclip_cli.evaluation.predictor import Prediction, Predictor, taking_boxes
from regionclip_cli.evaluation.proposal_recall import cover
from regionclip_cli.evaluation.store import Line, Predictions
from regionclip_cli.evaluation.task import GROUND_TRUTH, Task, build_task
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.inference.prefetch import prefetch
from regionclip_cli.inference.preprocess import InferenceConfig, PreparedImage, prepare_image
from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.language.vocabulary_embedding import embed_vocabulary
from regionclip_cli.recipe.schema import EvaluateSection
from regionclip_cli.runs.progress import Progress, Silent
from regionclip_cli.runs.sharding import Share
from regionclip_cli.vision.crop_encoder import CropEncoder
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.linear_classifier import LinearClassifier

NO_BOXES = np.zeros((0, 4), np.float32)


def measure(
    model: OpenVocabularyDetector,
    truth: DetectionSet,
    settings: EvaluateSection,
    *,
    text: TextEncoder | None = None,
    card: ModelCard | None = None,
    boxes: BoxFile | None = None,
    folder: Path | None = None,
    share: Share | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> EvalResult:
    """Measure a detector on a set.

    Args:
        model: The detector. Its mode, vocabulary, source of boxes and scoring are the same afterwards.
        truth: What is on the images.
        settings: How to measure; `model`, `predictions` and where the set is are not looked at.
        text: Encodes the names that compete. Without it the vocabulary of the model is taken as it is: its classes must
            be those of the set (or the split), in their order.
        card: Of the model, for its image size; without it 800 to 1333 pixels as in the paper.
        boxes: What the file in `settings.boxes` holds, where it names one.
        folder: Where predictions are kept; left out, a temporary folder.
        share: Which images are this process's.
        resume: Go on with what is in `folder`.
        progress: Told of every image.

    Returns:
        The measurement; without scores where other shares are not finished.

    Raises:
        UsageError: Names do not fit the set or the model, or `folder` has predictions and `resume` was not asked for.
        MissingError: The model has no text encoder, or nothing to find boxes with.
    """
    progress = progress or Silent()
    task = build_task(truth, settings)
    inference = choose_inference_config(settings, task, card, refines=model.box_head is not None)
    known = settings.boxes == GROUND_TRUTH
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regionclip-")))
        predictions = stack.enter_context(closing(Predictions(folder, share, resume)))
        stack.enter_context(speaking(model, task, text, progress))
        stack.enter_context(taking_boxes(model, inference, given=known or boxes is not None))
        crops = CropEncoder(model.backbone) if settings.crops else None
        eyes = Predictor(model, inference, task.columns(), known, crops)
        _Pass(task, eyes, inference, predictions, boxes, progress).work(share or Share(), settings.batch)
        missing = len(task.truth) - len(predictions.images() & task.truth.places_by_id.keys())
        if missing:
            return EvalResult(task, {}, None, missing=missing)
        return compute_metrics(task, predictions.lines())


class _Pass:
    """One pass over a share of a set."""

    def __init__(
        self,
        task: Task,
        eyes: Predictor,
        inference: InferenceConfig,
        predictions: Predictions,
        boxes: BoxFile | None,
        progress: Progress,
    ) -> None:
        self.truth, self.eyes, self.inference = task.truth, eyes, inference
        self.predictions, self.boxes, self.progress = predictions, boxes, progress

    def work(self, share: Share, batch: int) -> None:
        """Look at every image that is not done yet."""
        places = share.of(len(self.truth))
        self.progress.start("Measuring", len(places), "images")
        with closing(prefetch(self._left(places), self._read, ahead=batch + 2)) as reading:
            while arrived := list(islice(reading, batch)):
                whole = [(image, ready) for image, ready in arrived if not isinstance(ready, InputError)]
                self._look([image for image, _ in whole], [ready for _, ready in whole])
                for image, problem in arrived:
                    if isinstance(problem, InputError):
                        self.progress.warn(str(problem))
                        self.predictions.fail(image, str(problem))
                self.progress.advance(len(arrived))
        self.progress.finish()

    def _left(self, places: range) -> Iterator[DetectionImage]:
        """Yield the images that must be read; those without a known object need no look when these are given."""
        for place in places:
            image: DetectionImage = self.truth[place]
            if image.id in self.predictions.finished:
                self.progress.advance()
            elif self.eyes.known_boxes and image.crowd.all():
                none = np.zeros(0, np.int64)
                self.predictions.write(image, Line(image.id, NO_BOXES, NO_BOXES[:, 0], none, none, none, none))
                self.progress.advance()
            else:
                yield image

    def _read(self, image: DetectionImage) -> PreparedImage:
        """Read one image; called from several threads."""
        pixels = decode(image.read(), image.name)
        height, width = pixels.shape[:2]
        if (width, height) != (image.width, image.height):
            raise InputError(
                f"{image.name} is {width} x {height} pixels, and the annotations say {image.width} x {image.height}."
            )
        given = None
        if self.eyes.known_boxes:
            given = GivenBoxes(image.boxes[~image.crowd])
        elif self.boxes is not None:
            given, _ = self.boxes.find(image.name).within(image.name, width, height)
        return prepare_image(image.name, pixels, self.inference, given, keep=self.eyes.crops is not None)

    def _look(self, images: list[DetectionImage], ready: list[PreparedImage]) -> None:
        """Look at a batch and keep what was seen."""
        for image, seen in zip(images, self.eyes.look(images, ready) if images else [], strict=True):
            self.predictions.write(image, _line(image, seen))


def _line(image: DetectionImage, seen: Prediction) -> Line:
    """Return what is kept of an image."""
    named = {} if seen.named is None else vars(seen.named)
    hits = None if seen.proposals is None else cover(image.boxes[~image.crowd], seen.proposals, LIMITS)
    return Line(image.id, seen.boxes, seen.scores, seen.names, hits=hits, seconds=seen.seconds, **named)


@contextmanager
def speaking(model: OpenVocabularyDetector, task: Task, text: TextEncoder | None, progress: Progress) -> Iterator[None]:
    """Let a detector choose among the names of a question while the block runs, and give it its own back.

    Raises:
        UsageError: The model cannot be told names, and its own are others.
        MissingError: It has no text encoder.
    """
    classifier, names = model.classifier, task.names
    if isinstance(classifier, LinearClassifier):
        before = classifier.chosen
        classifier.choose(names.labels)
        try:
            yield
        finally:
            classifier.chosen = before
        return
    kept = (classifier.concepts, classifier.groups, classifier.num_classes)
    if text is not None:
        count = sum(map(len, names.phrases))
        progress.start("Reading class names", count, "phrases")
        embedded = embed_vocabulary(names, text, progress=progress.advance)
        progress.finish()
        model.set_concepts(embedded.embeddings, embedded.groups, embedded.num_classes)
    elif classifier.num_classes != len(names):
        raise UsageError(
            f"The model tells {classifier.num_classes} classes apart, and {task.truth.name} asks for {len(names)}.",
            "Give the text encoder of the model too.",
        )
    try:
        yield
    finally:
        if kept[2]:
            model.set_concepts(*kept)
