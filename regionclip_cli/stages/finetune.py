"""The detector that a fine-tuning begins with."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regionclip_cli.errors import pluralize
from regionclip_cli.evaluation.task import class_name_warnings
from regionclip_cli.inference.device import choose_device
from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.language.vocabulary_embedding import embed_vocabulary
from regionclip_cli.recipe.schema import EvaluateSection, FinetuneSection, Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.runs.progress import Progress, Silent
from regionclip_cli.stages.finetune_plan import Exporter, Plan, make_plan, untrained
from regionclip_cli.stages.validation import BEST, BestCheckpoint
from regionclip_cli.training.augment import Augment
from regionclip_cli.training.dataset import TrainingImages
from regionclip_cli.training.runner import TrainResult, build_runner, train
from regionclip_cli.training.sampler import repeat_factors
from regionclip_cli.training.timing import time_steps
from regionclip_cli.training.weight_ensembling import blended
from regionclip_cli.vision import distributed
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.federated import FederatedClasses
from regionclip_cli.vision.library_log import redirect_mmengine_logs
from regionclip_cli.vision.linear_classifier import LinearClassifier
from regionclip_cli.vision.model_io import load_detector
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
    detector.set_scoring({"proposal_iou": settings.proposal_iou, "max_proposals": settings.max_proposals})
    detector.backbone.freeze(settings.frozen_stages)
    detector.proposals.requires_grad_(settings.train_proposals)
    if isinstance(detector.proposals, TrunkRpn) and not settings.train_proposals and _trunk_learns(detector):
        progress.warn(
            "The proposal head is frozen while its backbone is trained; "
            "set finetune.train_proposals: true to train it too."
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


def views_of(settings: FinetuneSection) -> Augment:
    """Return how images are varied."""
    return Augment(settings.short_sides, settings.max_side, settings.flip)


def _set_classifier(detector: OpenVocabularyDetector, plan: Plan, device: torch.device, progress: Progress) -> None:
    """Tell the detector its classes: by their texts, or as a layer to learn."""
    classes = plan.train.classes
    if plan.settings.classifier == "linear":
        own = detector.classifier
        if not isinstance(own, LinearClassifier) or own.classes != classes:
            detector.classifier = LinearClassifier(classes, detector.backbone.embed_dim)
        return
    progress.start("Embedding class names", len(classes), "phrases")
    embedded = embed_vocabulary(plan.names, TextEncoder(plan.model, device), progress=progress.advance)
    progress.finish()
    detector.set_concepts(embedded.embeddings, embedded.groups, embedded.num_classes)


def _trunk_learns(detector: OpenVocabularyDetector) -> bool:
    """Whether anything is trained that the feature map depends on."""
    side = 4 * detector.backbone.stride
    with torch.enable_grad():
        grey = torch.zeros(1, 3, side, side, device=detector.backbone.device)
        return bool(detector.backbone.train().trunk(grey).requires_grad)


STAGE = "finetune"


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning came to.

    Attributes:
        model: The detector that was written; None with a dry run, and in all processes but the first.
        plan: What was learned from what, in a sentence; empty in all processes but the first.
        steps: Optimiser steps behind it.
        seconds: How long this run took.
        losses: Means over the last steps that were logged.
        best_by: What the best model was chosen by.
        best_step: When it was the best; None where nothing was measured.
        evaluations: AP of base, novel and all classes before the training (step 0) and at each evaluation.
        recognition: How well known boxes were named `before` and `after`, in the same groups.
    """

    model: Path | None
    plan: str
    steps: int = 0
    seconds: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    best_by: str = ""
    best_step: int | None = None
    evaluations: tuple[dict[str, Any], ...] = ()
    recognition: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> str:
        """Return a few sentences for a person."""
        if self.model is None:
            return self.plan
        said = f"{pluralize(self.steps, 'steps')} in {self.seconds:.0f} s. The detector is {self.model}."
        if self.best_step is not None:
            said += f" Best step: {self.best_step}, by {self.best_by}."
        return said

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return header and rows of the evaluations, the best marked."""
        groups = [name for name in ("base", "novel", "all") if any(name in each for each in self.evaluations)]
        header = ("step", *(f"{group} {number}" for group in groups for number in ("AP50", "AP")), "")
        rows = []
        for each in self.evaluations:
            values = [each.get(group, {}).get(number) for group in groups for number in ("AP50", "AP")]
            cells = ["-" if value is None else f"{value:.1f}" for value in values]
            rows.append((str(each["step"]), *cells, "best" if each["step"] == self.best_step else ""))
        return header, rows

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"model": None if self.model is None else str(self.model)}


def run(
    recipe: Recipe, progress: Progress | None = None, *, resume: bool = False, dry_run: bool = False
) -> FinetuneResult:
    """Fine-tune the model of a recipe; `<out>/finetune/model.safetensors` goes straight into `detect --model`.

    Args:
        recipe: Its sections `data.train`, `data.val`, `model` and `finetune`.
        progress: Told what is going on.
        resume: Go on from the last checkpoint.
        dry_run: Only check everything, time a few steps and say what would be done; nothing is written.

    Raises:
        MissingError: A file, a model, or a part of it is not there.
        UsageError: Settings do not fit together, a class is not in the annotations, or the folder holds a run already.
        RegionClipError: The loss was not finite.
    """
    progress = progress or Silent()
    redirect_mmengine_logs()
    began = time.monotonic()
    plan = make_plan(recipe)
    if sentence := untrained(recipe):
        progress.warn(sentence)
    for each in (plan.train, plan.val):
        if each is not None and (sentence := each.left_out()):
            progress.warn(sentence)
    if plan.val is not None:
        for sentence in class_name_warnings(plan.val, EvaluateSection(split=plan.split)):
            progress.warn(sentence)
    images = training_images(plan)
    folder = RunFolder(Path(recipe.out))
    device = distributed.own_device(choose_device(recipe.device))
    if dry_run:
        learner = build_learner(plan, device, recipe.seed, progress)
        timing = time_steps(learner, images, plan.settings, seed=recipe.seed, device=device)
        said = f"{plan.summary()} {timing.said()}, without validation. Would write {folder.model(STAGE)}."
        return FinetuneResult(None, said)
    with folder.opened(recipe, STAGE, resume=resume, device=str(device)) as record:
        progress.note(plan.summary())
        detector = build_learner(plan, device, recipe.seed, progress)
        start = starting_weights(detector, plan)
        exporter = Exporter(plan, recipe.name)
        text = TextEncoder(plan.model, device) if plan.settings.classifier == "text" else None
        watch = BestCheckpoint(plan, detector, exporter, start, text, folder.stage(STAGE), progress)
        first = distributed.rank() == 0
        # Built before the start is measured, which may take long: what does not fit together is told at once.
        runner = build_runner(
            detector,
            images,
            plan.settings,
            work_dir=folder.stage(STAGE),
            seed=recipe.seed,
            device=device,
            resume=resume,
            progress=progress,
            validation=None if plan.val is None else watch,
            validate_every=plan.settings.evaluate_every,
        )
        if plan.val is None:
            progress.warn("No data.val: training runs without validation, and the last weights are kept.")
        elif first:
            watch.before()
        trained = train(runner)
        record.count(steps=trained.steps, images=len(plan.train), classes=len(plan.train.classes))
        if not first:
            return FinetuneResult(None, "", trained.steps, time.monotonic() - began)
        model = _write(folder, watch, detector, exporter, plan, start)
        result = _conclude(model, plan, watch, trained, device, time.monotonic() - began)
        _say(result, progress)
        return result


def starting_weights(detector: OpenVocabularyDetector, plan: Plan) -> dict[str, Tensor]:
    """Return copies of the trained weights that came with the model, {parameter: tensor}; nothing where none blends."""
    if not plan.settings.ensemble_alpha:
        return {}
    new = tuple(f"{head}." for head in ("box_head", "mask_head", "classifier") if head not in plan.card.parts)
    return {
        name: parameter.detach().cpu().clone()
        for name, parameter in detector.named_parameters()
        if parameter.requires_grad and not name.startswith(new)
    }


def _write(
    folder: RunFolder,
    watch: BestCheckpoint,
    detector: OpenVocabularyDetector,
    exporter: Exporter,
    plan: Plan,
    start: dict[str, Tensor],
) -> Path:
    """Give the best model its name; where nothing was measured, write the last."""
    model, best = folder.model(STAGE), folder.stage(STAGE) / BEST
    if watch.best is not None and best.is_file():
        best.replace(model)
        return model
    if watch.best is not None and model.is_file():
        return model  # a finished run was taken up again
    with blended(detector, start, plan.settings.ensemble_alpha):
        return exporter.write(model, detector)


def _conclude(
    model: Path, plan: Plan, watch: BestCheckpoint, trained: TrainResult, device: torch.device, seconds: float
) -> FinetuneResult:
    """Compare what was written with what it started from."""
    recognition: dict[str, Any] = {}
    if plan.val is not None:
        for when, path in (("before", plan.model), ("after", model)):
            if when == "before" and watch.text is None and plan.card.classifier == "text":
                continue
            loaded, card = load_detector(path, device=device)
            recognition[when] = watch.recognition(loaded, card)
    best = watch.best
    return FinetuneResult(
        model=model,
        plan=plan.summary(),
        steps=trained.steps,
        seconds=seconds,
        losses=trained.losses,
        best_by=f"{watch.number} of {watch.group} classes" if best else "",
        best_step=best["step"] if best else None,
        evaluations=tuple(watch.evaluations),
        recognition=recognition,
    )


def _novel_ap(evaluation: Mapping[str, Any] | None) -> float | None:
    """Return AP50 of novel classes, if there is any."""
    found: float | None = (evaluation or {}).get("novel", {}).get("AP50")
    return found


def _say(result: FinetuneResult, progress: Progress) -> None:
    """Tell what was gained, and what was forgotten: finding objects first, then naming those that are known."""
    steps = {each["step"]: each for each in result.evaluations}
    old_ap, new_ap = (_novel_ap(steps.get(step)) for step in (0, result.best_step))
    if old_ap is not None and new_ap is not None and old_ap - new_ap > 1:
        progress.warn(
            f"The best model has a lower AP50 on novel classes than the initial model ({old_ap:.1f} -> {new_ap:.1f})."
        )
    before, after = result.recognition.get("before"), result.recognition.get("after")
    if not before or not after:
        return
    pairs = [(group, before[group].get("top1"), after[group].get("top1")) for group in after if group in before]
    told = [f"{group} {old:.1f} -> {new:.1f} %" for group, old, new in pairs if old is not None and new is not None]
    progress.note(f"Top-1 accuracy on ground-truth boxes, before and after: {'; '.join(told)}.")
    lost = {group: old - new for group, old, new in pairs if old is not None and new is not None}
    watched = "novel" if "novel" in lost else "all"
    if lost.get(watched, 0) > 1:
        progress.warn(
            f"Top-1 accuracy on {watched} classes dropped by {lost[watched]:.1f} points. "
            "Try finetune.ensemble_alpha between 0.2 and 0.5, a lower learning rate or fewer steps."
        )
