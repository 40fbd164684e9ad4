"""`pretrain:` region-text pretraining."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regionclip_cli.recipe.section import Count, Section, Share, Weight
from regionclip_cli.recipe.sections.optimisation import Optimisation


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
    teacher: Literal["labels", "online"] = Field(
        "online", description="online: the teacher runs along, as in the paper; labels: what `pseudolabel` has written."
    )
    regions: Count = Field(100, description="Regions drawn from those of an image in each step.")
    temperature: float = Field(0.01, gt=0, description="Divisor of the cosine in all losses.")
    min_score: Share = Field(0.1, description="Leave regions out whose best concept is less probable than this.")
    gather_regions: bool = Field(False, description="Contrast regions over all processes, not only within each.")
    whole_image: Literal["valid", "padded"] = Field(
        "valid", description="Region of the image-text loss: the image, or the padded canvas as in the official code."
    )
    clip_norm: float | None = Field(5.0, gt=0, description="Largest gradient norm of each parameter.")
    short_side: int = Field(800, ge=0, description="Shorter image side in pixels; 0 leaves images as they are.")
    max_side: Count = Field(1333, description="Longest image side in pixels.")
    flip: Share = Field(0.5, description="Share of images that are mirrored.")
    proposal_iou: Share = Field(0.5, description="With an online teacher: as in `pseudolabel`.")
    proposals: Count = Field(300, description="With an online teacher: best regions of an image to draw from.")
    concepts: str | None = Field(None, description="A concept bank; left out, the one of this recipe's `concepts`.")
    labels: str | None = Field(None, description="A folder of labels; left out, the one of this recipe.")
