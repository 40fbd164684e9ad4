"""What a model file says about itself: one JSON card in the header of one safetensors file.

A model file holds named tensors and, under the metadata key `regionclip`, the card below. Reading the card touches the
header alone, so listing every model on the machine costs milliseconds however large the files are.

Tensor names: `clip.*` (an open_clip model: image tower `clip.visual.*`, text tower, `clip.logit_scale`),
`teacher.visual.*`, `proposals.*`, `box_head.weight|bias`, `mask_head.*`, `classifier.train|test`, or
`classifier.train.weight|bias` of a learned layer.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.files import parsing

METADATA_KEY = "regionclip"
FORMAT = 1

TRUNK_HEADS = ("rpn-trunk", "fpn-trunk")
"""Proposal networks that stand on the feature map of a detector's trunk."""

Part = Literal["visual", "text", "proposals", "teacher", "box_head", "mask_head", "classifier"]


class ModelCard(BaseModel):
    """The description that travels inside a model file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(FORMAT, description="Version of the file layout.")
    name: str = Field(description="Name for `--model`.")
    kind: Literal["detector", "proposals"] = Field(
        "detector", description="`proposals` for a proposal network alone, else `detector`."
    )
    backbone: str | None = Field(None, description="Name of the backbone; None for proposal networks.")
    clip: dict[str, Any] | None = Field(None, description="open_clip model config (default: the backbone's).")
    pool_size: int | None = Field(None, description="Side P of the RoIAlign grid (default: the backbone's).")
    proposals: dict[str, Any] | None = Field(None, description="Type and options of the included proposal network.")
    parts: tuple[Part, ...] = Field((), description="Parts of a detector in the file.")
    teacher: str | None = Field(None, description="Name of the teacher's backbone, if the file includes a teacher.")
    texts: str | None = Field(None, description="Model that the text encoder comes from (default: this one).")
    classifier: Literal["text", "linear"] = Field(
        "text", description="text: open vocabulary; linear: a learned layer restricted to `classes`."
    )
    classes: tuple[str, ...] = Field(
        (), description="Classes of the training data; with `linear`, the only ones it can predict."
    )
    templates: str = Field("clip-81", description="Default prompt templates.")
    temperature: float = Field(0.01, gt=0, description="Temperature of the softmax over cosine similarities.")
    short_side: int = Field(
        800, ge=0, description="Shorter image side in pixels at test time; 0 keeps the original size."
    )
    max_side: int = Field(1333, gt=0, description="Maximum image side in pixels at test time.")
    conf: float | None = Field(None, ge=0, le=1, description="Default score threshold.")
    calibration: tuple[float, float] | None = Field(
        None, description="Platt scaling of detection scores: slope and offset of the logit."
    )
    licence: str = Field("", description="Licence of the weights, if known.")
    source: str = Field("", description="Origin of the weights.")
    notes: str = Field("", description="Notes for users.")

    @property
    def text_model(self) -> str:
        """Name of the model whose concept banks fit: training regions leaves the text encoder as it was."""
        return self.texts or self.name

    @property
    def head_on_trunk(self) -> bool:
        """Whether the proposal network is a head that only understands the features of this model's own trunk."""
        return (self.proposals or {}).get("type") in TRUNK_HEADS

    @property
    def lent_proposals(self) -> dict[str, Any] | None:
        """Config, for `build_proposals`, of the proposal network as other models use it; None where there is none.

        A head on the trunk brings the trunk along; any other network goes as it is.
        """
        if not self.head_on_trunk:
            return self.proposals
        return {
            "type": "own-trunk",
            "backbone": self.backbone,
            "clip": self.clip,
            "pool_size": self.pool_size,
            "head": self.proposals,
            "short_side": self.short_side,
            "max_side": self.max_side,
        }

    def metadata(self) -> dict[str, str]:
        """Return the safetensors metadata that carries this card."""
        return {METADATA_KEY: self.model_dump_json(exclude_defaults=False), "format": "pt"}


def read_card(path: Path) -> ModelCard:
    """Read the card of a model file from its header.

    Raises:
        MissingError: There is no such file.
        UsageError: The file is damaged, is no model file of this tool, or was written by a newer version of it.
    """
    text = read_metadata(path).get(METADATA_KEY)
    if text is None:
        raise UsageError(
            f"{path} is a safetensors file but not a regionclip model.",
            "Pass a concept bank with --concepts, or import other weights with `regionclip models add NAME FILE`.",
        )
    try:
        raw = json.loads(text)
        if isinstance(raw, dict) and isinstance(raw.get("format"), int) and raw["format"] > FORMAT:
            raise UsageError(
                f"{path} has model file format {raw['format']}; this version supports up to {FORMAT}.",
                "Upgrade regionclip-cli.",
            )
        return ModelCard.model_validate(raw)
    except (ValueError, RecursionError) as err:
        first = err.errors()[0] if isinstance(err, ValidationError) else {"loc": (), "msg": str(err)}
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"The model card in {path} is invalid: {where or 'card'}: {first['msg']}.") from err


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file, empty where it has none; errors as `read_card`."""
    metadata = read_header(path).get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UsageError(f"{path} is damaged: its metadata is not a map of texts.")
    return metadata


def read_header(path: Path) -> dict[str, Any]:
    """Return the JSON header of a safetensors file: {tensor name: {dtype, shape, data_offsets}}, `__metadata__`.

    The file's size is checked against the header, so that a truncated file is found here and not while it is used.
    """
    header, _ = _header_and_start(path)
    return header


def fingerprint(path: Path) -> str:
    """Return 16 hex digits that stay the same for the same model file and differ between models.

    The header, the size and the first and last bytes of every tensor are hashed: a training step changes some of
    them, and even a 1 GB file costs milliseconds. Caches of what a model computed are keyed by it.
    """
    header, start = _header_and_start(path)
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(str(path.stat().st_size).encode())
    with path.open("rb") as file:
        for name in sorted(set(header) - {"__metadata__"}):
            begin, end = header[name]["data_offsets"]
            size = min(256, end - begin)
            for offset in (begin, end - size):
                file.seek(start + offset)
                digest.update(file.read(size))
    return digest.hexdigest()[:16]


def _header_and_start(path: Path) -> tuple[dict[str, Any], int]:
    """Return the checked header and the file offset of the first tensor byte."""
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            size = path.stat().st_size
            body = file.read(length) if 2 <= length <= size - 8 else b""
    except FileNotFoundError as err:
        raise MissingError(f"The model file {path} does not exist.") from err
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror or err}.") from err
    with parsing(
        f"{path} is not a safetensors file",
        "Checkpoints of other kinds are converted by `regionclip models add NAME FILE`.",
    ):
        header = json.loads(body)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = max(ends, default=0) == size - 8 - length
    if not whole:
        raise UsageError(f"{path} is damaged: its size does not match its header.", "Download or convert it again.")
    return header, 8 + length
