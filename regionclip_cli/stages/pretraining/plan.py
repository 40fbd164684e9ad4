"""All that is decided before the first step: which images, labels, concepts and networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from regionclip_cli.data.captions import PairSet, open_pairs
from regionclip_cli.data.region_labels.labels import RegionLabels
from regionclip_cli.errors import MissingError, UsageError, counted
from regionclip_cli.hub.model_card import ModelCard, fingerprint, read_card
from regionclip_cli.hub.store import resolve
from regionclip_cli.language.concept_bank import ConceptBank
from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.recipe.run_folder import RunFolder
from regionclip_cli.recipe.schema import Recipe
from regionclip_cli.recipe.sections.pretraining import PretrainSection
from regionclip_cli.stages.progress import Progress
from regionclip_cli.vision.builder import load_detector
from regionclip_cli.vision.pretraining.knowledge import OnlineTeacher, load_online_teacher
from regionclip_cli.vision.pretraining.pretrainer import Objectives, RegionTextPretrainer
from regionclip_cli.vision.pretraining.region_pairs import RegionPairs


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
        student.backbone.freeze(s.freeze)
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
        """The file whose proposal network the result borrows; a head on another model's trunk cannot be lent."""
        if self.proposals == self.start or (read_card(self.proposals).proposals or {}).get("type") == "rpn-trunk":
            return None
        return self.proposals

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
            most=s.proposals,
            nms_iou=s.proposal_iou,
        )

    def summary(self) -> str:
        """Return what is learned from what, in a sentence."""
        s = self.settings
        by = "labels" if self.labels is not None else f"{read_card(self.teacher).name}, which runs along"
        return (
            f"{self.card.name} learns from {counted(len(self.pairs), 'images')} with "
            f"{counted(len(self.bank.names), 'concepts')}; "
            f"regions are named by {by}; {counted(s.steps, 'steps')} of {counted(s.batch_size, 'images')}."
        )


def make_plan(recipe: Recipe, progress: Progress) -> Plan:
    """Check everything that pretraining needs, without loading a network.

    Raises:
        MissingError: Captions, labels, a model, a part of it, or the concept bank is not there.
        UsageError: The recipe has no such section, or what it names does not fit together.
    """
    settings = recipe.pretrain
    if settings is None:
        raise UsageError("This recipe pretrains nothing.", "Add a section `pretrain: {}` for the defaults.")
    losses = settings.losses
    regional = bool(losses.region_text or losses.distill)
    if not (regional or losses.image_text):
        raise UsageError("All three losses have the weight 0.", "Set one of pretrain.losses above 0.")
    folder = RunFolder(Path(recipe.out))
    start = resolve(recipe.model.start)
    teacher = resolve(recipe.model.teacher or recipe.model.start)
    proposals = resolve(recipe.model.proposals or recipe.model.start)
    card = read_card(start)
    if losses.image_text and "text" not in card.parts:
        raise MissingError(
            f"The model {card.name!r} has no text encoder for captions.", "Set pretrain.losses.image_text to 0."
        )
    path = folder.bank if settings.concepts is None else Path(settings.concepts)
    if not path.is_file():
        hint = "Run `regionclip concepts RECIPE` first, or name a bank in `pretrain.concepts`."
        raise MissingError(f"There is no concept bank {path}.", hint)
    bank = ConceptBank.load(path)
    bank.check(card.text_model, TextEncoder(start).dim)
    pairs = open_pairs(recipe.data.caption_sources())
    together = settings.batch_size // settings.accumulate
    if losses.image_text and together == 1:
        progress.warn(
            "The image-text loss compares the images of one part of a batch, and there is one: it will be 0. "
            "Raise batch_size, or lower accumulate."
        )
    labels, teacher_concepts = None, None
    if regional and settings.teacher == "labels":
        labels = _labels(folder.labels if settings.labels is None else Path(settings.labels), bank, pairs, progress)
    elif regional:
        if read_card(proposals).proposals is None:
            raise MissingError(
                f"{proposals.name} has no proposal network for the teacher.",
                "Name a model that has one in `model.proposals`, or set `pretrain.teacher` to labels.",
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
            f"The labels in {folder} were made of other images or captions; images without labels are passed over."
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
