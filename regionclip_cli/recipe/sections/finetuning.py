"""`finetune:` and `proposals:` training on boxes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regionclip_cli.recipe.section import Count, Share, Weight
from regionclip_cli.recipe.sections.optimisation import Optimisation


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
    proposals: Count = Field(1000, description="Best proposals of an image to learn from.")
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
    blend: Share = Field(0.0, description="Share of the model it started from in the weights that are written.")


class ProposalsSection(Optimisation):
    """Training a proposal network alone, class-agnostic."""

    steps: Count = Field(90_000, description="Optimiser steps.")
    batch_size: Count = Field(16, description="Images of one optimiser step, over all processes and accumulation.")
    lr: float = Field(0.02, gt=0, description="Learning rate after the warm-up.")
    milestones: tuple[Count, ...] = Field((60_000, 80_000), description="Steps at which lr is multiplied by `decay`.")
    network: Literal["rpn-fpn", "rpn-fpn-lsj", "rpn-c4", "rpn-trunk"] = Field(
        "rpn-fpn", description="Its form; rpn-trunk stands on the features of `model.start`."
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
