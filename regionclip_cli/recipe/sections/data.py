"""`data:` captions with images, and sets with boxes."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from regionclip_cli.recipe.section import Count, Section


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
