"""The detector that a fine-tuning begins with."""

from __future__ import annotations

import numpy as np
import torch

from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.language.vocabulary_embedding import embed_vocabulary
from regionclip_cli.recipe.sections.finetuning import FinetuneSection
from regionclip_cli.stages.finetuning.plan import Plan
from regionclip_cli.stages.progress import Progress
from regionclip_cli.training.box_data import TrainingImages, Views, repeat_factors
from regionclip_cli.vision.builder import load_detector
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.finetuning.federated import FederatedClasses
from regionclip_cli.vision.finetuning.linear import LinearClassifier
from regionclip_cli.vision.proposals.trunk_rpn import TrunkRpn
from regionclip_cli.vision.roi_training import RoiTraining


def build_learner(plan: Plan, device: torch.device, seed: int, progress: Progress) -> OpenVocabularyDetector:
    """Return the detector with the heads, classes and frozen parts that the plan asks for.

    Args:
        plan: What is learned.
        device: Where the class names are encoded and the detector goes.
        seed: Of the weights of new heads.
        progress: Told of names that are encoded, and of a doubtful choice.
    """
    settings = plan.settings
    detector, _ = load_detector(plan.model, proposals_from=plan.proposals, masks=settings.mask_head)
    detector.to(device)
    detector.train_cfg = RoiTraining(
        regions=settings.regions,
        foreground=settings.foreground,
        iou=settings.iou,
        loss=settings.loss,
        gamma=settings.gamma,
        background_weight=settings.background_weight,
    )
    torch.manual_seed(seed)
    detector.add_heads(box=settings.box_head, mask=settings.mask_head)
    if not settings.box_head:
        detector.box_head = None
    detector.set_scoring({"proposal_iou": settings.proposal_iou, "max_proposals": settings.proposals})
    detector.backbone.freeze(settings.freeze)
    detector.proposals.requires_grad_(settings.train_proposals)
    if isinstance(detector.proposals, TrunkRpn) and not settings.train_proposals and _trunk_learns(detector):
        progress.warn(
            "The proposal head stands on features that are being trained while it stays as it is; "
            "finetune.train_proposals: true trains it along."
        )
    if settings.federated:
        detector.federated = FederatedClasses(plan.train.image_counts().tolist())
    _set_classifier(detector, plan, device, progress)
    return detector.to(device)


def training_images(plan: Plan) -> TrainingImages:
    """Return the images as they are learned from."""
    settings = plan.settings
    repeats: np.ndarray | None = None
    if settings.sampler == "repeat-factor":
        repeats = repeat_factors(plan.train, settings.repeat_threshold)
    return TrainingImages(plan.train, views_of(settings), masks=settings.mask_head, repeats=repeats)


def views_of(settings: FinetuneSection) -> Views:
    """Return how images are varied."""
    return Views(settings.short_sides, settings.max_side, settings.flip)


def _set_classifier(detector: OpenVocabularyDetector, plan: Plan, device: torch.device, progress: Progress) -> None:
    """Tell the detector its classes: by their texts, or as a layer to learn."""
    classes = plan.train.classes
    if plan.settings.classifier == "linear":
        own = detector.classifier
        if not isinstance(own, LinearClassifier) or own.classes != classes:
            detector.classifier = LinearClassifier(classes, detector.backbone.embed_dim)
        return
    progress.start("Reading class names", len(classes), "phrases")
    embedded = embed_vocabulary(plan.names, TextEncoder(plan.model, device), progress=progress.advance)
    progress.finish()
    detector.set_concepts(embedded.embeddings, embedded.groups, embedded.num_classes)


def _trunk_learns(detector: OpenVocabularyDetector) -> bool:
    """Whether anything is trained that the feature map depends on."""
    side = 4 * detector.backbone.stride
    with torch.enable_grad():
        grey = torch.zeros(1, 3, side, side, device=detector.backbone.device)
        return bool(detector.backbone.train().trunk(grey).requires_grad)
