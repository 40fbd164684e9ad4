"""`model:` which networks take part."""

from __future__ import annotations

from pydantic import Field

from regionclip_cli.recipe.section import Section


class ModelSection(Section):
    """The networks a recipe starts from; each a name of `regionclip models ls` or a model file."""

    start: str = Field("regionclip-tiny", description="Model whose image and text encoders training starts from.")
    teacher: str | None = Field(None, description="CLIP model that labels regions; left out, the one in `start`.")
    proposals: str | None = Field(
        None, description="Model whose proposal network finds the regions; left out, the one in `start`."
    )
