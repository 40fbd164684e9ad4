"""Concept banks: named text embeddings in one safetensors file, which need no text encoder to be used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from regionclip_cli.errors import UsageError
from regionclip_cli.files import parsing
from regionclip_cli.hub.model_card import METADATA_KEY, read_header, read_metadata
from regionclip_cli.hub.model_file import write_tensors

FORMAT = 1
_FORMAT_KEY = "regionclip_bank"
_TENSOR = "embeddings"


@dataclass(frozen=True, eq=False)
class ConceptBank:
    """C concepts and their embeddings in the space of one model (the concept pool of RegionCLIP section 3.2).

    Attributes:
        names: C distinct names, in row order.
        embeddings: (C, D) float32, not normalised.
        model: Name of the model whose text encoder made them.
        templates: The template set they are means over.

    Raises:
        UsageError: Names and rows do not match, a name is empty or comes twice, or a value is no finite number.
    """

    names: tuple[str, ...]
    embeddings: Tensor
    model: str
    templates: str

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise UsageError(f"This is no concept bank: {problem}.")

    @property
    def dim(self) -> int:
        """Return D, the dimension of the embeddings."""
        return int(self.embeddings.shape[1])

    @property
    def fingerprint(self) -> str:
        """Return 16 hex digits of the names, in their order, and of every number."""
        digest = hashlib.sha256(json.dumps(self.names).encode())
        digest.update(self.embeddings.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write the bank, whole or not at all.

        Raises:
            OutputError: The file cannot be written.
        """
        metadata = {
            _FORMAT_KEY: str(FORMAT),
            "format": "pt",
            "names": json.dumps(self.names, ensure_ascii=False),
            "model": self.model,
            "templates": self.templates,
        }
        write_tensors(path, {_TENSOR: self.embeddings.detach().cpu().contiguous().clone()}, metadata)

    @classmethod
    def load(cls, path: Path) -> ConceptBank:
        """Read a bank and check all of it.

        Raises:
            MissingError: There is no such file.
            UsageError: It is no bank, was written by a newer version, or its contents do not fit together.
        """
        header = read_header(path)
        metadata = read_metadata(path)
        if _TENSOR not in header or "names" not in metadata:
            hint = "A model goes to --model." if METADATA_KEY in metadata else "Make one with `regionclip concepts`."
            raise UsageError(f"{path} is not a concept bank.", hint)
        if metadata.get(_FORMAT_KEY, str(FORMAT)) != str(FORMAT):
            raise UsageError(
                f"{path} has bank format {metadata[_FORMAT_KEY]}, and this version reads {FORMAT}.",
                "Upgrade regionclip-cli.",
            )
        with parsing(f"{path} is damaged, its names are not JSON"):
            names = json.loads(metadata["names"])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UsageError(f"{path} is damaged: its names are not a list of texts.")
        with parsing(f"{path} is damaged"), safe_open(path, framework="pt", device="cpu") as file:
            embeddings = file.get_tensor(_TENSOR)
        embeddings = embeddings.float() if embeddings.is_floating_point() else embeddings
        try:
            return cls(tuple(names), embeddings, metadata.get("model", ""), metadata.get("templates", ""))
        except UsageError as err:
            raise UsageError(f"{path} is damaged: {err.message}") from err

    def check_distractors(self, distractors: Sequence[str]) -> None:
        """Check that no distractor is also a name of the bank.

        Raises:
            UsageError: One is.
        """
        names = {name.casefold() for name in self.names}
        shared = next((phrase for phrase in distractors if phrase.casefold() in names), None)
        if shared is not None:
            raise UsageError(f"{shared!r} is a name of the bank and a distractor.")

    def check(self, model: str, dim: int) -> None:
        """Refuse to be used with another model than the one that made the bank.

        Args:
            model: Name of the model that is to use it.
            dim: Its dimension D.

        Raises:
            UsageError: The bank is of another model, or of another dimension.
        """
        if self.model == model and self.dim == dim:
            return
        made = f"The bank was made by the model {self.model!r} with {self.dim} dimensions"
        hint = (
            f"Use the model {self.model!r}, or make the bank again with `regionclip concepts` and the model {model!r}."
        )
        if self.model == model:
            hint = f"Make the bank again with `regionclip concepts` and the model {model!r} as it is now."
        raise UsageError(f"{made}, and {model!r} has {dim}." if self.dim != dim else f"{made}, not by {model!r}.", hint)

    def _problem(self) -> str:
        """Return what is wrong, or an empty string."""
        shape = tuple(self.embeddings.shape)
        if self.embeddings.dtype != torch.float32:
            return f"its embeddings are {str(self.embeddings.dtype).removeprefix('torch.')}, not float32"
        if len(shape) != 2 or 0 in shape:
            return f"its embeddings have the shape {shape}, not (concepts, dimensions)"
        if len(self.names) != shape[0]:
            return f"it has {len(self.names)} names for {shape[0]} embeddings"
        if not all(name.strip() for name in self.names):
            return "a name is empty"
        if len(set(self.names)) != len(self.names):
            twice = next(name for at, name in enumerate(self.names) if name in self.names[:at])
            return f"the name {twice!r} comes twice"
        for what, wrong in (("not finite", ~self.embeddings.isfinite().all(1)), ("zero", ~self.embeddings.any(1))):
            if bool(wrong.any()):
                return f"the embedding of {self.names[int(wrong.nonzero()[0])]!r} is {what}"
        return ""
