"""The models this tool knows by name: what they are, whose they are, and how they get here."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from regionclip_cli.hub.paths import models_dir

HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""The names under which open_clip keeps weights on the Hugging Face Hub, the safe one first."""

RELEASE_PAGE = "https://github.com/microsoft/RegionCLIP/blob/main/docs/MODEL_ZOO.md"


class CatalogEntry(BaseModel):
    """One model, proposal network or set of concept embeddings."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str = Field(description="Name for `--model` and `models get`.")
    summary: str = Field(description="One-sentence description.")
    kind: Literal["detector", "proposals", "concepts"] = Field(description="Kind of model.")
    origin: Literal["package", "hub", "hand"] = Field(alias="from", description="How it is installed.")
    backbone: str | None = Field(None, description="Name of the backbone.")
    open_clip: tuple[str, str] | None = Field(None, description="Architecture and pretrained tag in open_clip.")
    repo: str | None = Field(None, description="Repository on the Hugging Face Hub.")
    files: tuple[str, ...] = Field(HUB_FILES, description="Candidate files in the repository, in order of preference.")
    file: str | None = Field(None, description="Name of the file to download manually.")
    page: str = Field(RELEASE_PAGE, description="Download page of that file.")
    text_from: str | None = Field(None, description="Model that provides the text encoder for a file without one.")
    names: str | None = Field(None, description="Class list of concept embeddings.")
    model: str | None = Field(None, description="Model whose text encoder produced the concept embeddings.")
    size_mb: int | None = Field(None, gt=0, description="Download size in MB (10^6 bytes).")
    licence: str = Field("", description="Licence of the weights; empty if unknown.")

    @model_validator(mode="after")
    def _whole(self) -> CatalogEntry:
        needed = {"hub": self.repo, "hand": self.file, "package": self.name}[self.origin]
        if not needed:
            raise ValueError(f"an entry that comes from {self.origin!r} must say from where")
        return self

    @property
    def source(self) -> str:
        """Where the weights come from, for the model card."""
        return f"https://huggingface.co/{self.repo}" if self.repo else self.page if self.file else ""

    @property
    def how_to_get(self) -> str:
        """What a person does to have it on this machine: a sentence with a command."""
        if self.origin == "package":
            return "It comes with the package; install regionclip-cli again."
        target = f"It is then kept as {models_dir() / (self.name + '.safetensors')}."
        if self.origin == "hub":
            return f"Fetch it with `regionclip models get {self.name}`. {target}"
        options = "".join(
            f" --{option.replace('_', '-')} {getattr(self, option)}"
            for option in ("text_from", "names", "model")
            if getattr(self, option)
        )
        return (
            f"Download {self.file} from the Google Drive folder linked on {self.page}, "
            f"then run `regionclip models add {self.name} {self.file}{options}`. {target}"
        )


@cache
def catalog() -> dict[str, CatalogEntry]:
    """Return every known model by name, in the order of `catalog.yaml`."""
    import yaml

    text = files("regionclip_cli.hub").joinpath("catalog.yaml").read_text(encoding="utf-8")
    return {name: CatalogEntry.model_validate({"name": name, **entry}) for name, entry in yaml.safe_load(text).items()}
