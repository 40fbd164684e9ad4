"""`concepts:` nouns from captions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regionclip_cli.recipe.section import Count, Section


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
