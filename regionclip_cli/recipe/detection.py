"""Settings of `detect`, one sentence each; the flags and their help come from here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DEFAULT_OUT = Path("regionclip-detections")

MIN_TILE = 32
"""Smallest side of a tile in pixels."""

MAX_OVERLAP = 0.9
"""Largest fraction of a side that tiles may share."""

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class DetectSettings(BaseModel):
    """What to look for, where, how, and what to write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[str, ...] = Field(description="Image files, folders, globs ('a/**/*.jpg'), or - for stdin.")
    classes: str | tuple[str, ...] | None = Field(
        None,
        description="Class names, name=phrase|phrase for synonyms, @coco, @lvis, or a .txt or .json file.",
    )
    distractors: str | tuple[str, ...] = Field(
        (), description="Distractors: names that compete with the classes but are not reported."
    )
    concepts: Path | None = Field(
        None, description="Concept bank (.safetensors) of the same model, instead of class names."
    )
    model: str = Field("regionclip-tiny", description="Model name (see `regionclip models ls`) or file.")
    proposals: str | None = Field(None, description="Another model (name or file) that provides the proposal network.")
    boxes: Path | None = Field(
        None, description="Classify these boxes instead of proposals: COCO, or JSON {image: list of x1, y1, x2, y2}."
    )
    scoring: Literal["default", "official"] = Field(
        "default", description="official: the paper's test-time settings; scores can exceed 1."
    )
    conf: Annotated[float, Field(ge=0)] | None = Field(
        None, description="Score threshold (default: the model's; 0.001 with official scoring)."
    )
    iou: Share = Field(0.5, description="IoU threshold of non-maximum suppression.")
    nms: Literal["class", "agnostic", "off"] = Field(
        "class", description="Non-maximum suppression: per class, across classes, or off."
    )
    max_dets: Count = Field(100, description="Maximum number of detections per image.")
    short_side: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Resize the shorter image side to this many pixels; 0 keeps the size (default: the model's)."
    )
    tiles: Annotated[int, Field(ge=0)] = Field(
        0, description="Also detect in overlapping tiles of this side in pixels, for small objects; 0 disables."
    )
    overlap: Annotated[float, Field(ge=0, le=MAX_OVERLAP)] = Field(
        0.2, description="Minimum overlap of neighbouring tiles, as a fraction of their side."
    )
    flip: bool = Field(False, description="Also detect in the mirrored image (test-time augmentation).")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps; auto selects the fastest available.")
    engine: Literal["auto", "torch", "onnx"] = Field(
        "auto", description="torch or onnx; auto is onnx for models with ONNX graphs on a CPU."
    )
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Precision; auto is fp32, bf16 is faster on supported hardware."
    )
    batch: Count = Field(1, description="Batch size.")
    out: Path | None = Field(None, description=f"Output folder (default: {DEFAULT_OUT}).")
    formats: tuple[str, ...] = Field(
        ("images",),
        description="What to write besides detections.jsonl: images, html, coco, yolo, voc, cvat, label-studio, csv, "
        "parquet, or a plugin's format.",
    )
    format_options: tuple[str, ...] = Field(
        (), description="Format option: yolo.scores=true or coco.annotations=instances.json."
    )
    json_lines: bool = Field(
        False, description="Print one JSON object per image to stdout; writes files only with --out."
    )
    resume: bool = Field(False, description="Continue an earlier run in the same folder, skipping finished images.")
    strict: bool = Field(False, description="Stop at the first unreadable image.")
    recursive: bool = Field(False, description="Search folders recursively.")
    max_pixels: Count = Field(178_956_970, description="Reject images with more pixels than this.")

    @model_validator(mode="after")
    def _fits_together(self) -> DetectSettings:
        if self.classes is not None and self.concepts is not None:
            raise ValueError("classes and concepts cannot be combined; give one of them")
        if 0 < self.tiles < MIN_TILE:
            raise ValueError(f"tiles must have a side of at least {MIN_TILE} pixels, not {self.tiles}")
        if self.boxes is not None and (self.tiles or self.flip):
            raise ValueError("boxes cannot be combined with tiles or flip")
        if self.resume and self.json_lines and self.out is None:
            raise ValueError("resuming requires written results; add --out")
        if self.resume and "-" in self.inputs:
            raise ValueError("a run with standard input (-) cannot be resumed")
        return self
