"""`evaluate:` what to measure."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regionclip_cli.recipe.section import Count
from regionclip_cli.recipe.sections.data import DetectionData


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
