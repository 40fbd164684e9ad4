"""The model file that a training on boxes writes: everything that `detect --model` needs, in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from regionclip_cli.hub.model_card import ModelCard, Part, read_card
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.model_io import PROPOSALS, STUDENT, TEACHER, detector_tensors


def write_proposals(path: Path, name: str, config: dict[str, Any], tensors: dict[str, Tensor], source: str) -> Path:
    """Write a proposal network alone, which any detector can be lent.

    Args:
        path: Where it goes.
        name: What the model is called.
        config: As `build_proposals` takes it.
        tensors: Its state.
        source: Where it comes from, in a sentence.
    """
    card = ModelCard(name=name, kind="proposals", proposals=config, parts=("proposals",), source=source)
    return write_model(path, card, {PROPOSALS + key: value for key, value in tensors.items()})


def with_proposals(path: Path, name: str, model: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """Write a detector with another proposal head on its trunk, everything else as in the file `model`."""
    start = read_card(model)
    parts = tuple(dict.fromkeys((*start.parts, "proposals")))
    card = start.model_copy(
        update={
            "name": name,
            "texts": start.text_model,
            "proposals": config,
            "calibration": None,
            "parts": parts,
            "source": f"{start.name} with new proposals.",
        }
    )
    kept = _tensors(model, lambda key: not key.startswith(PROPOSALS))
    return write_model(path, card, kept | {PROPOSALS + key: value for key, value in tensors.items()})


def text_tensors(model: Path) -> dict[str, Tensor]:
    """Return the text tower of a model file as it is there."""
    return _tensors(model, lambda key: key.startswith("clip.") and not key.startswith(STUDENT))


def _tensors(path: Path, wanted: Any) -> dict[str, Tensor]:
    with safe_open(path, framework="pt", device="cpu") as file:
        return {key: file.get_tensor(key) for key in sorted(file.keys()) if wanted(key)}


_MOVED = (
    "Its proposal head was trained on the features that the image tower had before: `regionclip train-proposals` "
    "trains it again."
)


def write_pretrained(
    path: Path, detector: OpenVocabularyDetector, start: Path, *, name: str, temperature: float, proposals: Path
) -> ModelCard:
    """Write a pretrained detector that `detect --model` takes directly, and return its card.

    The text tower and all heads stay as they are in the file `start`; a teacher in it is left out. Trained tensors are
    written in float32.

    Args:
        path: Where it goes.
        detector: With the trained backbone.
        start: The model file that training started from.
        name: What the new model is called.
        temperature: That of the losses, at which its probabilities mean something.
        proposals: The file whose proposal network the detector has.

    Raises:
        OutputError: The disk refuses; nothing is left behind.
    """
    before = read_card(start)
    found = before.proposals if proposals == start else read_card(proposals).lent_proposals
    parts: list[Part] = [part for part in before.parts if part not in ("teacher", "proposals")]
    parts += ["proposals"] if found else []
    moved = proposals == start and before.head_on_trunk
    card = before.model_copy(
        update={
            "name": name,
            "texts": before.text_model,
            "parts": tuple(parts),
            "teacher": None,
            "proposals": found,
            "temperature": temperature,
            "conf": before.conf if temperature == before.temperature else None,
            "calibration": None,
            "source": f"Pretrained on named regions, from {before.name}.",
            "notes": _MOVED if moved else "",
        }
    )
    with safe_open(start, framework="pt", device="cpu") as file:
        left_out = (STUDENT, TEACHER, PROPOSALS)
        kept = {key: file.get_tensor(key) for key in sorted(file.keys()) if not key.startswith(left_out)}
    trained = {key: value for key, value in detector_tensors(detector).items() if key.startswith((STUDENT, PROPOSALS))}
    write_model(path, card, kept | trained)
    return card
