"""What a detector makes of images whose objects are known.

Letters: R regions (boxes of the annotations), K proposals, V names, N detections. Boxes are xyxy, and in pixels of the
original image unless something else is said.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from regionclip_cli.data.detection_sets import DetectionImage
from regionclip_cli.errors import MissingError
from regionclip_cli.inference.preprocess import InferenceConfig, PreparedImage
from regionclip_cli.vision.classifier import fuse
from regionclip_cli.vision.crop_encoder import CropEncoder
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.proposals.base import Proposals
from regionclip_cli.vision.proposals.static import GivenBoxes


@dataclass(frozen=True, eq=False)
class RegionMatches:
    """How the R known objects of an image were named.

    Attributes:
        truths: (R,) int64, their classes.
        guesses: (R,) int64, the most probable name of each.
        ranks: (R,) int64, how many names were more probable than the right one; 0 is right.
    """

    truths: np.ndarray
    guesses: np.ndarray
    ranks: np.ndarray


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a detector made of one image.

    Attributes:
        boxes: (N, 4) float32, best detection first.
        scores: (N,) float32.
        names: (N,) int64, indices of names.
        named: How the known objects were named, where they were given.
        proposals: (K, 4) float32, best first, where boxes were to be found.
        seconds: Time it took, once the image was decoded.
    """

    boxes: np.ndarray
    scores: np.ndarray
    names: np.ndarray
    named: RegionMatches | None
    proposals: np.ndarray | None
    seconds: float


_Part = tuple[np.ndarray, np.ndarray, np.ndarray, RegionMatches | None, np.ndarray | None]
"""All of `Prediction` but the time."""


class Predictor:
    """A detector that is being measured.

    Args:
        model: Ready to predict: its names were set.
        looking: Test-time settings.
        columns: (C,) int64, the name that stands for each class of the set.
        known_boxes: Name the objects of the annotations instead of finding some.
        crops: Embed each box as a picture of its own, for the naive baseline; None looks at regions.
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
    def look(self, images: Sequence[DetectionImage], ready: Sequence[PreparedImage]) -> list[Prediction]:
        """Look at a batch of images; `ready` has their pixels and, where boxes are given, those boxes."""
        start = time.perf_counter()
        if self.known_boxes:
            parts = self._name(images, ready)
        elif self.crops is None:
            parts = self._find(ready)
        else:
            parts = self._find_by_crops(ready, self.crops)
        seconds = (time.perf_counter() - start) / len(ready)
        return [Prediction(*part, seconds=seconds) for part in parts]

    def _name(self, images: Sequence[DetectionImage], ready: Sequence[PreparedImage]) -> list[_Part]:
        """Name the objects of the annotations; every name of a box is a detection, and no box is refined."""
        boxes = [_tensor(image.boxes.boxes) for image in ready if image.boxes is not None]
        if self.crops is None:
            scaled = [each * _factors(image, each) for image, each in zip(ready, boxes, strict=True)]
            embeddings = self.model.region_embeddings([image.planes for image in ready], scaled)
        else:
            crops = self.crops
            embeddings = [crops(_planes(image), each) for image, each in zip(ready, boxes, strict=True)]
        parts: list[_Part] = []
        for image, its_boxes, regions in zip(images, boxes, embeddings, strict=True):
            probabilities = self.model.classifier.probabilities(regions).float().cpu()  # (R, V)
            truths = torch.from_numpy(image.labels[~image.crowd])
            named = _compare(truths, probabilities, self._columns)
            parts.append((*self._select(its_boxes, probabilities), named, None))
        return parts

    def _find(self, ready: Sequence[PreparedImage]) -> list[_Part]:
        """Find objects as `detect` does."""
        proposed: list[list[Proposals]] = []
        hook = self.model.proposals.register_forward_hook(lambda module, inputs, output: proposed.append(output))
        try:
            samples: list[DetDataSample] = self.model.test_step(
                {"inputs": [image.planes for image in ready], "data_samples": [image.sample() for image in ready]}
            )
        finally:
            hook.remove()
        parts: list[_Part] = []
        for image, sample, found in zip(ready, samples, proposed[0], strict=True):
            chosen = sample.pred_instances
            detections = (_array(chosen.bboxes), _array(chosen.scores), chosen.labels.cpu().numpy().astype(np.int64))
            parts.append((*detections, None, _array(_best_first(found, image))))
        return parts

    def _find_by_crops(self, ready: Sequence[PreparedImage], crops: CropEncoder) -> list[_Part]:
        """Find boxes with the proposal network, and embed each as a picture of its own."""
        model = self.model
        given = {"inputs": [image.planes for image in ready], "data_samples": [image.sample() for image in ready]}
        data = model.data_preprocessor(given, False)
        inputs, samples = data["inputs"], data["data_samples"]
        features = model.extract_feat(inputs, samples) if model.proposals.needs_features else None
        parts: list[_Part] = []
        for image, found in zip(ready, model.proposals(inputs, samples, features), strict=True):
            boxes = _original(found.boxes, image)
            probabilities = model.classifier.probabilities(crops(_planes(image), boxes))
            scores = fuse(probabilities, found.logits, self.inference.scoring.fusion)
            parts.append((*self._select(boxes.cpu(), scores.cpu()), None, _array(_best_first(found, image))))
        return parts

    def _select(self, boxes: Tensor, scores: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the detections among boxes (R, 4) with scores (R, V)."""
        boxes, scores, names, _ = self.inference.scoring.select(boxes, scores)
        return _array(boxes), _array(scores), names.numpy().astype(np.int64)


@contextmanager
def taking_boxes(model: OpenVocabularyDetector, inference: InferenceConfig, given: bool) -> Iterator[None]:
    """Let a detector be measured in the block, and leave it as it was: its mode, source of boxes and scoring.

    Args:
        model: The detector; its classifier is the caller's to set and to restore.
        looking: Test-time settings.
        given: Whether the boxes come with the images.

    Raises:
        MissingError: Boxes are to be found, and the model has no network for it.
    """
    training, source, scoring = model.training, model.proposals, model.scoring
    if not given and isinstance(source, GivenBoxes):
        raise MissingError(
            "The model has no proposal network to find boxes with.",
            "Measure it with boxes: ground-truth or a file, or let another model propose (proposals_from).",
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


def _compare(truths: Tensor, probabilities: Tensor, columns: Tensor) -> RegionMatches:
    """Compare classes (R,) with probabilities (R, V) of names; equal ones rank in the order of the names."""
    own = columns[truths]  # (R,) the right name's column
    right = probabilities.gather(1, own[:, None])
    before = torch.arange(probabilities.shape[1]) < own[:, None]
    ranks = ((probabilities > right) | ((probabilities == right) & before)).sum(dim=1)
    guesses = probabilities.argmax(dim=1) if probabilities.numel() else truths
    return RegionMatches(truths.numpy(), guesses.numpy(), ranks.numpy())


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
