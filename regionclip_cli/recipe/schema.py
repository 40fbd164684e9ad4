"""A recipe: one YAML file that says how a model is made and measured."""

from __future__ import annotations

import re

from pydantic import Field, ValidationInfo, field_validator

from regionclip_cli.recipe.section import Section
from regionclip_cli.recipe.sections.concepts import ConceptsSection
from regionclip_cli.recipe.sections.data import DataSection
from regionclip_cli.recipe.sections.evaluation import EvaluateSection
from regionclip_cli.recipe.sections.finetuning import FinetuneSection, ProposalsSection
from regionclip_cli.recipe.sections.model import ModelSection
from regionclip_cli.recipe.sections.pretraining import PretrainSection
from regionclip_cli.recipe.sections.pseudolabel import PseudolabelSection

FORMAT = 1
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
