"""Region-text pretraining as an mmengine model: a student detector, and the three losses it learns from.

RegionCLIP section 3.2. A teacher says of each region how well it matches every concept of a pool. The student learns to
say the same (distillation), to tell the best concept of a region from those of the other regions (contrast), and to
tell the caption of an image from those of the other images (as CLIP was trained). Texts are frozen.

Letters: B images, R regions, C concepts, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from regionclip_cli.errors import UsageError
from regionclip_cli.registry import MODELS
from regionclip_cli.vision import losses
from regionclip_cli.vision.batches import Images, UnpaddedImages
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.distributed import gathered, rank_weight, summed
from regionclip_cli.vision.teacher import Knowledge, OnlineTeacher, from_labels

Texts = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class Objectives:
    """Which losses count how much, and between whom; the defaults are the paper's.

    Attributes:
        region_text: Weight of the contrast of regions and concepts.
        distill: Weight of the distillation.
        image_text: Weight of the contrast of images and captions.
        temperature: Divisor of the cosine in all of them.
        min_score: Regions whose best concept is not above this are left out; where none of the batch is, all stay.
        gather_regions: Treat the regions of all processes as one batch, and not only those of each.
        whole_image: The region that stands for an image: its valid area, or the padded canvas as in the official code.
    """

    region_text: float = 1.0
    distill: float = 1.0
    image_text: float = 1.0
    temperature: float = 0.01
    min_score: float = 0.1
    gather_regions: bool = False
    whole_image: Literal["valid", "padded"] = "valid"


@MODELS.register_module()
class RegionTextPretrainer(BaseModel):
    """Trains the backbone of a detector on named regions.

    Images are as `OpenVocabularyDetector` takes them. A sample's metainfo holds `caption`, and without a teacher the
    sample has `regions`, see `from_labels`.

    Args:
        student: The detector; what is not frozen of its backbone is trained, and nothing else of it.
        concepts: (C, D) concept embeddings in the student's space, normalised or not.
        objectives: The losses.
        teacher: Runs along; None: samples come with labels.
        texts: Captions to (B, D), needed for the image-text loss.

    Raises:
        UsageError: Concepts of another dimension; an image-text loss without texts.
    """

    concepts: Tensor

    def __init__(
        self,
        student: OpenVocabularyDetector,
        concepts: Tensor,
        objectives: Objectives = Objectives(),
        teacher: OnlineTeacher | None = None,
        texts: Texts | None = None,
    ) -> None:
        super().__init__(UnpaddedImages())
        if concepts.shape[1] != student.backbone.embed_dim:
            raise UsageError(
                f"Concepts of {concepts.shape[1]} dimensions cannot teach a student of {student.backbone.embed_dim}.",
                "Make the bank with the model that training starts from.",
            )
        if objectives.image_text and texts is None:
            raise UsageError("The image-text loss needs a text encoder.", "Or set losses.image_text to 0.")
        for name, part in student.named_children():
            if name != "backbone":
                part.requires_grad_(False)
        self.student, self.teacher, self.texts = student, teacher, texts
        self.objectives = objectives
        self.register_buffer("concepts", concepts.detach().float(), persistent=False)
        self._checkpointing = False

    def checkpoint_activations(self) -> None:
        """Compute what lies inside trunk and pool twice, and keep only what goes in and out."""
        self._checkpointing = True

    def compile(self, *_: Any, **__: Any) -> None:
        """Compile the student's trunk and pool, where nearly all time is spent; sizes may vary."""
        backbone = self.student.backbone
        backbone.trunk = torch.compile(backbone.trunk, dynamic=True)  # type: ignore[method-assign]
        backbone.pool = torch.compile(backbone.pool, dynamic=True)  # type: ignore[method-assign]
        self.student.region_encoder.path = "plain"

    def forward(self, inputs: Images, data_samples: list[DetDataSample] | None = None, mode: str = "tensor") -> Any:
        """Return the losses (`mode="loss"`) of B images, or their embeddings (B, D)."""
        samples = data_samples or [DetDataSample(metainfo={"img_shape": tuple(one.shape[-2:])}) for one in inputs]
        if mode == "loss":
            return self.loss(inputs, samples)
        features = self.student.extract_feat(inputs, samples)
        return self.student.region_encoder(features, self.whole_images(inputs, samples))

    def loss(self, inputs: Images, samples: list[DetDataSample]) -> dict[str, Tensor]:
        """Return the weighted losses that are on, and `regions`, how many of each image they are over."""
        o = self.objectives
        regional = bool(o.region_text or o.distill)
        known = self._known(inputs, samples) if regional else []
        whole = self.whole_images(inputs, samples) if o.image_text else []
        boxes = [its.boxes for its in known] + whole
        images = [*range(len(known)), *range(len(whole))]
        embeddings = self._embed(inputs, samples, boxes, images).split([len(its) for its in boxes])
        found: dict[str, Tensor] = {}
        if regional:
            found |= self.region_losses(torch.cat(embeddings[: len(known)]), known)
            found["regions"] = torch.tensor(float(sum(len(its.boxes) for its in known)) / len(samples))
        if o.image_text:
            captions = self._encode([sample.get("caption", "") for sample in samples])
            own = torch.cat(embeddings[len(known) :])
            both = losses.image_text(gathered(own), gathered(captions), o.temperature)
            found["loss_image_text"] = o.image_text * both
        return found

    def region_losses(self, regions: Tensor, known: Sequence[Knowledge]) -> dict[str, Tensor]:
        """Return the two losses of region embeddings (R, D), about which a teacher knows `known`, in that order."""
        o = self.objectives
        targets = torch.cat([its.concepts[:, 0] for its in known])
        found = {}
        # The mean over the regions of all processes, however many of them are this one's.
        share = rank_weight(len(regions), regions.device) if o.distill or o.gather_regions else 1.0
        if o.distill:
            full = [its.full for its in known if its.full is not None]
            if len(full) == len(known):
                loss = losses.region_distillation(regions, self.concepts, torch.cat(full), o.temperature)
            else:
                best = torch.cat([its.concepts for its in known])
                probs = torch.cat([its.probs for its in known])
                loss = losses.partial_distillation(regions, self.concepts, best, probs, o.temperature)
            found["loss_distill"] = o.distill * share * loss
        if o.region_text:
            counts = summed(targets.bincount(minlength=len(self.concepts))) if o.gather_regions else None
            loss = losses.concept_contrastive(regions, self.concepts, targets, o.temperature, counts)
            found["loss_region_text"] = o.region_text * (share if o.gather_regions else 1.0) * loss
        return found

    def keep(self, known: Sequence[Knowledge]) -> list[Knowledge]:
        """Leave out regions whose best concept is not above `min_score`; all stay where none of the batch is."""
        passed = [its.probs[:, 0] > self.objectives.min_score for its in known]
        count = torch.stack([mask.sum() for mask in passed]).sum()
        if not int(summed(count) if self.objectives.gather_regions else count):
            return list(known)
        return [its.only(mask) for its, mask in zip(known, passed, strict=True)]

    def whole_images(self, inputs: Images, samples: Sequence[DetDataSample]) -> list[Tensor]:
        """Return for each image the region (1, 4) that stands for all of it."""
        device = inputs[0].device
        sizes = [sample.img_shape[:2] for sample in samples]
        if self.objectives.whole_image == "padded":
            sizes = [tuple(max(side) for side in zip(*sizes, strict=True))] * len(sizes)
        return [torch.tensor([[0, 0, width, height]], dtype=torch.float32, device=device) for height, width in sizes]

    def _known(self, inputs: Images, samples: Sequence[DetDataSample]) -> list[Knowledge]:
        known = from_labels(samples, inputs[0].device) if self.teacher is None else self.teacher(inputs, samples)
        return self.keep(known)

    def _embed(
        self, inputs: Images, samples: Sequence[DetDataSample], boxes: Sequence[Tensor], images: Sequence[int]
    ) -> Tensor:
        """Return the student's embeddings (sum of R, D) of boxes, each group of them in the image of that number."""
        student = self.student
        if self._checkpointing:
            features = checkpoint(student.extract_feat, inputs, samples, use_reentrant=False)
        else:
            features = student.extract_feat(inputs, samples)
        groups = [
            (features[image], some)
            for image, its in zip(images, boxes, strict=True)
            for some in its.split(student.region_encoder.chunk)
            if len(some)
        ]
        if not groups:
            # All weights must have a part in the loss, or processes with regions would wait for their gradients.
            return student.region_encoder(features[:1], self.whole_images(inputs[:1], samples[:1]))[:0]
        if self._checkpointing:
            encoder = student.region_encoder
            return torch.cat([checkpoint(encoder, [one], [some], use_reentrant=False) for one, some in groups])
        return torch.cat([student.region_encoder([one], [some]) for one, some in groups])

    @torch.no_grad()
    def _encode(self, captions: Sequence[str]) -> Tensor:
        """Return the frozen embeddings (B, D) of captions, in full precision."""
        if self.texts is None:
            raise UsageError("The image-text loss needs a text encoder.")
        with torch.autocast(self.concepts.device.type, enabled=False):
            return self.texts(captions).to(self.concepts.device)
