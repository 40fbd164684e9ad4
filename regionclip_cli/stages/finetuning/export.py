"""The model file that a training on boxes writes: everything that `detect --model` needs, in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from regionclip_cli.hub.model_card import ModelCard, Part, read_card
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.stages.finetuning.plan import Plan
from regionclip_cli.vision.builder import PROPOSALS, STUDENT, detector_tensors
from regionclip_cli.vision.detector import OpenVocabularyDetector


class Exporter:
    """Writes a fine-tuned detector with the text encoder of the model that it started from.

    Args:
        plan: What was learned.
        name: What the new model is called.

    Attributes:
        card: What the file says about itself.
    """

    def __init__(self, plan: Plan, name: str) -> None:
        self._plan = plan
        settings, start = plan.settings, plan.card
        parts: list[Part] = ["visual", "proposals"]
        parts += [part for part in ("text",) if part in start.parts]
        parts += ["box_head"] if settings.box_head else []
        parts += ["mask_head"] if settings.mask_head else []
        parts += ["classifier"] if settings.classifier == "linear" else []
        self.card: ModelCard = start.model_copy(
            update={
                "name": name,
                "texts": start.text_model,
                "proposals": read_card(plan.proposals).proposals if plan.proposals else start.proposals,
                "parts": tuple(parts),
                "teacher": None,
                "classifier": settings.classifier,
                "classes": plan.train.classes,
                # An image is looked at in the largest size that the detector was trained on.
                "short_side": max(settings.short_sides),
                "max_side": settings.max_side,
                "source": f"Fine-tuned from {start.name} on {Path(plan.train.name).name}.",
                "notes": "",
            }
        )

    def write(self, path: Path, detector: OpenVocabularyDetector) -> Path:
        """Write the detector as it is now.

        Raises:
            OutputError: The disk refuses; nothing is left behind.
        """
        text = text_tensors(self._plan.model) if "text" in self.card.parts else {}
        return write_model(path, self.card, text | detector_tensors(detector))


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
