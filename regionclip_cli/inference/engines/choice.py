"""Which engine runs a model."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.hub.graphs import ONNX, graph_beside
from regionclip_cli.hub.model_card import ModelCard, fingerprint
from regionclip_cli.inference.preprocess import InferenceConfig, PreparedImage
from regionclip_cli.language.class_names import Vocabulary
from regionclip_cli.language.phrase_encoder import PhraseEncoder
from regionclip_cli.results.detections import ImageDetections

_TAIL = 1 << 20
"""Bytes at the end of a graph file in which its metadata lies; a card with thousands of classes fits."""

EngineName = Literal["auto", "torch", "onnx"]


class Engine(Protocol):
    """A loaded model.

    Attributes:
        name: torch or onnx.
        device: Where it computes.
        card: Of the model.
        fingerprint: Of the model file.
        finds_boxes: Whether it has a proposal network.
        encoder: Its text encoder.
    """

    name: str
    device: Any
    card: ModelCard
    fingerprint: str
    finds_boxes: bool

    @property
    def encoder(self) -> PhraseEncoder:
        """The text encoder."""

    def set_vocabulary(self, vocabulary: Vocabulary, progress: Callable[[int], None] | None = None) -> None:
        """Choose the classes by name."""

    def set_bank(self, bank: Any, distractors: Sequence[str] = ()) -> None:
        """Choose the classes by a concept bank."""

    def detect(
        self, images: Sequence[PreparedImage], inference: InferenceConfig, labels: tuple[str, ...]
    ) -> list[ImageDetections]:
        """Find the classes in images, all with given boxes or all without."""

    def embed(self, image: PreparedImage) -> np.ndarray:
        """Return the embeddings (R, D) float32 of the given boxes of an image."""


def load_engine(
    model: Path, engine: str = "auto", device: str = "auto", dtype: str = "auto", proposals: Path | None = None
) -> Engine:
    """Load a model with an engine. `auto` takes ONNX Runtime where the model has graphs and runs on a CPU in fp32.

    Args:
        model: A model file, or the trunk graph `NAME.onnx` of an exported model.
        engine: auto, torch or onnx.
        device: As `choose_device` takes it; ONNX Runtime only knows `auto` and `cpu` here.
        dtype: As `choose_dtype` takes it.
        proposals: Another model file whose proposal network finds the boxes; only torch takes one.

    Raises:
        UsageError: The engine is unknown, or cannot do what is asked.
        MissingError: The model has no graphs, or a part is missing.
    """
    if engine not in get_args(EngineName):
        raise UsageError(f"Unknown engine {engine!r}.", f"Choose one of {', '.join(get_args(EngineName))}.")
    trunk = graph_beside(model)
    exported = model.suffix == ONNX
    reason = _unsuitable(device, dtype, proposals)
    if engine == "torch" and exported:
        raise UsageError(f"{model} is an ONNX graph, which the torch engine cannot run.", "Use --engine onnx.")
    if engine == "onnx" or exported:
        if reason:
            raise UsageError(f"The ONNX engine does not support {reason}.", "" if exported else "Use --engine torch.")
        if trunk is None:
            name = model.name.removesuffix(".safetensors")
            raise MissingError(
                f"There are no ONNX graphs beside {model}.",
                f"`regionclip models export {name} {model.with_suffix(ONNX)}` writes them.",
            )
    if (engine == "onnx" or exported or (engine == "auto" and not reason and _current(model, trunk))) and trunk:
        from regionclip_cli.inference.engines.onnx_engine import OnnxEngine

        return OnnxEngine(model, trunk)
    from regionclip_cli.inference.engines.torch_engine import TorchEngine

    return TorchEngine(model, device, dtype, proposals)


def _unsuitable(device: str, dtype: str, proposals: Path | None) -> str:
    """Return what the ONNX engine cannot do of what is asked, or an empty text."""
    if device not in ("auto", "cpu"):
        return f"the device {device}"
    if dtype not in ("auto", "fp32"):
        return f"the precision {dtype}"
    return "proposals of another model" if proposals is not None else ""


def _current(model: Path, trunk: Path | None) -> bool:
    """Return whether ONNX Runtime is the better choice: a graph of this very model file, and no GPU for torch."""
    if trunk is None or importlib.util.find_spec("onnxruntime") is None:
        return False
    try:
        with trunk.open("rb") as file:
            file.seek(max(0, trunk.stat().st_size - _TAIL))
            metadata = file.read()
    except OSError:
        return False
    return fingerprint(model).encode() in metadata and not _has_accelerator()


def _has_accelerator() -> bool:
    """Return whether torch would choose a GPU, judged without importing it."""
    import platform
    import shutil

    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    return apple or shutil.which("nvidia-smi") is not None
