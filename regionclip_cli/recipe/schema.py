"""What all sections of a recipe share."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A part of a recipe: settings that are checked once and never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CaptionData(Section):
    """One source of captions, with images or without."""

    dataset: str = Field(
        description="Form of the source: jsonl, coco-captions, tsv, webdataset, text, scenes, or a plugin's dataset."
    )
    path: str | tuple[str, ...] = Field(
        (), description="File, glob or numbered range such as shards/{00000..00331}.tar; several in a list."
    )
    images: str | None = Field(None, description="Folder of the images that the captions name, or the image TSV.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further settings of a plugin's dataset.")
    limit: Count | None = Field(None, description="Use the first so many images only.")

    def paths(self) -> tuple[str, ...]:
        """Return the paths as written, as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path


class DetectionData(Section):
    """A set of images with boxes and classes."""

    dataset: str = Field("coco", description="Form of the annotations: coco, lvis, scenes, or a plugin's dataset.")
    annotations: str | None = Field(None, description="The annotation file (json).")
    images: str | None = Field(None, description="Folder of the images.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further settings of a plugin's dataset.")
    lenient: bool = Field(False, description="Go on without entries of the annotation file that are wrong.")
    limit: Count | None = Field(None, description="Use the first so many images only.")


class DataSection(Section):
    """What a recipe learns from and is measured on."""

    captions: CaptionData | tuple[CaptionData, ...] | None = Field(
        None, description="Captions with images, one source or a list: for concepts, pseudolabel and pretrain."
    )
    train: DetectionData | None = Field(None, description="Boxes with classes to fine-tune on.")
    val: DetectionData | None = Field(None, description="Boxes with classes to evaluate on while training.")

    def caption_sources(self) -> tuple[CaptionData, ...]:
        """Return the caption sources as a tuple, empty where there is none."""
        if self.captions is None:
            return ()
        return (self.captions,) if isinstance(self.captions, CaptionData) else self.captions


class ModelSection(Section):
    """The networks a recipe starts from; each a name of `regionclip models ls` or a model file."""

    start: str = Field("regionclip-tiny", description="Model whose image and text encoders training starts from.")
    teacher: str | None = Field(None, description="CLIP model that labels regions; left out, the one in `start`.")
    proposals: str | None = Field(
        None, description="Model whose proposal network finds the regions; left out, the one in `start`."
    )


class ConceptsSection(Section):
    """How the concept pool is mined (RegionCLIP section 3.2)."""

    parser: Literal["hanta", "spacy"] = Field(
        "hanta", description="Who finds the nouns: hanta needs no download, spacy is the paper's parser."
    )
    min_count: Count = Field(100, description="Drop nouns that the captions name less often.")
    max_concepts: Count | None = Field(None, description="Keep only so many, the most frequent ones.")
    add: tuple[str, ...] = Field((), description="Concepts to have in any case.")
    drop: tuple[str, ...] = Field((), description="Concepts to leave out.")
    templates: str | None = Field(None, description="Prompt templates; left out, the model's own.")
    workers: int = Field(0, ge=0, description="Processes that look for nouns; 0 does it in this one.")
    names_only: bool = Field(False, description="Write the list of nouns and no embeddings.")


class PseudolabelSection(Section):
    """How regions are proposed and named; the defaults are the paper's (RegionCLIP section 3.2)."""

    regions: Count = Field(300, description="Best regions of an image to label.")
    source: Literal["network", "random", "grid", "given"] = Field(
        "network", description="Where regions come from: a proposal network, random or grid boxes, or a file."
    )
    boxes: str | None = Field(None, description="With `source: given`: JSON {image key: boxes} or COCO.")
    proposal_iou: Share = Field(0.5, description="Of two proposals that overlap more than this, the lower is dropped.")
    teacher_view: Literal["roi", "crop"] = Field(
        "roi", description="roi: embed regions from the feature map, as the paper; crop: each as a picture of its own."
    )
    temperature: float = Field(0.01, gt=0, description="Divisor of the cosine in the teacher's softmax.")
    top_k: Count = Field(10, description="Best concepts of a region to keep with their probabilities.")
    min_score: Share = Field(0.1, description="Drop regions whose best concept is less probable than this.")
    short_side: int = Field(800, ge=0, description="Shorter image side in pixels; 0 leaves images as they are.")
    max_side: Count = Field(1333, description="Longest image side in pixels.")
    batch: Count = Field(1, description="Images per batch; labels do not depend on it.")
    shard_size: Count = Field(1000, description="Images of one output file; what a killed run does again at most.")
    dtype: Literal["auto", "fp32", "bf16"] = Field("auto", description="Number type of the networks.")
    concept_bank: str | None = Field(
        None, description="Concept bank; default: the one of this recipe's `concepts` section."
    )


class Optimisation(Section):
    """How a network is trained; the defaults are those of the paper's pretraining."""

    steps: Count = Field(600_000, description="Optimiser steps.")
    batch_size: Count = Field(96, description="Images of one optimiser step, over all processes and accumulation.")
    grad_accum_steps: Count = Field(1, description="Parts of a batch computed one after another to save memory.")
    optimiser: Literal["sgd", "adamw"] = Field("sgd", description="SGD with momentum 0.9, or AdamW.")
    lr: float = Field(0.002, gt=0, description="Learning rate after the warm-up.")
    momentum: Share = Field(0.9, description="Momentum of SGD.")
    weight_decay: Weight = Field(1e-4, description="Weight decay; norms have none.")
    clip_norm: float | None = Field(None, gt=0, description="Largest gradient norm of each parameter.")
    schedule: Literal["step", "cosine", "constant"] = Field("step", description="How the learning rate falls.")
    milestones: tuple[Count, ...] = Field((), description="Steps at which it is multiplied by `decay`.")
    decay: Share = Field(0.1, description="Factor of the learning rate at each milestone.")
    warmup_steps: int = Field(1000, ge=0, description="Steps over which the learning rate rises linearly.")
    warmup_factor: Share = Field(0.001, description="Where the warm-up starts, as a share of the learning rate.")
    frozen_stages: int = Field(2, ge=0, description="Stages of the backbone that are not trained.")
    amp: Literal["off", "bf16"] = Field("off", description="Compute in bf16 where it is safe.")
    ema_decay: Share | None = Field(None, description="EMA decay such as 0.999; null disables EMA.")
    activation_checkpointing: bool = Field(False, description="Compute activations twice to save memory.")
    channels_last: bool = Field(False, description="Lay feature maps out by pixel, which some devices prefer.")
    compile: bool = Field(False, description="Compile the network with torch, which pays off in long runs on a GPU.")
    workers: int = Field(4, ge=0, description="Processes that read images.")
    checkpoint_every: Count = Field(5000, description="Steps between checkpoints.")
    keep_last: Count = Field(2, description="Checkpoints to keep.")
    log_every: Count = Field(50, description="Steps between log lines.")


class PretrainLosses(Section):
    """Weights of the three losses; 0 leaves one out."""

    region_text: Weight = Field(1.0, description="Contrastive loss of regions and their concepts.")
    distill: Weight = Field(1.0, description="Distance of the student's from the teacher's match to all concepts.")
    image_text: Weight = Field(
        1.0, description="Contrastive loss of images and captions, among those of one part of a batch."
    )


class PretrainSection(Optimisation):
    """How the student learns from labelled regions; the defaults are the paper's (RegionCLIP section 3.2)."""

    losses: PretrainLosses = Field(PretrainLosses(), description="Weights of the three losses.")
    teacher_mode: Literal["labels", "online"] = Field(
        "online", description="online: the teacher runs along, as in the paper; labels: what `pseudolabel` has written."
    )
    regions: Count = Field(100, description="Regions drawn from those of an image in each step.")
    temperature: float = Field(0.01, gt=0, description="Divisor of the cosine in all losses.")
    min_score: Share = Field(0.1, description="Leave regions out whose best concept is less probable than this.")
    gather_regions: bool = Field(False, description="Contrast regions over all processes, not only within each.")
    whole_image: Literal["valid", "padded"] = Field(
        "valid",
        description="Region of the image-text loss: the image, or the canvas of the batch as in the official code.",
    )
    clip_norm: float | None = Field(5.0, gt=0, description="Largest gradient norm of each parameter.")
    short_side: int = Field(800, ge=0, description="Shorter image side in pixels; 0 leaves images as they are.")
    max_side: Count = Field(1333, description="Longest image side in pixels.")
    flip: Share = Field(0.5, description="Share of images that are mirrored.")
    proposal_iou: Share = Field(0.5, description="With an online teacher: as in `pseudolabel`.")
    max_proposals: Count = Field(300, description="With an online teacher: best regions of an image to draw from.")
    concept_bank: str | None = Field(
        None, description="Concept bank; default: the one of this recipe's `concepts` section."
    )
    labels: str | None = Field(None, description="A folder of labels; left out, the one of this recipe.")


class FinetuneSection(Optimisation):
    """Training a detector on boxes of base classes; the defaults are the paper's COCO transfer."""

    steps: Count = Field(90_000, description="Optimiser steps.")
    batch_size: Count = Field(16, description="Images of one optimiser step, over all processes and accumulation.")
    milestones: tuple[Count, ...] = Field((60_000, 80_000), description="Steps at which lr is multiplied by `decay`.")
    warmup_steps: int = Field(5000, ge=0, description="Steps over which the learning rate rises linearly.")
    model: str | None = Field(
        None, description="Model to start from; left out, this recipe's pretrained one, or start."
    )
    split: str | None = Field(None, description="Base and novel classes: coco-48-17, lvis-rare, or a file; none: all.")
    classifier: Literal["text", "linear"] = Field("text", description="Frozen text embeddings, or a learned layer.")
    loss: Literal["focal", "weighted"] = Field(
        "focal", description="Class loss: focal-scaled (COCO) or weighted (LVIS)."
    )
    gamma: Weight = Field(0.5, description="Exponent of the focal scaling; 0 is plain cross entropy.")
    background_weight: Weight = Field(0.2, description="What a background region weighs against 1 for an object.")
    federated: bool = Field(False, description="Federated loss over classes, for LVIS.")
    regions: Count = Field(512, description="Regions of an image to learn from.")
    foreground: Share = Field(0.25, description="Largest share of them that may show an object.")
    iou: Share = Field(0.5, description="Overlap with an object from which on a region shows it.")
    train_proposals: bool = Field(False, description="Train the proposal head along, where it stands on the trunk.")
    proposal_iou: Share = Field(0.7, description="Of two proposals that overlap more than this, the lower is dropped.")
    max_proposals: Count = Field(1000, description="Best proposals of an image to learn from.")
    box_head: bool = Field(True, description="Learn to refine boxes, the same way for all classes.")
    mask_head: bool = Field(
        False,
        description="Learn masks, alike for all classes; `load_detector(..., masks=True)` gives them, `detect` boxes.",
    )
    sampler: Literal["uniform", "repeat-factor"] = Field(
        "uniform", description="repeat-factor shows rare classes oftener."
    )
    repeat_threshold: Share = Field(0.001, description="Share of images below which a class is repeated.")
    short_sides: tuple[int, ...] = Field(
        (640, 672, 704, 736, 768, 800), description="Image sides to draw from, pixels."
    )
    max_side: Count = Field(1333, description="Longest image side in pixels.")
    flip: Share = Field(0.5, description="Share of images that are mirrored.")
    evaluate_every: Count | None = Field(None, description="Steps between evaluations on data.val; none: at the end.")
    scoring: Literal["default", "official"] = Field(
        "official", description="How evaluations score detections; official: the paper's test-time settings."
    )
    ensemble_alpha: Share = Field(0.0, description="Weight-space ensembling (WiSE-FT): share of the initial weights.")


class ProposalsSection(Optimisation):
    """Training a proposal network alone, class-agnostic."""

    steps: Count = Field(90_000, description="Optimiser steps.")
    batch_size: Count = Field(16, description="Images of one optimiser step, over all processes and accumulation.")
    lr: float = Field(0.02, gt=0, description="Learning rate after the warm-up.")
    milestones: tuple[Count, ...] = Field((60_000, 80_000), description="Steps at which lr is multiplied by `decay`.")
    network: Literal["rpn-fpn", "rpn-fpn-lsj", "rpn-c4", "rpn-trunk", "fpn-trunk"] = Field(
        "rpn-fpn", description="Its form; rpn-trunk and fpn-trunk stand on the features of `model.start`."
    )
    learn_trunk: bool = Field(
        False,
        description="With fpn-trunk: train that trunk along; the result only proposes boxes, for any model.",
    )

    split: str | None = Field(None, description="Only boxes of the base classes of this split.")
    sampler: Literal["uniform", "repeat-factor"] = Field(
        "uniform", description="repeat-factor shows rare classes oftener, as for LVIS."
    )
    repeat_threshold: Share = Field(0.001, description="Share of images below which a class is repeated.")
    init: str | None = Field(
        None, description="File of a ResNet-50 of torchvision or timm to begin with; left out, random weights."
    )
    jitter: tuple[float, float] | None = Field(
        None, description="Large-scale jitter in place of `short_sides`: least and greatest factor, 0.1 and 2.0."
    )
    canvas: Count = Field(1024, description="With `jitter`: side in pixels of the square that images are cut to.")
    short_sides: tuple[int, ...] = Field(
        (640, 672, 704, 736, 768, 800), description="Image sides to draw from, pixels."
    )
    max_side: Count = Field(1333, description="Longest image side in pixels.")
    flip: Share = Field(0.5, description="Share of images that are mirrored.")
    mosaic: Share = Field(0.0, description="Share of samples that are four images in a square of side `canvas`.")
    colour: Share = Field(0.0, description="How far brightness, contrast and saturation vary; 0.3 is usual.")

    @property
    def on_trunk(self) -> bool:
        """Whether the result is a head that comes in one file with the model whose trunk it stands on."""
        return self.network in ("rpn-trunk", "fpn-trunk") and not self.learn_trunk


class EvaluateSection(DetectionData):
    """One measurement: a set, boxes, classes and how scores are made."""

    name: str | None = Field(None, description="What to call it in tables; left out, made of the other settings.")
    model: str | None = Field(None, description="Model to measure; left out, what this recipe has trained, or start.")
    proposals_from: str | None = Field(None, description="Another model whose proposal network finds the boxes.")
    boxes: str = Field(
        "proposals", description="ground-truth, proposals, or a file of boxes as `detect --boxes` takes."
    )
    split: str | None = Field(None, description="Report base, novel and all: coco-48-17, lvis-rare, or a file.")
    vocabulary: str | None = Field(None, description="Classes to choose from at test time; left out, those of the set.")
    scoring: Literal["default", "official"] = Field("default", description="official: the paper's test-time settings.")
    crops: bool = Field(False, description="The naive baseline: each box cropped and encoded as a picture.")
    predictions: str | None = Field(None, description="Score what `detect --conf 0.001` wrote, without a model.")
    short_side: int | None = Field(None, ge=0, description="Shorter image side in pixels; left out, the model's own.")
    conf: float | None = Field(None, ge=0, description="Leave out scores below this; left out, 0.001, or the paper's.")
    max_dets: Count | None = Field(
        None, description="Best detections of an image that count; left out, 100, and 300 for LVIS."
    )
    batch: Count = Field(1, description="Images to look at together.")
    dtype: Literal["auto", "fp32", "bf16"] = Field("auto", description="Number type of the networks.")
    report: bool = Field(True, description="Write an HTML page with tables, curves and the photos that went worst.")


FORMAT = 1
RENAMED = {
    "accumulate": "grad_accum_steps",
    "blend": "ensemble_alpha",
    "concepts": "concept_bank",
    "ema": "ema_decay",
    "freeze": "frozen_stages",
    "proposals": "max_proposals",
    "teacher": "teacher_mode",
}
"""Settings of sections that were called otherwise before 0.1.0: old name to new."""
STAGES = ("concepts", "pseudolabel", "pretrain", "proposals", "finetune", "evaluate")
"""The sections that can be run, in the order in which they are."""


class Recipe(Section):
    """All settings of a run; sections that are absent are not run."""

    regionclip: int = Field(FORMAT, ge=1, le=FORMAT, description="Version of the recipe language.")
    name: str = Field(description="Short name without slashes; it names the run folder.")
    seed: int = Field(0, ge=0, description="Of everything that is drawn at random.")
    out: str = Field("runs/{name}", validate_default=True, description="The run folder.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    model: ModelSection = Field(ModelSection(), description="The networks to start from.")
    data: DataSection = Field(DataSection(), description="What to learn from and to be measured on.")
    concepts: ConceptsSection | None = Field(None, description="Mine concepts from captions.")
    pseudolabel: PseudolabelSection | None = Field(None, description="Name regions with a teacher.")
    pretrain: PretrainSection | None = Field(None, description="Train on named regions.")
    proposals: ProposalsSection | None = Field(None, description="Train a proposal network alone.")
    finetune: FinetuneSection | None = Field(None, description="Train a detector on boxes.")
    evaluate: tuple[EvaluateSection, ...] = Field((), description="What to measure.")

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise ValueError(f"{name!r} cannot name a folder; write letters, digits, and - _ . + after the first")
        return name

    @field_validator("out")
    @classmethod
    def _fill_in_the_name(cls, out: str, info: ValidationInfo) -> str:
        return out.replace("{name}", info.data.get("name", ""))
