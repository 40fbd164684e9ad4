"""Detection with ONNX Runtime: the same steps as `vision.detector`, without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.hub.graphs import ONNX
from regionclip_cli.hub.model_card import fingerprint
from regionclip_cli.inference.engines import selection
from regionclip_cli.inference.engines.sessions import Graph
from regionclip_cli.inference.preprocess import InferenceConfig, PreparedImage
from regionclip_cli.language.class_names import Vocabulary, learned_places, refuse_distractors
from regionclip_cli.language.graph_text_encoder import GraphTextEncoder
from regionclip_cli.recipe.scoring import Scoring
from regionclip_cli.results.detections import ImageDetections

CHUNK = 64
"""Regions embedded at a time, which bounds memory."""


class OnnxEngine:
    """Runs the graphs of one model on the CPU.

    Args:
        model: The model file whose graphs lie beside it, or the trunk graph itself.
        trunk: The trunk graph.

    Raises:
        MissingError: A graph or onnxruntime is missing.
        UsageError: A graph is damaged or of another model.
    """

    name = "onnx"
    device = "cpu"

    def __init__(self, model: Path, trunk: Path) -> None:
        wanted = None if model.suffix == ONNX else fingerprint(model)
        self._trunk = Graph(trunk, "trunk", wanted)
        facts = self._trunk.facts
        self._path, self._wanted = trunk, facts.fingerprint
        self.card = self._trunk.card
        self.fingerprint = facts.fingerprint
        self._facts = facts
        self._heads: Graph | None = None
        self._regions = Graph(trunk, "regions", self._wanted)
        self.finds_boxes = facts.proposals is not None
        self.encoder = GraphTextEncoder(self.card, facts, lambda: Graph(trunk, "text", self._wanted))
        self._concepts = np.zeros((0, facts.embed_dim), np.float32)
        self._groups = np.zeros(0, np.int64)
        self._chosen = np.zeros(0, np.int64)
        self._classes = 0

    def set_vocabulary(self, vocabulary: Vocabulary, progress: Callable[[int], None] | None = None) -> None:
        """Choose the classes by name; arguments as in `Detector.set_classes`."""
        if self.card.classifier == "linear":
            self._choose(vocabulary)
            return
        phrases = [*(phrase for synonyms in vocabulary.phrases for phrase in synonyms), *vocabulary.distractors]
        counts = [len(synonyms) for synonyms in vocabulary.phrases] + [1] * len(vocabulary.distractors)
        self._set_concepts(self.encoder.embed(phrases, progress=progress), counts, len(vocabulary))

    def set_bank(self, bank: Any, distractors: Sequence[str] = ()) -> None:
        """Choose the classes by a concept bank; arguments as in `Detector.set_bank`."""
        if self.card.classifier == "linear":
            raise UsageError(f"The classifier of {self.card.name!r} takes no embeddings.", "Use --classes.")
        bank.check(self.card.text_model, self._facts.embed_dim)
        rows = bank.embeddings.numpy()
        if distractors:
            bank.check_distractors(distractors)
            rows = np.concatenate([rows, self.encoder.embed(distractors, bank.templates or None)])
        self._set_concepts(rows, [1] * len(rows), len(bank.names))

    def detect(
        self, images: Sequence[PreparedImage], inference: InferenceConfig, labels: tuple[str, ...]
    ) -> list[ImageDetections]:
        """Find the classes in images, all with given boxes or all without."""
        return [self._detect(image, inference.scoring, labels) for image in images]

    def embed(self, image: PreparedImage) -> np.ndarray:
        """Return the embeddings (R, D) float32 of the given boxes of an image."""
        maps = self._trunk.run(images=image.planes[None])
        boxes, _ = _given(image)
        return self._embed(maps, boxes)["embeddings"]

    def _detect(self, image: PreparedImage, scoring: Scoring, labels: tuple[str, ...]) -> ImageDetections:
        """Return the detections of one image."""
        maps = self._trunk.run(images=image.planes[None])
        boxes, logits = _given(image) if image.boxes is not None else self._propose(image, maps, scoring)
        found = self._embed(maps, boxes)
        height, width = image.planes.shape[1:]
        if "deltas" in found:
            boxes = selection.decode_deltas(boxes, found["deltas"])
        boxes = selection.clip(boxes, height, width)
        scores = selection.score(self._probabilities(found), logits, scoring)
        boxes, scores, ids = selection.select_detections(boxes, scores, scoring)
        boxes = selection.clip(boxes / np.array([*image.scale, *image.scale], np.float32), image.height, image.width)
        return image.named(boxes, scores, ids, labels)

    def _propose(
        self, image: PreparedImage, maps: dict[str, np.ndarray], scoring: Scoring
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the proposals of one image, best first: boxes (K, 4) in network pixels and logits (K,)."""
        how = self._facts.proposals
        if how is None:
            raise MissingError(f"The model {self.card.name!r} has no proposal network to find boxes with.")
        if self._heads is None:
            self._heads = Graph(self._path, "proposals", self._wanted)
        inputs = {"images": image.planes[None]} if how.reads == "images" else {"features": maps["features"]}
        dense = self._heads.run(**inputs)
        return selection.select_proposals(
            dense["boxes"][0],
            dense["logits"][0],
            dense["levels"],
            (image.planes.shape[1], image.planes.shape[2]),
            nms_iou=how.nms_iou if scoring.proposal_iou is None else scoring.proposal_iou,
            pre_nms=how.pre_nms if scoring.pre_nms is None else scoring.pre_nms,
            max_proposals=how.max_proposals if scoring.max_proposals is None else scoring.max_proposals,
            across_levels=how.across_levels,
        )

    def _embed(self, maps: dict[str, np.ndarray], boxes: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of the regions graph for boxes (R, 4) of one image."""
        if not len(boxes):
            columns = {"embeddings": self._facts.embed_dim, "deltas": 4, "logits": len(self.card.classes) + 1}
            known = ["embeddings", *(["logits"] if self.card.classifier == "linear" else [])]
            return {name: np.zeros((0, columns[name]), np.float32) for name in known}
        read = {name: maps[name] for name in self._facts.grids}
        parts = []
        for start in range(0, len(boxes), CHUNK):
            some = np.ascontiguousarray(boxes[start : start + CHUNK], np.float32)
            parts.append(self._regions.run(boxes=some, image=np.zeros(len(some), np.int64), **read))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _probabilities(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """Return the class probabilities (R, C); distractors and background take their share."""
        if self.card.classifier == "linear":
            return selection.softmax(found["logits"])[:, self._chosen]
        cosines = selection.normalised(found["embeddings"]) @ self._concepts.T
        logits = cosines / np.float32(self.card.temperature)  # (R, N)
        starts = np.flatnonzero(np.diff(self._groups, prepend=-1))
        best = np.maximum.reduceat(logits, starts, axis=1) if len(logits) else logits[:, starts]
        with_background = np.concatenate([best, np.zeros((len(best), 1), best.dtype)], axis=1)
        return selection.softmax(with_background)[:, : self._classes]

    def _set_concepts(self, rows: np.ndarray, counts: Sequence[int], classes: int) -> None:
        self._concepts = selection.normalised(np.asarray(rows, np.float32))
        self._groups = np.repeat(np.arange(len(counts)), counts)
        self._classes = classes

    def _choose(self, vocabulary: Vocabulary) -> None:
        """Choose among the classes of a learned layer."""
        refuse_distractors(vocabulary, self.card.name)
        self._chosen = np.array(learned_places(vocabulary.labels, self.card.classes), np.int64)


def _given(image: PreparedImage) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the given boxes (R, 4) in network pixels and their logits (R,)."""
    if image.boxes is None:
        raise ValueError(f"{image.name} has no boxes")
    boxes = image.boxes.boxes * np.array([*image.scale, *image.scale], np.float32)
    if image.boxes.scores is None:
        return boxes, None
    scores = np.clip(image.boxes.scores.astype(np.float64), 1e-12, 1 - 1e-12)
    return boxes, np.log(scores / (1 - scores)).astype(np.float32)
