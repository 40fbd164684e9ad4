"""What a fine-tuning learns from what, checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regionclip_cli.data.detection_sets import DetectionSet, open_detection_set
from regionclip_cli.data.detection_sets.class_names import match_classes
from regionclip_cli.data.splits import SPLITS, read_split
from regionclip_cli.errors import MissingError, UsageError, pluralize
from regionclip_cli.evaluation.task import build_task
from regionclip_cli.hub.model_card import ModelCard, Part, read_card
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.hub.store import resolve
from regionclip_cli.language import vocabularies
from regionclip_cli.language.class_names import Vocabulary
from regionclip_cli.language.phrase_encoder import require_text
from regionclip_cli.recipe.schema import EvaluateSection, FinetuneSection, Recipe
from regionclip_cli.runs.folder import RunFolder
from regionclip_cli.training.dataset import with_objects
from regionclip_cli.training.export import text_tensors
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.model_io import detector_tensors


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that a fine-tuning needs, opened and checked.

    Attributes:
        settings: How.
        train: Images with boxes of the C classes to learn, no others.
        names: How these classes are told to the text encoder.
        val: What is measured on, with all its classes; None measures nothing.
        split: Name or file of base and novel classes.
        model: The model to start from.
        card: What that says about itself.
        proposals: Another model, whose proposal network finds the boxes.
    """

    settings: FinetuneSection
    train: DetectionSet
    names: Vocabulary
    val: DetectionSet | None
    split: str | None
    model: Path
    card: ModelCard
    proposals: Path | None

    def summary(self) -> str:
        """Return one sentence about what would be done."""
        boxes, epochs = len(self.train.columns.objects.values), self.settings.steps * self.settings.batch_size
        found = self.proposals.name if self.proposals else self.model.name
        return (
            f"{pluralize(self.settings.steps, 'steps')} of {pluralize(self.settings.batch_size, 'images')} "
            f"from {self.model.name}: "
            f"{pluralize(len(self.train), 'images')} with {pluralize(boxes, 'boxes')} of "
            f"{pluralize(len(self.train.classes), 'classes')}, "
            f"{epochs / len(self.train):.1f} epochs; proposals from {found}; "
            + (f"validation on {pluralize(len(self.val), 'images')}." if self.val else "no validation (no data.val).")
        )


def make_plan(recipe: Recipe) -> Plan:
    """Open and check what the recipe names.

    Raises:
        MissingError: A file, a model, or a part of it is not there.
        UsageError: The recipe lacks a section, a class is not in the annotations, or settings do not fit together.
    """
    settings = recipe.finetune
    if settings is None:
        raise UsageError("The recipe has no section `finetune`.")
    if recipe.data.train is None:
        raise UsageError("No training data.", "Set annotations and images under `data: train:`.")
    model, proposals = _models(recipe, settings)
    card = read_card(model)
    if card.kind != "detector":
        raise UsageError(f"{model.name} is a proposal network without an image encoder.", "Start from another model.")
    if settings.classifier == "text":
        require_text(card)
    own = read_card(proposals) if proposals else card
    if own.proposals is None:
        raise MissingError(
            f"{(proposals or model).name} has no proposal network.",
            "Set `model: proposals:` to a model that has one, or train one with `regionclip train-proposals`.",
        )
    if settings.train_proposals and (proposals is not None or not own.head_on_trunk):
        raise UsageError(
            f"A proposal network of type {own.proposals.get('type')!r} cannot be fine-tuned with the detector.",
            "Only a head on the model's own backbone can; set finetune.train_proposals: false.",
        )
    whole = open_detection_set(recipe.data.train, "train")
    classes = learned_classes(whole, settings.split)
    train = with_objects(whole if classes == whole.classes else whole.subset(classes))
    if settings.mask_head and train[0].segmentation is None:
        raise UsageError(f"{train.name} has no masks, but the mask head requires them.", "Set mask_head: false.")
    val = None if recipe.data.val is None else open_detection_set(recipe.data.val)
    if val is not None:
        _check_val(val, train, settings)
    # Of an LVIS class the first name is learned from, as in the official embeddings.
    names = build_task(train, EvaluateSection(scoring="official")).names
    return Plan(settings, train, names, val, settings.split, model, card, proposals)


def learned_classes(images: DetectionSet, split: str | None) -> tuple[str, ...]:
    """Return the classes of a set that are to be learned: the base classes of a split, or all.

    Raises:
        UsageError: The set lacks a base class of the split, be it under another spelling; the hint tells near names.
    """
    if split is None:
        return images.classes
    if split in SPLITS:
        known = tuple(label for label, _ in vocabularies.classes(split.partition("-")[0]))
        match_classes(read_split(split, known).base, images.classes, images.name)
    base = read_split(split, images.classes).base
    if not base:
        raise UsageError(f"The split {split} has no base classes.", "Omit the split to train on all classes.")
    return base


def _check_val(val: DetectionSet, train: DetectionSet, settings: FinetuneSection) -> None:
    """See that what is learned can be measured.

    Raises:
        UsageError: A class is not there.
    """
    if settings.split is not None:
        match_classes(read_split(settings.split, val.classes).base, train.classes, train.name)
    if settings.classifier == "linear":
        if settings.split is not None:
            raise UsageError(
                "A linear classifier cannot detect novel classes.",
                "Omit the split, or use classifier: text.",
            )
        match_classes(val.classes, train.classes, train.name)


def _models(recipe: Recipe, settings: FinetuneSection) -> tuple[Path, Path | None]:
    """Return the model to start from, and the one that proposes boxes if that is another.

    What this recipe has made before goes first; a proposal head on a trunk comes in one file with that trunk.
    """
    folder = RunFolder(Path(recipe.out))
    made = folder.model("proposals") if recipe.proposals is not None else None
    on_trunk = recipe.proposals is not None and recipe.proposals.on_trunk
    start = start_model(recipe, settings.model)
    if made is not None and made.is_file():
        if on_trunk and settings.model is None:
            return made, None
        if not on_trunk:
            return start, made
    other = None if recipe.model.proposals is None else resolve(recipe.model.proposals)
    return start, None if other == start else other


def start_model(recipe: Recipe, named: str | None = None) -> Path:
    """Return the model that is named, else what this recipe has pretrained, else the one it starts from.

    Raises:
        MissingError: It is not there.
    """
    if named is not None:
        return resolve(named)
    pretrained = RunFolder(Path(recipe.out)).model("pretrain")
    return pretrained if recipe.pretrain is not None and pretrained.is_file() else resolve(recipe.model.start)


def untrained(recipe: Recipe) -> str:
    """Return a sentence if a recipe pretrains a model that is not there yet, so that another one is fine-tuned."""
    pretrained = RunFolder(Path(recipe.out)).model("pretrain")
    named = recipe.finetune is not None and recipe.finetune.model is not None
    if recipe.pretrain is None or named or pretrained.is_file():
        return ""
    return f"{recipe.name} has a section `pretrain` but no {pretrained} yet; starting from {recipe.model.start}."


class Exporter:
    """Writes a fine-tuned detector with the text encoder of the model that it started from.

    Args:
        plan: What was learned.
        name: What the new model is called.

    Attributes:
        card: What the file says about itself.
    """

    def __init__(self, plan: Plan, name: str) -> None:
        self._plan = plan
        settings, start = plan.settings, plan.card
        parts: list[Part] = ["visual", "proposals"]
        parts += [part for part in ("text",) if part in start.parts]
        parts += ["box_head"] if settings.box_head else []
        parts += ["mask_head"] if settings.mask_head else []
        parts += ["classifier"] if settings.classifier == "linear" else []
        self.card: ModelCard = start.model_copy(
            update={
                "name": name,
                "texts": start.text_model,
                "proposals": read_card(plan.proposals).lent_proposals if plan.proposals else start.proposals,
                "parts": tuple(parts),
                "teacher": None,
                "classifier": settings.classifier,
                "classes": plan.train.classes,
                # An image is looked at in the largest size that the detector was trained on.
                "short_side": max(settings.short_sides),
                "max_side": settings.max_side,
                "source": f"Fine-tuned from {start.name} on {Path(plan.train.name).name}.",
                "notes": "",
            }
        )

    def write(self, path: Path, detector: OpenVocabularyDetector) -> Path:
        """Write the detector as it is now.

        Raises:
            OutputError: The disk refuses; nothing is left behind.
        """
        text = text_tensors(self._plan.model) if "text" in self.card.parts else {}
        return write_model(path, self.card, text | detector_tensors(detector))
