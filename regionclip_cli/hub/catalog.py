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

    name: str = Field(description="What `--model` and `models get` call it.")
    summary: str = Field(description="One sentence.")
    kind: Literal["detector", "proposals", "concepts"] = Field(description="What it serves as.")
    origin: Literal["package", "hub", "hand"] = Field(alias="from", description="How it gets here.")
    backbone: str | None = Field(None, description="Name of its backbone.")
    open_clip: tuple[str, str] | None = Field(None, description="Model and tag in open_clip's own table.")
    repo: str | None = Field(None, description="Repository on the Hugging Face Hub.")
    files: tuple[str, ...] = Field(HUB_FILES, description="Files to look for there, the first match wins.")
    file: str | None = Field(None, description="Name of the file that a person fetches by hand.")
    page: str = Field(RELEASE_PAGE, description="Where a person finds that file.")
    text_from: str | None = Field(None, description="Model whose text encoder suits a file that has none.")
    names: str | None = Field(None, description="Class list of concept embeddings.")
    model: str | None = Field(None, description="Model whose text encoder made concept embeddings.")
    size_mb: int | None = Field(None, gt=0, description="Size of the download in 10^6 bytes.")
    licence: str = Field("", description="Licence of the weights; empty where no source was found.")

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
