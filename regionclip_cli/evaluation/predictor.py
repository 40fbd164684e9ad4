"""Predictions of a detector for annotated images.

Letters: R regions (boxes of the annotations), K proposals, V names, N detections. Boxes are xyxy in pixels of the
original image unless stated otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from regionclip_cli.data.detection_sets import DetectionImage
from regionclip_cli.errors import MissingError
from regionclip_cli.evaluation.matching import count_hits
from regionclip_cli.evaluation.metrics import LIMITS
from regionclip_cli.evaluation.predictions import ImagePrediction
from regionclip_cli.inference.preprocess import InferenceConfig, PreparedImage
from regionclip_cli.vision.classifier import fuse
from regionclip_cli.vision.crop_encoder import CropEncoder
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.postprocess import select
from regionclip_cli.vision.proposals.base import Proposals
from regionclip_cli.vision.proposals.static import GivenBoxes


class Predictor:
    """A detector under evaluation.

    Args:
        model: The detector; its class names are set.
        inference: Test-time settings.
        columns: (C,) int64, the name that stands for each class of the set.
        known_boxes: Classify the annotated boxes instead of detecting objects.
        crops: Encode each box as an image of its own, for the cropping baseline; None uses region features.
    """

    def __init__(
        self,
        model: OpenVocabularyDetector,
        inference: InferenceConfig,
        columns: np.ndarray,
        known_boxes: bool = False,
        crops: CropEncoder | None = None,
    ) -> None:
        self.model, self.inference, self.known_boxes, self.crops = model, inference, known_boxes, crops
        self._columns = torch.from_numpy(columns)

    @torch.no_grad()
    def predict(self, images: Sequence[DetectionImage], ready: Sequence[PreparedImage]) -> list[ImagePrediction]:
        """Return the predictions for a batch; `ready` has the pixels and, where boxes are given, those boxes."""
        start = time.perf_counter()
        if self.known_boxes:
            found = self._classify(images, ready)
        elif self.crops is None:
            found = self._detect(images, ready)
        else:
            found = self._detect_by_crops(images, ready, self.crops)
        seconds = (time.perf_counter() - start) / len(ready)
        return [replace(prediction, seconds=seconds) for prediction in found]

    def _classify(self, images: Sequence[DetectionImage], ready: Sequence[PreparedImage]) -> list[ImagePrediction]:
        """Classify the annotated boxes; every name of a box is a detection, and no box is refined."""
        boxes = [_tensor(image.boxes.boxes) for image in ready if image.boxes is not None]
        if self.crops is None:
            scaled = [each * _factors(image, each) for image, each in zip(ready, boxes, strict=True)]
            embeddings = self.model.region_embeddings([image.tensor() for image in ready], scaled)
        else:
            crops = self.crops
            embeddings = [crops(_planes(image), each) for image, each in zip(ready, boxes, strict=True)]
        predictions = []
        for image, its_boxes, regions in zip(images, boxes, embeddings, strict=True):
            probabilities = self.model.classifier.probabilities(regions).float().cpu()  # (R, V)
            truths = torch.from_numpy(image.labels[~image.crowd])
            matches = _compare(truths, probabilities, self._columns)
            predictions.append(ImagePrediction(image.id, *self._select(its_boxes, probabilities), *matches))
        return predictions

    def _detect(self, images: Sequence[DetectionImage], ready: Sequence[PreparedImage]) -> list[ImagePrediction]:
        """Detect objects as the command `detect` does."""
        proposed: list[list[Proposals]] = []
        hook = self.model.proposals.register_forward_hook(lambda module, inputs, output: proposed.append(output))
        try:
            samples: list[DetDataSample] = self.model.test_step(
                {"inputs": [image.tensor() for image in ready], "data_samples": [image.sample() for image in ready]}
            )
        finally:
            hook.remove()
        predictions = []
        for image, prepared, sample, found in zip(images, ready, samples, proposed[0], strict=True):
            chosen = sample.pred_instances
            labels = chosen.labels.cpu().numpy().astype(np.int64)
            hits = _count_hits(image, prepared, found)
            predictions.append(
                ImagePrediction(image.id, _array(chosen.bboxes), _array(chosen.scores), labels, hits=hits)
            )
        return predictions

    def _detect_by_crops(
        self, images: Sequence[DetectionImage], ready: Sequence[PreparedImage], crops: CropEncoder
    ) -> list[ImagePrediction]:
        """Find boxes with the proposal network, and encode each as an image of its own."""
        model = self.model
        given = {"inputs": [image.tensor() for image in ready], "data_samples": [image.sample() for image in ready]}
        data = model.data_preprocessor(given, False)
        inputs, samples = data["inputs"], data["data_samples"]
        features = model.extract_feat(inputs, samples) if model.proposals.needs_features else None
        predictions = []
        proposed = model.proposals(inputs, samples, features)
        for image, prepared, found in zip(images, ready, proposed, strict=True):
            boxes = _original(found.boxes, prepared)
            probabilities = model.classifier.probabilities(crops(_planes(prepared), boxes))
            scores = fuse(probabilities, found.logits, self.inference.scoring.fusion)
            hits = _count_hits(image, prepared, found)
            predictions.append(ImagePrediction(image.id, *self._select(boxes.cpu(), scores.cpu()), hits=hits))
        return predictions

    def _select(self, boxes: Tensor, scores: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the detections among boxes (R, 4) with scores (R, V)."""
        boxes, scores, names, _ = select(self.inference.scoring, boxes, scores)
        return _array(boxes), _array(scores), names.numpy().astype(np.int64)


@contextmanager
def evaluating(model: OpenVocabularyDetector, inference: InferenceConfig, given: bool) -> Iterator[None]:
    """Set a detector up for evaluation in the block, and restore its mode, proposals and scoring afterwards.

    Args:
        model: The detector; the caller sets and restores its classifier.
        inference: Test-time settings.
        given: Whether boxes are given with the images.

    Raises:
        MissingError: Boxes are not given, and the model has no proposal network.
    """
    training, source, scoring = model.training, model.proposals, model.scoring
    if not given and isinstance(source, GivenBoxes):
        raise MissingError(
            "The model has no proposal network to find boxes with.",
            "Evaluate with boxes (ground-truth or a file), or set proposals_from to another model.",
        )
    try:
        model.eval()
        if given:
            model.proposals = GivenBoxes()
        model.set_scoring(inference.scoring)
        yield
    finally:
        model.proposals = source
        model.set_scoring(scoring)
        model.train(training)


def _compare(truths: Tensor, probabilities: Tensor, columns: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truths, guesses and ranks (R,), as in `ImagePrediction`, of classes (R,) and probabilities (R, V).

    Equal probabilities rank in the order of the names.
    """
    own = columns[truths]  # (R,) the right name's column
    right = probabilities.gather(1, own[:, None])
    before = torch.arange(probabilities.shape[1]) < own[:, None]
    ranks = ((probabilities > right) | ((probabilities == right) & before)).sum(dim=1)
    guesses = probabilities.argmax(dim=1) if probabilities.numel() else truths
    return truths.numpy(), guesses.numpy(), ranks.numpy()


def _count_hits(image: DetectionImage, prepared: PreparedImage, found: Proposals) -> np.ndarray:
    return count_hits(image.boxes[~image.crowd], _array(_best_first(found, prepared)), LIMITS)


def _best_first(found: Proposals, image: PreparedImage) -> Tensor:
    """Return proposals (K, 4) by falling objectness."""
    boxes = found.boxes if found.logits is None else found.boxes[found.logits.argsort(descending=True, stable=True)]
    return _original(boxes, image)


def _original(boxes: Tensor, image: PreparedImage) -> Tensor:
    """Return boxes (K, 4) of the network's input in pixels of the original, inside it."""
    placed = boxes.float() / _factors(image, boxes)
    limits = placed.new_tensor([image.width, image.height, image.width, image.height])
    return torch.minimum(placed.clamp(min=0), limits)


def _factors(image: PreparedImage, like: Tensor) -> Tensor:
    return torch.tensor([*image.scale, *image.scale], dtype=torch.float32, device=like.device)


def _planes(image: PreparedImage) -> Tensor:
    """Return the original pixels as (3, H, W) uint8."""
    if image.pixels is None:
        raise ValueError(f"the pixels of {image.name} were not kept")
    return torch.from_numpy(np.ascontiguousarray(image.pixels.transpose(2, 0, 1)))


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
