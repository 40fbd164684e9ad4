"""All that is decided before the first step: which images, labels, concepts and networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regionclip_cli.data.captions import PairSet, open_pairs
from regionclip_cli.data.region_labels.store import RegionLabels
from regionclip_cli.errors import MissingError, UsageError, pluralize
from regionclip_cli.hub.model_card import ModelCard, fingerprint, read_card
from regionclip_cli.hub.store import resolve
from regionclip_cli.inference.device import choose_device
from regionclip_cli.language.concept_bank import ConceptBank
from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.recipe.schema import PretrainSection, Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.runs.progress import Progress, Silent
from regionclip_cli.training.export import write_pretrained
from regionclip_cli.training.image_text_dataset import RegionPairs
from regionclip_cli.training.runner import build_runner, train
from regionclip_cli.training.timing import Timing, time_steps
from regionclip_cli.vision import distributed
from regionclip_cli.vision.library_log import redirect_mmengine_logs
from regionclip_cli.vision.model_io import load_detector
from regionclip_cli.vision.pretrainer import Objectives, RegionTextPretrainer
from regionclip_cli.vision.teacher import OnlineTeacher, load_online_teacher


@dataclass(frozen=True, eq=False)
class Plan:
    """One pretraining, checked.

    Attributes:
        settings: The section `pretrain`.
        pairs: The images.
        labels: Of their regions; None where a teacher runs along.
        bank: The concepts, in the student's space.
        teacher_concepts: (C, D') the same in the space of the teacher that runs along, else None.
        start: File of the model that training starts from.
        teacher: File of the teacher.
        proposals: File of the model whose proposal network is used, and goes into the result.
        card: What the start model says about itself.
        seed: Of the run.
    """

    settings: PretrainSection
    pairs: PairSet
    labels: RegionLabels | None
    bank: ConceptBank
    teacher_concepts: Tensor | None
    start: Path
    teacher: Path
    proposals: Path
    card: ModelCard
    seed: int

    def dataset(self) -> RegionPairs:
        """Return the images as training draws them."""
        s = self.settings
        return RegionPairs(
            self.pairs, self.labels, regions=s.regions, short_side=s.short_side, max_side=s.max_side, flip=s.flip
        )

    def pretrainer(self, device: torch.device) -> RegionTextPretrainer:
        """Load the networks.

        Raises:
            UsageError: Files do not fit what they say about themselves; more stages are frozen than there are.
        """
        s = self.settings
        student, _ = load_detector(self.start, proposals_from=self._lent)
        student.backbone.freeze(s.frozen_stages)
        objectives = Objectives(
            region_text=s.losses.region_text,
            distill=s.losses.distill,
            image_text=s.losses.image_text,
            temperature=s.temperature,
            min_score=s.min_score,
            gather_regions=s.gather_regions,
            whole_image=s.whole_image,
        )
        texts = _captions_with(TextEncoder(self.start, device)) if s.losses.image_text else None
        return RegionTextPretrainer(student, self.bank.embeddings, objectives, self._teacher(), texts)

    def learned_from(self) -> dict[str, str]:
        """Return fingerprints of what a run that is taken up again must find as it was, whatever the paths say."""
        found = {"concepts": self.bank.fingerprint, "the model": fingerprint(self.start)}
        if self.labels is not None:
            return found | {"labels": self.labels.manifest.fingerprint}
        return found | {"the teacher": fingerprint(self.teacher)}

    @property
    def _lent(self) -> Path | None:
        """The file whose proposal network the result borrows, if it is another one than the model's own."""
        return None if self.proposals == self.start else self.proposals

    @property
    def carried(self) -> Path:
        """The file whose proposal network goes into the result."""
        return self._lent or self.start

    def _teacher(self) -> OnlineTeacher | None:
        if self.teacher_concepts is None:
            return None
        s = self.settings
        return load_online_teacher(
            self.teacher,
            self.proposals,
            self.teacher_concepts,
            temperature=s.temperature,
            regions=s.regions,
            most=s.max_proposals,
            nms_iou=s.proposal_iou,
        )

    def summary(self) -> str:
        """Return what is learned from what, in a sentence."""
        s = self.settings
        by = "labels" if self.labels is not None else f"the online teacher {read_card(self.teacher).name}"
        return (
            f"Trains {self.card.name} on {pluralize(len(self.pairs), 'images')} with "
            f"{pluralize(len(self.bank.names), 'concepts')}; "
            f"region targets from {by}; {pluralize(s.steps, 'steps')} of {pluralize(s.batch_size, 'images')}."
        )


def make_plan(recipe: Recipe, progress: Progress) -> Plan:
    """Check everything that pretraining needs, without loading a network.

    Raises:
        MissingError: Captions, labels, a model, a part of it, or the concept bank is not there.
        UsageError: The recipe has no such section, or what it names does not fit together.
    """
    settings = recipe.pretrain
    if settings is None:
        raise UsageError("The recipe has no section `pretrain`.", "Add `pretrain: {}` to use the defaults.")
    losses = settings.losses
    regional = bool(losses.region_text or losses.distill)
    if not (regional or losses.image_text):
        raise UsageError("All three loss weights are 0.", "Set at least one of pretrain.losses above 0.")
    folder = RunFolder(Path(recipe.out))
    start = resolve(recipe.model.start)
    teacher = resolve(recipe.model.teacher or recipe.model.start)
    proposals = resolve(recipe.model.proposals or recipe.model.start)
    card = read_card(start)
    if losses.image_text and "text" not in card.parts:
        raise MissingError(
            f"The model {card.name!r} has no text encoder for captions.", "Set pretrain.losses.image_text to 0."
        )
    path = folder.bank if settings.concept_bank is None else Path(settings.concept_bank)
    if not path.is_file():
        hint = "Run `regionclip concepts RECIPE` first, or set `pretrain.concept_bank` to a concept bank."
        raise MissingError(f"The concept bank {path} does not exist.", hint)
    bank = ConceptBank.load(path)
    bank.check(card.text_model, TextEncoder(start).dim)
    pairs = open_pairs(recipe.data.caption_sources())
    together = settings.batch_size // settings.grad_accum_steps
    if losses.image_text and together == 1:
        progress.warn(
            "The image-text loss is always 0 with one image per accumulation step. "
            "Increase batch_size, or decrease grad_accum_steps."
        )
    labels, teacher_concepts = None, None
    if regional and settings.teacher_mode == "labels":
        labels = _labels(folder.labels if settings.labels is None else Path(settings.labels), bank, pairs, progress)
    elif regional:
        if read_card(proposals).proposals is None:
            raise MissingError(
                f"{proposals.name} has no proposal network for the teacher.",
                "Set `model.proposals` to a model that has one, or `pretrain.teacher_mode` to labels.",
            )
        teacher_concepts = _in_teachers_space(bank, start, teacher, progress)
    return Plan(settings, pairs, labels, bank, teacher_concepts, start, teacher, proposals, card, recipe.seed)


def _captions_with(encoder: TextEncoder) -> Callable[[Sequence[str]], Tensor]:
    """Return what embeds B captions as (B, D), on the encoder's device, each as it stands."""
    return lambda captions: encoder.encode_tokens(encoder.tokenize(captions))


def _labels(folder: Path, bank: ConceptBank, pairs: PairSet, progress: Progress) -> RegionLabels:
    """Open the labels, and see that they are of these concepts; those of other images are of no harm."""
    labels = RegionLabels.open(folder)
    labels.manifest.check_concepts(bank.names)
    if labels.manifest.data != pairs.fingerprint:
        progress.warn(
            f"The labels in {folder} were created from other images or captions; images without labels are skipped."
        )
    return labels


def _in_teachers_space(bank: ConceptBank, start: Path, teacher: Path, progress: Progress) -> Tensor:
    """Return the concepts (C, D') as the teacher's own text encoder embeds them, with the templates of the bank.

    A pretraining checkpoint that carries its teacher was trained with one text encoder for both.
    """
    encoder = TextEncoder(teacher)
    if encoder.model == read_card(start).text_model:
        return bank.embeddings
    progress.start(f"Embedding concepts with {encoder.model}", len(bank.names), "concepts")
    try:
        return encoder.encode(bank.names, bank.templates or None, progress.advance)
    finally:
        progress.finish()


_FLOAT = 4


@dataclass(frozen=True)
class PretrainEstimate:
    """What a pretraining would take on this machine.

    Attributes:
        plan: What would be learned from what, in a sentence.
        images: Images there are.
        concepts: Concepts C.
        steps: Optimiser steps.
        regions: Regions of an image that took part in the timed steps, on average.
        timed_images: Images of one timed step.
        images_per_second: Of all processes together.
        seconds: How long all steps would take.
        memory: Bytes in use at the most: of the GPU, or of this process where there is none.
        checkpoint: Bytes of one checkpoint.
        device: What it was measured on.
    """

    plan: str
    images: int
    concepts: int
    steps: int
    regions: float | None
    timed_images: int
    images_per_second: float
    seconds: float
    memory: int
    checkpoint: int
    device: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"dry_run": True, **asdict(self)}

    def summary(self) -> str:
        """Return a few sentences for a person."""
        regions = "" if self.regions is None else f", {self.regions:.3g} regions per image"
        timing = Timing(self.timed_images, self.images_per_second, self.seconds, self.memory, {}, self.device)
        return f"{self.plan} {timing.said(regions)}; a checkpoint takes {self.checkpoint / 2**20:.0f} MiB."


def estimate(plan: Plan, device: torch.device) -> PretrainEstimate:
    """Load the networks, time a few steps (`timing.time_steps`), and reckon; nothing is written."""
    s = plan.settings
    model = plan.pretrainer(device)
    timing = time_steps(model, plan.dataset(), s, seed=plan.seed, device=device)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    copies = 2 + (s.optimiser == "adamw") + (s.ema_decay is not None)
    return PretrainEstimate(
        plan=plan.summary(),
        images=len(plan.pairs),
        concepts=len(plan.bank.names),
        steps=s.steps,
        regions=timing.losses.get("regions"),
        timed_images=timing.images,
        images_per_second=timing.images_per_second,
        seconds=timing.seconds,
        memory=timing.memory,
        checkpoint=trained * copies * _FLOAT,
        device=timing.device,
    )


STAGE = "pretrain"


@dataclass(frozen=True)
class PretrainResult:
    """What a pretraining came to.

    Attributes:
        model: The model that was written; None in all processes but the first.
        plan: What was learned from what, in a sentence; empty in processes that do not speak for all.
        steps: Optimiser steps behind it.
        seconds: How long this run took.
        losses: Means over the last steps that were logged.
        checkpoint: The last checkpoint.
    """

    model: Path | None
    plan: str
    steps: int
    seconds: float
    losses: dict[str, float] = field(default_factory=dict)
    checkpoint: Path | None = None

    def summary(self) -> str:
        """Return one sentence for a person."""
        losses = ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items() if "loss" in name)
        said = f"{pluralize(self.steps, 'steps')}, {self.seconds:.0f} s in this run"
        said += f"; last losses: {losses}." if losses else "."
        return said + (f" The model is {self.model}." if self.model else "")

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        paths = {"model": self.model, "checkpoint": self.checkpoint}
        return asdict(self) | {name: None if path is None else str(path) for name, path in paths.items()}


def run(
    recipe: Recipe, progress: Progress | None = None, *, resume: bool = False, dry_run: bool = False
) -> PretrainResult | PretrainEstimate:
    """Pretrain the model of a recipe and write `<out>/pretrain/model.safetensors`.

    Args:
        recipe: Its sections `data.captions`, `model` and `pretrain`.
        progress: Told what is going on.
        resume: Go on from the last checkpoint, exactly as if nothing had happened.
        dry_run: Only say what it would take, measured on a few steps; nothing is written.

    Raises:
        MissingError: Captions, labels, a model or the concept bank is not there.
        OutputError: The disk is full; the last whole checkpoint stays.
        UsageError: The recipe does not fit together, or the folder holds a run already.
        RegionClipError: A loss was not finite, or a process that reads images died.
    """
    speaks = distributed.rank() == 0
    progress = progress if progress and speaks else Silent()
    redirect_mmengine_logs()
    began = time.perf_counter()
    plan = make_plan(recipe, progress)
    folder = RunFolder(Path(recipe.out))
    device = distributed.own_device(choose_device(recipe.device))
    if dry_run:
        told = estimate(plan, device)
        return told if speaks else replace(told, plan="")
    with folder.opened(recipe, STAGE, resume=resume, device=str(device)) as record:
        progress.note(plan.summary())
        model = plan.pretrainer(device)
        trained = train(
            build_runner(
                model,
                plan.dataset(),
                plan.settings,
                work_dir=folder.stage(STAGE),
                seed=recipe.seed,
                device=device,
                resume=resume,
                progress=progress,
                learned_from=plan.learned_from(),
            )
        )
        record.count(images=len(plan.pairs), concepts=len(plan.bank.names), steps=trained.steps)
        written = None
        if speaks:
            written = folder.model(STAGE)
            write_pretrained(
                written,
                model.student,
                plan.start,
                name=recipe.name,
                temperature=plan.settings.temperature,
                proposals=plan.carried,
            )
        seconds = time.perf_counter() - began
        said = plan.summary() if speaks else ""
        return PretrainResult(written, said, trained.steps, seconds, trained.losses, trained.checkpoint)
