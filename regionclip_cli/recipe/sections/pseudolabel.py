"""`pseudolabel:` a teacher names regions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regionclip_cli.recipe.section import Count, Section, Share


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
    batch: Count = Field(
        1, description="Images to look at together; padded to one size, they get slightly other proposals."
    )
    shard_size: Count = Field(1000, description="Images of one output file; what a killed run does again at most.")
    dtype: Literal["auto", "fp32", "bf16"] = Field("auto", description="Number type of the networks.")
    concepts: str | None = Field(None, description="A concept bank; left out, the one of this recipe's `concepts`.")
