"""Evaluate a detector on an annotated set: predict for every image once, store the predictions, score them.

    measured = measure(detector, truth, EvaluateSection(split="coco-48-17"), text=TextEncoder(path))
    measured.summary["novel"]["AP50"]

A training loop may call it between two steps: it restores the detector.
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
from regionclip_cli.evaluation.metrics import EvalResult, compute_metrics
from regionclip_cli.evaluation.predictions import ImagePrediction, PredictionStore
from regionclip_cli.evaluation.predictor import Predictor, evaluating
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
    """Evaluate a detector on a set.

    Args:
        model: The detector. Its mode, class names, proposals and scoring are restored.
        truth: The annotated set.
        settings: How to evaluate; `model`, `predictions` and the location of the set are ignored.
        text: Encodes the names that compete. Without it the model keeps its classes, which must be those of the set
            (or the split), in their order.
        card: Of the model, for its image size; without it 800 to 1333 pixels as in the paper.
        boxes: Content of the file in `settings.boxes`, if it names one.
        folder: Where predictions are stored (default: a temporary folder).
        share: The images of this process.
        resume: Continue the run in `folder`.
        progress: Receives progress and warnings.

    Returns:
        The result; without scores where other processes have not finished.

    Raises:
        UsageError: Names do not fit the set or the model, or `folder` has predictions and `resume` is not set.
        MissingError: The model has no text encoder, or no proposal network where boxes are not given.
    """
    progress = progress or Silent()
    task = build_task(truth, settings)
    inference = choose_inference_config(settings, task, card, refines=model.box_head is not None)
    known = settings.boxes == GROUND_TRUTH
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regionclip-")))
        predictions = stack.enter_context(closing(PredictionStore(folder, share, resume)))
        stack.enter_context(class_names(model, task, text, progress))
        stack.enter_context(evaluating(model, inference, given=known or boxes is not None))
        crops = CropEncoder(model.backbone) if settings.crops else None
        predictor = Predictor(model, inference, task.columns(), known, crops)
        _Pass(task, predictor, inference, predictions, boxes, progress).work(share or Share(), settings.batch)
        missing = len(task.truth) - len(predictions.images() & task.truth.places_by_id.keys())
        if missing:
            return EvalResult(task, {}, None, missing=missing)
        return compute_metrics(task, predictions.read())


class _Pass:
    """One pass over a share of a set."""

    def __init__(
        self,
        task: Task,
        predictor: Predictor,
        inference: InferenceConfig,
        predictions: PredictionStore,
        boxes: BoxFile | None,
        progress: Progress,
    ) -> None:
        self.truth, self.predictor, self.inference = task.truth, predictor, inference
        self.predictions, self.boxes, self.progress = predictions, boxes, progress

    def work(self, share: Share, batch: int) -> None:
        """Predict for every image that is not done yet."""
        places = share.of(len(self.truth))
        self.progress.start("Evaluating", len(places), "images")
        with closing(prefetch(self._left(places), self._read, ahead=batch + 2)) as reading:
            while arrived := list(islice(reading, batch)):
                whole = [(image, ready) for image, ready in arrived if not isinstance(ready, InputError)]
                self._predict([image for image, _ in whole], [ready for _, ready in whole])
                for image, problem in arrived:
                    if isinstance(problem, InputError):
                        self.progress.warn(str(problem))
                        self.predictions.write(image, ImagePrediction.empty(image.id, error=str(problem)))
                self.progress.advance(len(arrived))
        self.progress.finish()

    def _left(self, places: range) -> Iterator[DetectionImage]:
        """Yield the images to read; with ground-truth boxes, those without objects need no prediction."""
        for place in places:
            image: DetectionImage = self.truth[place]
            if image.id in self.predictions.finished:
                self.progress.advance()
            elif self.predictor.known_boxes and image.crowd.all():
                none = np.zeros(0, np.int64)
                self.predictions.write(image, ImagePrediction.empty(image.id, truths=none, guesses=none, ranks=none))
                self.progress.advance()
            else:
                yield image

    def _read(self, image: DetectionImage) -> PreparedImage:
        """Read one image; called from several threads."""
        pixels = decode(image.read(), image.name)
        height, width = pixels.shape[:2]
        if (width, height) != (image.width, image.height):
            raise InputError(
                f"{image.name} is {width} x {height} pixels; the annotations give {image.width} x {image.height}."
            )
        given = None
        if self.predictor.known_boxes:
            given = GivenBoxes(image.boxes[~image.crowd])
        elif self.boxes is not None:
            given, _ = self.boxes.find(image.name).within(image.name, width, height)
        return prepare_image(image.name, pixels, self.inference, given, keep=self.predictor.crops is not None)

    def _predict(self, images: list[DetectionImage], ready: list[PreparedImage]) -> None:
        """Predict for a batch and store the predictions."""
        if images:
            for image, prediction in zip(images, self.predictor.predict(images, ready), strict=True):
                self.predictions.write(image, prediction)


@contextmanager
def class_names(
    model: OpenVocabularyDetector, task: Task, text: TextEncoder | None, progress: Progress
) -> Iterator[None]:
    """Set the class names of a task in the block, and restore those of the detector afterwards.

    Raises:
        UsageError: The model has fixed classes, and they are others.
        MissingError: The model has no text encoder.
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
        progress.start("Embedding class names", count, "phrases")
        embedded = embed_vocabulary(names, text, progress=progress.advance)
        progress.finish()
        model.set_concepts(embedded.embeddings, embedded.groups, embedded.num_classes)
    elif classifier.num_classes != len(names):
        raise UsageError(
            f"The model has {classifier.num_classes} classes, and {task.truth.name} needs {len(names)}.",
            "Pass the text encoder of the model too.",
        )
    try:
        yield
    finally:
        if kept[2]:
            model.set_concepts(*kept)
