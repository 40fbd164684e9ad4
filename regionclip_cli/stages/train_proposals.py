"""`train-proposals`: a network that finds boxes and does not name them, for the stages that need one.

RegionCLIP keeps such a network frozen beside everything it trains. Its authors trained theirs as the first half of a
Mask R-CNN on the base classes of a set (`rpn_coco_48`, `rpn_lvis_866`), or alone with large-scale jitter
(`rpn_lvis_866_lsj`). Here it is trained alone: anchors against boxes, without classes, so that nothing about novel
classes can leak in but that something is there.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from regionclip_cli.conversion.imagenet_resnet import read_resnet
from regionclip_cli.data.detection_sets import DetectionSet, open_detection_set
from regionclip_cli.data.splits import read_split
from regionclip_cli.errors import MissingError, UsageError, pluralize
from regionclip_cli.evaluation.proposal_recall import proposal_recall
from regionclip_cli.files import user_path
from regionclip_cli.inference.device import choose_device
from regionclip_cli.recipe.schema import ProposalsSection, Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.runs.progress import Progress, Silent
from regionclip_cli.stages.finetune_plan import learned_classes, start_model
from regionclip_cli.training.augment import Augment
from regionclip_cli.training.dataset import TrainingImages, with_objects
from regionclip_cli.training.export import with_proposals, write_proposals
from regionclip_cli.training.runner import build_runner, train
from regionclip_cli.training.sampler import repeat_factors
from regionclip_cli.training.timing import time_steps
from regionclip_cli.vision import distributed
from regionclip_cli.vision.library_log import redirect_mmengine_logs
from regionclip_cli.vision.model_io import load_detector
from regionclip_cli.vision.proposals.build import build_proposals
from regionclip_cli.vision.proposals.training import ProposalTraining

STAGE = "proposals"
TRUNK_NETWORKS = ("rpn-trunk", "fpn-trunk")


@dataclass(frozen=True)
class ProposalsResult:
    """What a training of proposals came to.

    Attributes:
        model: The file that was written; None with a dry run, and in all processes but the first.
        plan: What was learned from what, in a sentence; empty in all processes but the first.
        steps: Optimiser steps behind it.
        seconds: How long this run took.
        losses: Means over the last steps that were logged.
        recall: AR@100, AR@300 and AR@1000 on data.val in 0..100, of base, novel and all classes.
    """

    model: Path | None
    plan: str
    steps: int = 0
    seconds: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    recall: dict[str, dict[str, float]] = field(default_factory=dict)

    def summary(self) -> str:
        """Return a few sentences for a person."""
        if self.model is None:
            return self.plan
        told = "; ".join(
            f"{group} {', '.join(f'{name} {value:.1f}' for name, value in numbers.items())}"
            for group, numbers in self.recall.items()
        )
        said = f"{pluralize(self.steps, 'steps')} in {self.seconds:.0f} s. The network is {self.model}."
        return said + (f" Recall: {told}." if told else "")

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"model": None if self.model is None else str(self.model)}


def run(
    recipe: Recipe, progress: Progress | None = None, *, resume: bool = False, dry_run: bool = False
) -> ProposalsResult:
    """Train a proposal network; `<out>/proposals/model.safetensors` serves as `model: proposals:` and `--proposals`.

    A head on the trunk of a model (`rpn-trunk`, `fpn-trunk`) understands no other features, so it is written with that
    model in one file, which serves as `--model` and as `--proposals`. If the trunk learns along, the model cannot name
    regions with it any more: head and trunk are written as a proposal network alone.

    Args:
        recipe: Its sections `data.train`, `data.val`, `model` and `proposals`.
        progress: Told what is going on.
        resume: Go on from the last checkpoint.
        dry_run: Only check everything, time a few steps and say what would be done; nothing is written.

    Raises:
        MissingError: A file or a model is not there.
        UsageError: Settings do not fit together, a class is not in the annotations, or the folder holds a run already.
        RegionClipError: The loss was not finite.
    """
    progress = progress or Silent()
    redirect_mmengine_logs()
    began = time.monotonic()
    settings, images = _open(recipe)
    val = None if recipe.data.val is None else open_detection_set(recipe.data.val)
    groups = {} if val is None else _groups(val, settings.split)
    for each in (images, val):
        if each is not None and (sentence := each.left_out()):
            progress.warn(sentence)
    views = Augment(
        settings.short_sides,
        settings.max_side,
        settings.flip,
        settings.jitter,
        settings.canvas,
        settings.mosaic,
        settings.colour,
    )
    plan = _plan(recipe, settings, images)
    folder = RunFolder(Path(recipe.out))
    device = distributed.own_device(choose_device(recipe.device))
    often = settings.sampler == "repeat-factor"
    dataset = TrainingImages(
        images,
        views,
        repeats=repeat_factors(images, settings.repeat_threshold) if often else None,
        crowds=settings.network == "fpn-trunk",
    )
    if dry_run:
        network, _ = build_network(recipe, settings, progress)
        timing = time_steps(network, dataset, settings, seed=recipe.seed, device=device)
        return ProposalsResult(None, f"{plan} {timing.said()}. Would write {folder.model(STAGE)}.")
    with folder.opened(recipe, STAGE, resume=resume, device=str(device)) as record:
        progress.note(plan)
        model, config = build_network(recipe, settings, progress)
        trained = train(
            build_runner(
                model,
                dataset,
                settings,
                work_dir=folder.stage(STAGE),
                seed=recipe.seed,
                device=device,
                resume=resume,
                progress=progress,
            )
        )
        record.count(steps=trained.steps, images=len(images))
        if distributed.rank():
            return ProposalsResult(None, "", trained.steps, time.monotonic() - began)
        path, state = folder.model(STAGE), model.source.state_dict()
        source = f"Trained on {Path(images.name).name}, {len(images.classes)} classes."
        if settings.on_trunk:
            with_proposals(path, recipe.name, start_model(recipe), config, state)
        else:
            write_proposals(path, recipe.name, config, state, source)
        size = (max(settings.short_sides), settings.max_side)
        recall = proposal_recall(model, val, groups, size, progress) if val is not None else {}
        return ProposalsResult(path, plan, trained.steps, time.monotonic() - began, trained.losses, recall)


def build_network(
    recipe: Recipe, settings: ProposalsSection, progress: Progress
) -> tuple[ProposalTraining, dict[str, Any]]:
    """Return the network, ready to learn, and its config for `build_proposals`.

    Raises:
        MissingError: The model, or the file of `init`, is not there.
        UsageError: It does not fit.
    """
    torch.manual_seed(recipe.seed)
    if settings.network in TRUNK_NETWORKS:
        detector, card = load_detector(start_model(recipe))
        trunk = detector.backbone
        config: dict[str, Any] = {"type": settings.network, "stride": trunk.stride}
        if settings.network == "rpn-trunk":
            config["channels"] = trunk.channels
        else:
            config["levels"] = [list(level) for level in trunk.levels]
        if not settings.learn_trunk:
            return ProposalTraining(build_proposals(config), detector), config
        size = {"short_side": max(settings.short_sides), "max_side": settings.max_side}
        config = card.model_copy(update={"proposals": config, **size}).lent_proposals or {}
        network: Any = build_proposals(config)
        network.trunk.load_state_dict(trunk.visual.state_dict())
        network.learn(settings.frozen_stages)
        return ProposalTraining(network), config
    config = {"type": settings.network}
    if settings.init is not None:
        config["style"] = "pytorch"
    source: Any = build_proposals(config)
    if settings.init is None:
        progress.warn(
            "The backbone is initialised randomly and needs many more steps than a pretrained one; set "
            "proposals.init to a torchvision or timm ResNet-50."
        )
    else:
        weights = read_resnet(user_path(settings.init), source.backbone.state_dict())
        source.backbone.load_state_dict(weights, strict=False)
    # Jitter is for long trainings, in which norms are trained and no stage is frozen; so are random weights.
    whole = settings.init is None or settings.network == "rpn-fpn-lsj"
    source.learn(freeze=0 if whole else settings.frozen_stages, norms=whole)
    return ProposalTraining(source), config


def _open(recipe: Recipe) -> tuple[ProposalsSection, DetectionSet]:
    """Return the settings, and the images with boxes of the classes that are learned from."""
    settings = recipe.proposals
    if settings is None:
        raise UsageError("The recipe has no section `proposals`.")
    if recipe.data.train is None:
        raise UsageError("No training data.", "Set annotations and images under `data: train:`.")
    if settings.init is not None and settings.network in TRUNK_NETWORKS:
        raise UsageError(f"{settings.network} has no ResNet backbone to initialise.", "Omit proposals.init.")
    if settings.learn_trunk and settings.network not in TRUNK_NETWORKS:
        raise UsageError(f"{settings.network} has its own backbone.", "Omit learn_trunk.")
    if settings.init is not None and not user_path(settings.init).is_file():
        raise MissingError(
            f"The weights file {settings.init} does not exist (proposals.init).",
            "Download ResNet-50 weights from torchvision or timm, or omit the setting to start from random weights.",
        )
    whole = open_detection_set(recipe.data.train, "train")
    classes = learned_classes(whole, settings.split)
    return settings, with_objects(whole if classes == whole.classes else whole.subset(classes))


def _groups(val: DetectionSet, split: str | None) -> dict[str, tuple[str, ...]]:
    """Return the classes of base, novel and all."""
    if split is None:
        return {"all": val.classes}
    told = read_split(split, val.classes)
    return {"base": told.base, "novel": told.novel, "all": told.all(val.classes)}


def _plan(recipe: Recipe, settings: ProposalsSection, images: DetectionSet) -> str:
    boxes = len(images.columns.objects.values)
    stands = f" on {start_model(recipe).name}" if settings.network in TRUNK_NETWORKS else ""
    return (
        f"{settings.network}{stands}: {pluralize(settings.steps, 'steps')} of "
        f"{pluralize(settings.batch_size, 'images')}; {pluralize(len(images), 'images')} "
        f"with {pluralize(boxes, 'boxes')} of {pluralize(len(images.classes), 'classes')}, "
        f"{settings.steps * settings.batch_size / len(images):.1f} epochs."
    )
