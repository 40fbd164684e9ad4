"""What a teacher knows about the regions of images, be it running along or from labels it has written before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from regionclip_cli.errors import UsageError
from regionclip_cli.hub.model_card import read_card
from regionclip_cli.vision.batches import Images
from regionclip_cli.vision.classifier import match_concepts
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.model_io import load_detector, load_teacher


@dataclass(frozen=True)
class Knowledge:
    """The regions of one image and how a teacher matches them to concepts.

    Attributes:
        boxes: (R, 4) xyxy in pixels of the network's input.
        concepts: (R, k) long, the best concepts first.
        probs: (R, k) float32, their probabilities.
        full: (R, C) float32, the probabilities of all concepts, where they are known.
    """

    boxes: Tensor
    concepts: Tensor
    probs: Tensor
    full: Tensor | None = None

    def only(self, kept: Tensor) -> Knowledge:
        """Return the regions that a mask (R,) keeps."""
        full = None if self.full is None else self.full[kept]
        return replace(self, boxes=self.boxes[kept], concepts=self.concepts[kept], probs=self.probs[kept], full=full)


def from_labels(samples: Sequence[DetDataSample], device: torch.device) -> list[Knowledge]:
    """Return what labels say, which came with the samples as `sample.regions`: arrays `bboxes`, `concepts`, `probs`.

    Raises:
        UsageError: A sample has no labels.
    """
    known = []
    for sample in samples:
        if "regions" not in sample:
            raise UsageError("An image came without region labels, and no teacher runs along.")
        regions = sample.regions
        arrays = (torch.as_tensor(array, device=device) for array in (regions.bboxes, regions.concepts, regions.probs))
        boxes, concepts, probs = arrays
        known.append(Knowledge(boxes.float(), concepts.long(), probs.float()))
    return known


class OnlineTeacher(nn.Module):
    """A frozen CLIP model that finds and names regions while a student learns from it, as in the paper.

    Args:
        tower: Embeds regions.
        finder: Proposes them; often the same network.
        concepts: (C, D') concept embeddings in the teacher's space, in the order of the student's.
        temperature: Divisor of the cosine.
        regions: How many of an image's proposals are drawn in each step.
    """

    concepts: Tensor

    def __init__(
        self,
        tower: OpenVocabularyDetector,
        finder: OpenVocabularyDetector,
        concepts: Tensor,
        temperature: float = 0.01,
        regions: int = 100,
    ) -> None:
        super().__init__()
        if concepts.shape[1] != tower.backbone.embed_dim:
            raise UsageError(
                f"Concepts of {concepts.shape[1]} dimensions cannot name regions of {tower.backbone.embed_dim}.",
                "The teacher needs the concepts as its own text encoder embeds them.",
            )
        self.tower, self.finder = tower, finder
        self.register_buffer("concepts", concepts.float(), persistent=False)
        self.temperature, self.regions = temperature, regions
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> OnlineTeacher:
        """Stay in evaluation mode, whatever is asked."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, images: Images, samples: Sequence[DetDataSample]) -> list[Knowledge]:
        """Name regions of a batch, in full precision whatever the student computes in.

        Which of an image's proposals are drawn depends on `seed` in its sample's metainfo alone.

        Args:
            images: RGB in 0..255, each of its own size.
            samples: One for each image, with `img_shape`.
        """
        with torch.autocast(self.concepts.device.type, enabled=False):
            seen = self.finder.extract_feat(images, samples) if self._finder_looks else None
            features = seen if self._finder_looks and self.finder is self.tower else None
            found = self.finder.proposals(images, samples, seen)
            boxes = [self._some(each.boxes, sample) for each, sample in zip(found, samples, strict=True)]
            features = self.tower.extract_feat(images, samples) if features is None else features
            regions = self.tower.region_encoder(features, boxes)
            full = match_concepts(regions, self.concepts, self.temperature)  # (sum of R, C)
        parts = zip(boxes, full.split([len(each) for each in boxes]), strict=True)
        known = []
        for its, probs in parts:
            score, concept = probs.max(dim=1, keepdim=True)
            known.append(Knowledge(its, concept, score, probs))
        return known

    @property
    def _finder_looks(self) -> bool:
        return self.finder.proposals.needs_features

    def _some(self, boxes: Tensor, sample: DetDataSample) -> Tensor:
        """Draw `regions` of boxes (K, 4), each as likely as any other."""
        if len(boxes) <= self.regions:
            return boxes
        generator = torch.Generator().manual_seed(int(sample.get("seed", 0)) % 2**63)
        order = torch.randperm(len(boxes), generator=generator)[: self.regions]
        return boxes[order.to(boxes.device)]


def load_online_teacher(
    teacher: Path,
    proposals: Path,
    concepts: Tensor,
    *,
    temperature: float = 0.01,
    regions: int = 100,
    most: int = 300,
    nms_iou: float = 0.5,
) -> OnlineTeacher:
    """Load a teacher from model files.

    A head on the trunk proposes with the trunk it was trained on; networks that look at pixels need none. Where
    `teacher` is a pretraining checkpoint that carries its own teacher, that tower is taken.

    Args:
        teacher: The model that names regions.
        proposals: The model that finds them; may be the same file.
        concepts: (C, D') in the teacher's space.
        temperature: Divisor of the cosine.
        regions: Regions drawn from an image's proposals.
        most: Best proposals of an image to draw from.
        nms_iou: Of two proposals that overlap more than this, the lower is dropped.

    Raises:
        MissingError: A file has no proposal network.
        UsageError: A file does not fit what it says about itself.
    """
    inside = read_card(teacher).teacher is not None
    on_trunk = read_card(proposals).head_on_trunk
    if inside or on_trunk or proposals == teacher:
        finder = load_detector(proposals)[0]
    else:
        finder = load_detector(teacher, proposals_from=proposals)[0]
    if inside:
        tower = OpenVocabularyDetector(load_teacher(teacher), {"type": "given"})
    elif proposals == teacher or not on_trunk:
        tower = finder
    else:
        tower = load_detector(teacher)[0]
    finder.proposals.configure(nms_iou=nms_iou, max_proposals=most)
    return OnlineTeacher(tower, finder, concepts, temperature, regions)
