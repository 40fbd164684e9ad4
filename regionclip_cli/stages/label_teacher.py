"""The teacher of RegionCLIP section 3.2: finds regions, embeds them, and names each by its best concepts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from regionclip_cli.data.region_labels.format import RegionLabel
from regionclip_cli.errors import UsageError
from regionclip_cli.hub.model_card import read_card
from regionclip_cli.inference.device import choose_device, choose_dtype
from regionclip_cli.inference.preprocess import PreparedImage
from regionclip_cli.stages.label_plan import Plan
from regionclip_cli.vision.batches import Images
from regionclip_cli.vision.classifier import match_concepts
from regionclip_cli.vision.crop_encoder import CropEncoder
from regionclip_cli.vision.detector import OpenVocabularyDetector, clip_boxes
from regionclip_cli.vision.library_log import redirect_mmengine_logs
from regionclip_cli.vision.model_io import load_detector, load_teacher
from regionclip_cli.vision.proposals.base import Proposals, ProposalSource
from regionclip_cli.vision.proposals.build import build_proposals
from regionclip_cli.vision.proposals.static import RandomBoxes


class RegionTeacher:
    """Labels batches of images.

    Args:
        plan: What to do.

    Raises:
        UsageError: A model file does not fit, or the device is not here.
    """

    def __init__(self, plan: Plan) -> None:
        redirect_mmengine_logs()
        self.settings = plan.settings
        self.seed = plan.recipe.seed
        self.kept = plan.manifest.kept
        self.device = own_device(plan.recipe.device)
        dtype = choose_dtype(plan.settings.dtype)
        self.finder = _load_finder(plan, self.device, dtype)
        self.teacher = _load_teacher(plan, self.finder, self.device, dtype)
        self.source = self._fixed() if self.finder is None else self.finder.proposals
        self.source.configure(nms_iou=self.settings.proposal_iou, max_proposals=self.settings.regions)
        plan.bank.check(read_card(plan.teacher).text_model, self.teacher.backbone.embed_dim)
        self.concepts = plan.bank.embeddings.to(self.device)  # (C, D)
        self.crops = CropEncoder(self.teacher.backbone) if self.settings.teacher_view == "crop" else None

    @torch.no_grad()
    def label(self, images: Sequence[PreparedImage], numbers: Sequence[int]) -> list[RegionLabel]:
        """Name the regions of a batch.

        Whatever its probability, nothing is kept of a region whose best concept is not above `min_score`, so an image
        may end with no region at all. The official code keeps all regions where not one of a GPU's batch passes; that
        would make a label depend on the images beside it, and is left to training, which knows its batch.

        Args:
            images: With their pixels where crops are wanted.
            numbers: Of the images in the whole set; each draws its random boxes from its own.
        """
        data = self.teacher.data_preprocessor(
            {"inputs": [image.tensor() for image in images], "data_samples": [image.sample() for image in images]}
        )
        batch, samples = data["inputs"], data["data_samples"]
        looked = self.finder if self.finder is not None and self.source.needs_features else None
        features = None if looked is None else looked.extract_feat(batch, samples)
        found = [self._best(each) for each in self._propose(batch, samples, features, numbers)]
        boxes = [_in_original(each.boxes, image) for each, image in zip(found, images, strict=True)]
        if self.crops is not None:
            embeddings = [self.crops(_pixels(image), its) for image, its in zip(images, boxes, strict=True)]
        else:
            if features is None or looked is not self.teacher:
                features = self.teacher.extract_feat(batch, samples)
            together = self.teacher.region_encoder(features, [each.boxes for each in found])
            embeddings = list(together.split([len(each.boxes) for each in found]))
        return [
            self._named(image, its, each.logits, regions)
            for image, its, each, regions in zip(images, boxes, found, embeddings, strict=True)
        ]

    def _propose(
        self, batch: Images, samples: Sequence[DetDataSample], features: list[Tensor] | None, numbers: Sequence[int]
    ) -> list[Proposals]:
        """Return the proposals of each image in network pixels."""
        if not isinstance(self.source, RandomBoxes):
            return self.source(batch, samples, features)
        found = []
        for image, sample, number in zip(batch, samples, numbers, strict=True):
            self.source.seed = _own_seed(self.seed, number)
            found += self.source([image], [sample])
        return found

    def _best(self, found: Proposals) -> Proposals:
        """Return at most `regions` of an image's proposals: the likeliest ones, or the first where nobody judged."""
        most = self.settings.regions
        if len(found.boxes) <= most:
            return found
        if found.logits is None:
            return Proposals(found.boxes[:most], None)
        order = found.logits.sort(descending=True, stable=True).indices[:most]
        return Proposals(found.boxes[order], found.logits[order])

    def _named(self, image: PreparedImage, boxes: Tensor, logits: Tensor | None, regions: Tensor) -> RegionLabel:
        """Return the label of one image from its boxes (R, 4) in original pixels and region embeddings (R, D)."""
        probabilities = match_concepts(regions, self.concepts, self.settings.temperature)  # (R, C)
        probs, concepts = probabilities.topk(self.kept, dim=1)
        passed = probs[:, 0] > self.settings.min_score
        return RegionLabel(
            size=(image.width, image.height),
            boxes=_array(boxes[passed]),
            objectness=None if logits is None else _array(logits[passed].sigmoid()),
            concepts=concepts[passed].cpu().numpy(),
            probs=_array(probs[passed]),
        )

    def _fixed(self) -> ProposalSource:
        """Return the source of regions that no network finds."""
        options = {"count": self.settings.regions} if self.settings.source == "random" else {}
        return build_proposals({"type": self.settings.source, **options}).eval()


def own_device(name: str) -> torch.device:
    """Return the device that a recipe asks for; processes that `torchrun` starts take one GPU of the machine each."""
    device = choose_device(name)
    if str(device) != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def _load_finder(plan: Plan, device: torch.device, dtype: torch.dtype) -> OpenVocabularyDetector | None:
    """Load the network that finds regions; where it looks at pixels, it comes on the teacher's trunk."""
    if plan.proposals is None:
        return None
    card = read_card(plan.proposals)
    on_trunk = card.head_on_trunk
    if on_trunk and card.kind == "proposals":
        raise UsageError(f"{plan.proposals.name} is a proposal head without its backbone.", "Give the whole model.")
    if on_trunk:
        return load_detector(plan.proposals, device=device, dtype=dtype)[0]
    return load_detector(plan.teacher, device=device, dtype=dtype, proposals_from=plan.proposals)[0]


def _load_teacher(
    plan: Plan, finder: OpenVocabularyDetector | None, device: torch.device, dtype: torch.dtype
) -> OpenVocabularyDetector:
    """Load the network that names regions; a pretraining checkpoint carries its teacher along."""
    if read_card(plan.teacher).teacher is not None:
        backbone = load_teacher(plan.teacher, device=device, dtype=dtype)
        return OpenVocabularyDetector(backbone, {"type": "given"}).to(device).eval()
    if finder is not None and (plan.proposals == plan.teacher or not finder.proposals.needs_features):
        return finder
    return load_detector(plan.teacher, device=device, dtype=dtype)[0]


def _own_seed(seed: int, number: int) -> int:
    """Return 32 bits that depend on a seed and the number of an image; torch's generator on a CPU takes no more."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {number}".encode(), digest_size=4).digest(), "little")


def _in_original(boxes: Tensor, image: PreparedImage) -> Tensor:
    """Return boxes (R, 4) in network pixels as boxes in original pixels, inside the image."""
    return clip_boxes(boxes / boxes.new_tensor([*image.scale, *image.scale]), image.height, image.width)


def _pixels(image: PreparedImage) -> Tensor:
    """Return the original pixels (3, H, W) uint8."""
    if image.pixels is None:
        raise ValueError(f"{image.name} came without its pixels, which crops need.")
    return torch.from_numpy(np.ascontiguousarray(image.pixels.transpose(2, 0, 1)))


def _array(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
