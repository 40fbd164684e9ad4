"""Settings of `detect`, one sentence each; the flags and their help come from here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DEFAULT_OUT = Path("regionclip-detections")

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class DetectSettings(BaseModel):
    """What to look for, where, how, and what to write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[str, ...] = Field(description="Image files, folders, globs such as 'a/**/*.jpg', or - for stdin.")
    classes: str | tuple[str, ...] | None = Field(
        None,
        description="What to look for: names, name=phrase|phrase for synonyms, @coco, @lvis, or a .txt or .json file.",
    )
    distractors: str | tuple[str, ...] = Field(
        (), description="Names that compete with the classes and are not reported."
    )
    concepts: Path | None = Field(
        None, description="A concept bank (.safetensors) made with the same model, in place of class names."
    )
    model: str = Field("regionclip-tiny", description="Name or file of the model; see `regionclip models ls`.")
    proposals: str | None = Field(
        None, description="Name or file of another model whose proposal network finds the boxes."
    )
    boxes: Path | None = Field(
        None, description="Name these boxes instead of finding some: JSON {image: boxes x1, y1, x2, y2} or COCO."
    )
    scoring: Literal["default", "official"] = Field(
        "default", description="official: the paper's test-time settings; scores may pass 1 there."
    )
    conf: Annotated[float, Field(ge=0)] | None = Field(
        None, description="Report what scores above this; left out, the model's own threshold (0.001 if official)."
    )
    iou: Share = Field(0.5, description="Of two boxes that overlap more than this, the lower one is dropped.")
    nms: Literal["class", "agnostic", "off"] = Field(
        "class", description="Drop overlapping boxes of the same class, of any class, or none."
    )
    max_dets: Count = Field(100, description="Best detections to report of an image.")
    short_side: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Shorter image side in pixels for the network, 0 as is; left out, the model's own."
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps; auto takes the fastest that is here.")
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Number type of the networks; auto is fp32, bf16 is faster where the hardware has it."
    )
    batch: Count = Field(1, description="Images to look at together.")
    out: Path | None = Field(None, description=f"Folder for the results; left out, {DEFAULT_OUT}.")
    formats: tuple[str, ...] = Field(
        ("images",),
        description="What to write besides detections.jsonl: images, html, coco, yolo, voc, cvat, label-studio, csv, "
        "parquet, or a plugin's format.",
    )
    format_options: tuple[str, ...] = Field(
        (), description="Option of a format, such as yolo.scores=true or coco.annotations=instances.json."
    )
    json_lines: bool = Field(
        False, description="Write one JSON object an image to stdout, and no files unless --out is given."
    )
    resume: bool = Field(False, description="Go on with an earlier run in the same folder; what is done is skipped.")
    strict: bool = Field(False, description="Stop at the first image that cannot be read.")
    recursive: bool = Field(False, description="Look in the sub-folders of folders too.")
    max_pixels: Count = Field(178_956_970, description="Refuse images with more pixels than this.")

    @model_validator(mode="after")
    def _fits_together(self) -> DetectSettings:
        if self.classes is not None and self.concepts is not None:
            raise ValueError("classes and concepts both say what to look for; give one of them")
        if self.resume and self.json_lines and self.out is None:
            raise ValueError("there is no earlier run to go on with when nothing is written; give --out too")
        if self.resume and "-" in self.inputs:
            raise ValueError("what comes on standard input cannot be told from what came before; do not resume it")
        return self
