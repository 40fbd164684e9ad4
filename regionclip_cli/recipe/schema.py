"""The settings of a recipe: one class per section, one description per setting."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """Base class of all sections: settings are validated once and immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CaptionData(Section):
    """One source of captions, with or without images."""

    dataset: str = Field(
        description="Format: jsonl, coco-captions, tsv, webdataset, text, scenes, or a plugin's dataset."
    )
    path: str | tuple[str, ...] = Field(
        (), description="File, glob or numbered range such as shards/{00000..00331}.tar; or a list of these."
    )
    images: str | None = Field(None, description="Image folder that captions refer to, or the image TSV.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of a plugin's dataset.")
    limit: Count | None = Field(None, description="Use only the first N images.")

    def paths(self) -> tuple[str, ...]:
        """Return the paths as written, as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path


class DetectionData(Section):
    """A dataset of images with boxes and classes."""

    dataset: str = Field(
        "coco", description="Annotation format: coco, lvis, voc, yolo, cvat, label-studio, openimages, or a plugin's."
    )
    annotations: str | None = Field(None, description="Annotation file, or for voc the folder of XML files.")
    images: str | None = Field(None, description="Image folder (default for voc and yolo: as the annotations state).")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of a plugin's dataset, or openimages' `names` file."
    )
    lenient: bool = Field(False, description="Skip invalid entries of the annotation file.")
    limit: Count | None = Field(None, description="Use only the first N images.")


class DataSection(Section):
    """Datasets for training and evaluation."""

    captions: CaptionData | tuple[CaptionData, ...] | None = Field(
        None, description="Caption sources, one or a list, for concepts, pseudolabel and pretrain."
    )
    train: DetectionData | None = Field(None, description="Annotated images to fine-tune on.")
    val: DetectionData | None = Field(None, description="Annotated images to evaluate on during fine-tuning.")

    def caption_sources(self) -> tuple[CaptionData, ...]:
        """Return the caption sources as a tuple, empty where there is none."""
        if self.captions is None:
            return ()
        return (self.captions,) if isinstance(self.captions, CaptionData) else self.captions


class ModelSection(Section):
    """Initial models; each is a name listed by `regionclip models ls`, or a model file."""

    start: str = Field("regionclip-tiny", description="Model that initialises the image and text encoders.")
    teacher: str | None = Field(None, description="CLIP model that labels regions (default: `start`).")
    proposals: str | None = Field(None, description="Model whose proposal network provides regions (default: `start`).")


class ConceptsSection(Section):
    """How the concept pool is mined (RegionCLIP section 3.2)."""

    parser: Literal["hanta", "spacy"] = Field(
        "hanta", description="Noun parser: hanta (bundled) or spacy (as in the paper)."
    )
    min_count: Count = Field(100, description="Drop nouns that occur fewer times than this.")
    max_concepts: Count | None = Field(None, description="Keep only the N most frequent concepts.")
    add: tuple[str, ...] = Field((), description="Concepts to add.")
    drop: tuple[str, ...] = Field((), description="Concepts to remove.")
    templates: str | None = Field(None, description="Prompt templates (default: the model's).")
    workers: int = Field(0, ge=0, description="Parser processes; 0 parses in the main process.")
    names_only: bool = Field(False, description="Write only the list of nouns, without embeddings.")


class PseudolabelSection(Section):
    """How regions are proposed and labelled; defaults follow the paper (RegionCLIP section 3.2)."""

    regions: Count = Field(300, description="Maximum number of regions labelled per image.")
    source: Literal["network", "random", "grid", "given"] = Field(
        "network", description="Source of regions: a proposal network, random or grid boxes, or a file."
    )
    boxes: str | None = Field(None, description="Box file for `source: given`: JSON {image key: boxes} or COCO.")
    proposal_iou: Share = Field(0.5, description="IoU threshold of non-maximum suppression of proposals.")
    teacher_view: Literal["roi", "crop"] = Field(
        "roi",
        description="roi: pool regions from the feature map, as in the paper; crop: encode each region as an image.",
    )
    temperature: float = Field(0.01, gt=0, description="Temperature of the teacher's softmax.")
    top_k: Count = Field(10, description="Number of most probable concepts stored per region.")
    min_score: Share = Field(0.1, description="Drop regions whose best concept has a lower probability.")
    short_side: int = Field(800, ge=0, description="Shorter image side in pixels; 0 keeps the original size.")
    max_side: Count = Field(1333, description="Maximum image side in pixels.")
    batch: Count = Field(1, description="Batch size; it does not affect the labels.")
    shard_size: Count = Field(1000, description="Images per output file, and at most what a killed run repeats.")
    dtype: Literal["auto", "fp32", "bf16"] = Field("auto", description="Precision of the networks.")
    concept_bank: str | None = Field(
        None, description="Concept bank (default: the output of this recipe's `concepts` section)."
    )


class Optimisation(Section):
    """Training settings; defaults follow the paper's pretraining."""

    steps: Count = Field(600_000, description="Optimiser steps.")
    batch_size: Count = Field(96, description="Images per optimiser step, over all processes and accumulation steps.")
    grad_accum_steps: Count = Field(
        1, description="Gradient accumulation: parts in which a batch is computed to save memory."
    )
    optimiser: Literal["sgd", "adamw"] = Field("sgd", description="SGD with momentum 0.9, or AdamW.")
    lr: float = Field(0.002, gt=0, description="Peak learning rate.")
    momentum: Share = Field(0.9, description="Momentum of SGD.")
    weight_decay: Weight = Field(1e-4, description="Weight decay; normalisation layers are exempt.")
    clip_norm: float | None = Field(
        None, gt=0, description="Maximum gradient norm of each parameter; null disables clipping."
    )
    schedule: Literal["step", "cosine", "constant"] = Field("step", description="Learning rate schedule.")
    milestones: tuple[Count, ...] = Field((), description="Steps at which the learning rate is multiplied by `decay`.")
    decay: Share = Field(0.1, description="Learning rate factor at each milestone.")
    warmup_steps: int = Field(1000, ge=0, description="Steps of linear warm-up.")
    warmup_factor: Share = Field(0.001, description="Initial learning rate of the warm-up as a fraction of `lr`.")
    frozen_stages: int = Field(2, ge=0, description="Number of backbone stages kept frozen.")
    amp: Literal["off", "bf16"] = Field("off", description="Mixed precision.")
    ema_decay: Share | None = Field(None, description="EMA decay such as 0.999; null disables EMA.")
    activation_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass to save memory."
    )
    channels_last: bool = Field(False, description="Use the channels-last memory format.")
    compile: bool = Field(False, description="Use torch.compile; worthwhile for long runs on a GPU.")
    workers: int = Field(4, ge=0, description="Data loading processes.")
    checkpoint_every: Count = Field(5000, description="Steps between checkpoints.")
    keep_last: Count = Field(2, description="Number of recent checkpoints to keep.")
    log_every: Count = Field(50, description="Steps between log lines.")


class PretrainLosses(Section):
    """Loss weights; 0 disables a loss."""

    region_text: Weight = Field(1.0, description="Weight of the region-text contrastive loss.")
    distill: Weight = Field(1.0, description="Weight of the distillation loss (KL divergence over all concepts).")
    image_text: Weight = Field(
        1.0, description="Weight of the image-text contrastive loss, within each accumulation step."
    )


class PretrainSection(Optimisation):
    """How the student is trained on labelled regions; defaults follow the paper (RegionCLIP section 3.2)."""

    losses: PretrainLosses = Field(PretrainLosses(), description="Loss weights.")
    teacher_mode: Literal["labels", "online"] = Field(
        "online",
        description="online: the teacher labels each batch, as in the paper; labels: use the output of `pseudolabel`.",
    )
    regions: Count = Field(100, description="Regions sampled per image and step.")
    temperature: float = Field(0.01, gt=0, description="Temperature of all losses.")
    min_score: Share = Field(0.1, description="Ignore regions whose best concept has a lower probability.")
    gather_regions: bool = Field(False, description="Gather regions of all processes for the contrastive loss.")
    whole_image: Literal["valid", "padded"] = Field(
        "valid",
        description="Region of the image-text loss: the image, or the padded batch canvas as in the official code.",
    )
    clip_norm: float | None = Field(
        5.0, gt=0, description="Maximum gradient norm of each parameter; null disables clipping."
    )
    short_side: int = Field(800, ge=0, description="Shorter image side in pixels; 0 keeps the original size.")
    max_side: Count = Field(1333, description="Maximum image side in pixels.")
    flip: Share = Field(0.5, description="Probability of a horizontal flip.")
    proposal_iou: Share = Field(
        0.5, description="Online teacher: IoU threshold of non-maximum suppression of proposals."
    )
    max_proposals: Count = Field(
        300, description="Online teacher: maximum number of proposals per image to sample from."
    )
    concept_bank: str | None = Field(
        None, description="Concept bank (default: the output of this recipe's `concepts` section)."
    )
    labels: str | None = Field(
        None, description="Label folder (default: the output of this recipe's `pseudolabel` section)."
    )


class FinetuneSection(Optimisation):
    """How a detector is trained on annotated boxes; defaults follow the paper's COCO transfer."""

    steps: Count = Field(90_000, description="Optimiser steps.")
    batch_size: Count = Field(16, description="Images per optimiser step, over all processes and accumulation steps.")
    milestones: tuple[Count, ...] = Field(
        (60_000, 80_000), description="Steps at which the learning rate is multiplied by `decay`."
    )
    warmup_steps: int = Field(5000, ge=0, description="Steps of linear warm-up.")
    model: str | None = Field(
        None, description="Initial model (default: this recipe's pretrained model, else `model.start`)."
    )
    split: str | None = Field(
        None, description="Base/novel split: coco-48-17, lvis-rare, or a file (default: train on all classes)."
    )
    classifier: Literal["text", "linear"] = Field(
        "text", description="text: frozen text embeddings; linear: a learned layer."
    )
    loss: Literal["focal", "weighted"] = Field(
        "focal", description="Classification loss: focal (COCO) or weighted (LVIS)."
    )
    gamma: Weight = Field(0.5, description="Focal exponent; 0 is plain cross-entropy.")
    background_weight: Weight = Field(0.2, description="Loss weight of background regions.")
    federated: bool = Field(False, description="Federated loss, for LVIS.")
    regions: Count = Field(512, description="Regions sampled per image.")
    foreground: Share = Field(0.25, description="Maximum fraction of foreground regions.")
    iou: Share = Field(0.5, description="IoU threshold for foreground regions.")
    train_proposals: bool = Field(
        False, description="Also train the proposal head, for models whose head shares the trunk."
    )
    proposal_iou: Share = Field(0.7, description="IoU threshold of non-maximum suppression of proposals.")
    max_proposals: Count = Field(1000, description="Maximum number of proposals per image to sample from.")
    box_head: bool = Field(True, description="Train a class-agnostic box regression head.")
    mask_head: bool = Field(
        False,
        description="Train a class-agnostic mask head.",
    )
    sampler: Literal["uniform", "repeat-factor"] = Field(
        "uniform", description="Image sampling; repeat-factor oversamples rare classes."
    )
    repeat_threshold: Share = Field(0.001, description="Oversample classes that occur in a smaller fraction of images.")
    short_sides: tuple[int, ...] = Field(
        (640, 672, 704, 736, 768, 800), description="Shorter image sides in pixels, sampled per image."
    )
    max_side: Count = Field(1333, description="Maximum image side in pixels.")
    flip: Share = Field(0.5, description="Probability of a horizontal flip.")
    evaluate_every: Count | None = Field(
        None, description="Steps between evaluations on data.val (default: only at the end)."
    )
    scoring: Literal["default", "official"] = Field(
        "official", description="Scoring of evaluations; official: the paper's test-time settings."
    )
    ensemble_alpha: Share = Field(0.0, description="Weight-space ensembling (WiSE-FT): share of the initial weights.")


class ProposalsSection(Optimisation):
    """How a class-agnostic region proposal network is trained."""

    steps: Count = Field(90_000, description="Optimiser steps.")
    batch_size: Count = Field(16, description="Images per optimiser step, over all processes and accumulation steps.")
    lr: float = Field(0.02, gt=0, description="Peak learning rate.")
    milestones: tuple[Count, ...] = Field(
        (60_000, 80_000), description="Steps at which the learning rate is multiplied by `decay`."
    )
    network: Literal["rpn-fpn", "rpn-fpn-lsj", "rpn-c4", "rpn-trunk", "fpn-trunk"] = Field(
        "rpn-fpn", description="Architecture; rpn-trunk and fpn-trunk use the features of `model.start`."
    )
    learn_trunk: bool = Field(
        False,
        description="fpn-trunk: also train the trunk; the result is a proposal network for any model.",
    )

    split: str | None = Field(None, description="Train only on the base classes of this split.")
    sampler: Literal["uniform", "repeat-factor"] = Field(
        "uniform", description="Image sampling; repeat-factor oversamples rare classes, as for LVIS."
    )
    repeat_threshold: Share = Field(0.001, description="Oversample classes that occur in a smaller fraction of images.")
    init: str | None = Field(None, description="torchvision or timm ResNet-50 weights to start from (default: random).")
    jitter: tuple[float, float] | None = Field(
        None, description="Large-scale jitter instead of `short_sides`: minimum and maximum scale, such as [0.1, 2.0]."
    )
    canvas: Count = Field(1024, description="Side in pixels of the square crop used by `jitter` and `mosaic`.")
    short_sides: tuple[int, ...] = Field(
        (640, 672, 704, 736, 768, 800), description="Shorter image sides in pixels, sampled per image."
    )
    max_side: Count = Field(1333, description="Maximum image side in pixels.")
    flip: Share = Field(0.5, description="Probability of a horizontal flip.")
    mosaic: Share = Field(0.0, description="Probability of a mosaic of four images.")
    colour: Share = Field(0.0, description="Strength of brightness, contrast and saturation jitter, such as 0.3.")

    @property
    def on_trunk(self) -> bool:
        """Whether the result is a head that comes in one file with the model whose trunk it stands on."""
        return self.network in ("rpn-trunk", "fpn-trunk") and not self.learn_trunk


class EvaluateSection(DetectionData):
    """One evaluation: dataset, boxes, classes and scoring."""

    name: str | None = Field(None, description="Name in result tables (default: derived from the other settings).")
    model: str | None = Field(
        None, description="Model to evaluate (default: the one trained by this recipe, else `model.start`)."
    )
    proposals_from: str | None = Field(None, description="Another model that provides the proposal network.")
    boxes: str = Field("proposals", description="ground-truth, proposals, or a box file as for `detect --boxes`.")
    split: str | None = Field(
        None, description="Base/novel split for separate results: coco-48-17, lvis-rare, or a file."
    )
    vocabulary: str | None = Field(None, description="Class names at test time (default: those of the dataset).")
    scoring: Literal["default", "official"] = Field("default", description="official: the paper's test-time settings.")
    crops: bool = Field(False, description="Baseline: encode each box as a cropped image.")
    predictions: str | None = Field(
        None, description="Evaluate the output of `detect --conf 0.001` instead of a model."
    )
    short_side: int | None = Field(None, ge=0, description="Shorter image side in pixels (default: the model's).")
    conf: float | None = Field(
        None, ge=0, description="Score threshold (default: 0.001, or the paper's with official scoring)."
    )
    max_dets: Count | None = Field(
        None, description="Maximum number of detections per image (default: 100; 300 for LVIS)."
    )
    batch: Count = Field(1, description="Batch size.")
    dtype: Literal["auto", "fp32", "bf16"] = Field("auto", description="Precision of the networks.")
    report: bool = Field(True, description="Write an HTML report with tables, curves and the worst images.")


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
"""Settings renamed before 0.1.0, old name to new."""
STAGES = ("concepts", "pseudolabel", "pretrain", "proposals", "finetune", "evaluate")
"""Sections that can be run, in order."""


class Recipe(Section):
    """All settings of a run; absent sections are not run."""

    regionclip: int = Field(FORMAT, ge=1, le=FORMAT, description="Recipe format version.")
    name: str = Field(description="Name of the recipe and of its run folder.")
    seed: int = Field(0, ge=0, description="Random seed.")
    out: str = Field("runs/{name}", validate_default=True, description="Run folder.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    model: ModelSection = Field(ModelSection(), description="Initial models.")
    data: DataSection = Field(DataSection(), description="Datasets.")
    concepts: ConceptsSection | None = Field(None, description="Mine concepts from captions.")
    pseudolabel: PseudolabelSection | None = Field(None, description="Generate region pseudo-labels.")
    pretrain: PretrainSection | None = Field(None, description="Train on region-text pairs.")
    proposals: ProposalsSection | None = Field(None, description="Train a region proposal network.")
    finetune: FinetuneSection | None = Field(None, description="Fine-tune a detector on annotated boxes.")
    evaluate: tuple[EvaluateSection, ...] = Field((), description="Evaluations.")

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
