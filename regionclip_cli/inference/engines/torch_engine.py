"""Detection with torch: any model, on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from regionclip_cli.hub.model_card import fingerprint
from regionclip_cli.inference.device import choose_device, choose_dtype
from regionclip_cli.inference.preprocess import InferenceConfig, PreparedImage
from regionclip_cli.language.class_names import Vocabulary, refuse_distractors
from regionclip_cli.language.concept_bank import ConceptBank
from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.language.vocabulary_embedding import EmbeddedVocabulary, embed_bank, embed_vocabulary
from regionclip_cli.results.detections import ImageDetections
from regionclip_cli.vision.library_log import redirect_mmengine_logs
from regionclip_cli.vision.linear_classifier import LinearClassifier
from regionclip_cli.vision.model_io import load_detector
from regionclip_cli.vision.proposals.build import build_proposals


class TorchEngine:
    """Runs a detector of `vision`.

    Args:
        model: The model file.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: `auto` (fp32), `fp32` or `bf16`.
        proposals: Another model file whose proposal network finds the boxes.

    Raises:
        MissingError: A file or part is missing.
        UsageError: The file is not a model, or the device is not available.
    """

    name = "torch"

    def __init__(self, model: Path, device: str = "auto", dtype: str = "auto", proposals: Path | None = None) -> None:
        redirect_mmengine_logs()
        self.device = choose_device(device)
        self.model, self.card = load_detector(
            model, device=self.device, dtype=choose_dtype(dtype), proposals_from=proposals
        )
        if proposals is not None:  # the objectness of another network has another scale
            self.card = self.card.model_copy(update={"calibration": None})
        self.fingerprint = fingerprint(model)
        self.finds_boxes = self.card.proposals is not None or proposals is not None
        self._own_proposals = self.model.proposals
        self._given_boxes = build_proposals({"type": "given"})
        self.encoder = TextEncoder(model, self.device)

    def set_vocabulary(self, vocabulary: Vocabulary, progress: Callable[[int], None] | None = None) -> None:
        """Choose the classes by name; arguments as in `Detector.set_classes`."""
        classifier = self.model.classifier
        if not isinstance(classifier, LinearClassifier):
            self._set_concepts(embed_vocabulary(vocabulary, self.encoder, progress=progress))
            return
        refuse_distractors(vocabulary, self.card.name)
        classifier.choose(vocabulary.labels)

    def set_bank(self, bank: ConceptBank, distractors: Sequence[str] = ()) -> None:
        """Choose the classes by a concept bank; arguments as in `Detector.set_bank`."""
        bank.check(self.card.text_model, self.encoder.dim)
        self._set_concepts(embed_bank(bank, distractors, self.encoder))

    def detect(
        self, images: Sequence[PreparedImage], inference: InferenceConfig, labels: tuple[str, ...]
    ) -> list[ImageDetections]:
        """Find the classes in images, all with given boxes or all without."""
        given = images[0].boxes is not None
        self.model.proposals = self._given_boxes if given else self._own_proposals
        self.model.set_scoring(inference.scoring)
        samples = [image.sample() for image in images]
        with torch.no_grad():
            samples = self.model.test_step({"inputs": [image.tensor() for image in images], "data_samples": samples})
        return [image.detections(sample.pred_instances, labels) for image, sample in zip(images, samples, strict=True)]

    def embed(self, image: PreparedImage) -> np.ndarray:
        """Return the embeddings (R, D) float32 of the given boxes of an image."""
        (embeddings,) = self.model.region_embeddings([image.tensor()], [image.sample().proposals.bboxes])
        return embeddings.float().cpu().numpy()

    def _set_concepts(self, embedded: EmbeddedVocabulary) -> None:
        self.model.set_concepts(embedded.embeddings, embedded.groups, embedded.num_classes)
