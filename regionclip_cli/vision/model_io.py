"""Model files to networks and back: which tensors of a file belong to which part of a detector.

A file may hold more than a detector needs (text tower, teacher, found classifiers). Tensors are read one by one, and
only those that are used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.files import parsing
from regionclip_cli.hub.model_card import ModelCard, read_card
from regionclip_cli.vision.backbones.base import Backbone
from regionclip_cli.vision.backbones.build import build_backbone
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.linear_classifier import LinearClassifier
from regionclip_cli.vision.proposals.base import ProposalSource
from regionclip_cli.vision.proposals.build import build_proposals

STUDENT, TEACHER, PROPOSALS, BOX_HEAD = "clip.visual.", "teacher.visual.", "proposals.", "box_head."
MASK_HEAD, LINEAR = "mask_head.", "classifier.train."


def load_detector(
    path: Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    proposals_from: Path | None = None,
    masks: bool = False,
) -> tuple[OpenVocabularyDetector, ModelCard]:
    """Build the detector of a model file, in evaluation mode, and return it with the file's card.

    Args:
        path: A model file.
        device: Where to put it.
        dtype: Floating type of the networks; float32 unless told otherwise, whatever the file holds.
        proposals_from: Another model file whose proposal network is to be used. With none there nor in `path`, the
            detector takes boxes from outside only (`sample.proposals`).
        masks: Whether to predict masks where the file has a mask head, which costs time.

    Raises:
        MissingError: A file, or the part that is asked for in it, is not there.
        UsageError: A file is not of the right kind, or its tensors do not fit the network its card describes.
    """
    card = read_card(path)
    if card.kind != "detector" or card.backbone is None:
        raise UsageError(
            f"{path.name} holds a proposal network and no image encoder.", "Use it to propose boxes for another model."
        )
    backbone = _load_backbone(path, card.backbone, STUDENT, card)
    proposals = _load_proposals(proposals_from or path, foreign=proposals_from not in (None, path))
    head = read_tensors(path, BOX_HEAD)
    mask_head = read_tensors(path, MASK_HEAD) if masks else {}
    detector = OpenVocabularyDetector(
        backbone, proposals, temperature=card.temperature, box_head=bool(head), mask_head=bool(mask_head)
    )
    if card.classifier == "linear":
        detector.classifier = LinearClassifier(card.classes, backbone.embed_dim)
        _fill(detector.classifier, read_tensors(path, LINEAR), path, LINEAR)
    if detector.box_head is not None:
        _fill(detector.box_head, head, path, BOX_HEAD)
    if detector.mask_head is not None:
        _fill(detector.mask_head, mask_head, path, MASK_HEAD)
    if dtype is not None:
        detector.cast(dtype)
    return detector.to(device).eval(), card


def load_teacher(path: Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Backbone:
    """Build the frozen teacher tower of a model file, in evaluation mode.

    Raises:
        MissingError: The file has no teacher.
        UsageError: Its tensors do not fit the network its card describes.
    """
    card = read_card(path)
    if card.teacher is None:
        raise MissingError(
            f"{path.name} holds no teacher.", "Choose a pretraining checkpoint, or a CLIP model as teacher."
        )
    teacher = _load_backbone(path, card.teacher, TEACHER, None)
    return teacher.requires_grad_(False).to(device, dtype).eval()


def detector_tensors(detector: OpenVocabularyDetector) -> dict[str, Tensor]:
    """Return a detector's tensors under the names they have in a model file; the inverse of loading."""
    parts: list[tuple[str, Mapping[str, Tensor]]] = [
        (STUDENT, detector.backbone.visual.state_dict()),
        (PROPOSALS, detector.proposals.state_dict()),
        (BOX_HEAD, detector.box_head.state_dict() if detector.box_head is not None else {}),
        (MASK_HEAD, detector.mask_head.state_dict() if detector.mask_head is not None else {}),
        (LINEAR, detector.classifier.state_dict()),  # a text classifier has no state
    ]
    return {prefix + key: value for prefix, state in parts for key, value in state.items()}


def read_tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """Return the tensors of a model file whose names begin with `prefix`, without it; half precision becomes float32.

    Raises:
        UsageError: The file cannot be read.
    """
    with parsing(f"{path} cannot be read"), safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a mapping
        return {name.removeprefix(prefix): _widened(file.get_tensor(name)) for name in names}


def _load_backbone(path: Path, name: str, prefix: str, card: ModelCard | None) -> Backbone:
    """Build the backbone called `name` and fill its tower with the tensors below `prefix`."""
    clip, pool_size = (card.clip, card.pool_size) if card else (None, None)
    backbone = build_backbone(name, clip, pool_size, empty=True)
    _fill(backbone.visual, read_tensors(path, prefix), path, prefix)
    return backbone


def _load_proposals(path: Path, foreign: bool) -> ProposalSource:
    """Build the proposal network of a model file, or a source of given boxes where the file may lack one."""
    card = read_card(path)
    if card.proposals is None:
        if foreign:
            raise MissingError(f"{path.name} holds no proposal network.")
        return build_proposals({"type": "given"})
    config = card.lent_proposals if foreign else card.proposals
    with parsing(f"The model card in {path} describes a proposal network that cannot be built"):
        proposals = build_proposals(config or {})
    tensors = read_tensors(path, PROPOSALS)
    if foreign and card.head_on_trunk:
        tower = read_tensors(path, STUDENT)
        tensors = {f"trunk.{key}": value for key, value in tower.items()} | {
            f"head.{key}": value for key, value in tensors.items()
        }
    _fill(proposals, tensors, path, PROPOSALS)
    return proposals


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, prefix: str) -> None:
    """Load tensors into a module; every one of them must find its place, and every place its tensor.

    Raises:
        UsageError: Names or shapes do not match; the sentence names the first few.
    """
    with _explained(path, prefix):
        result = module.load_state_dict(tensors, strict=False, assign=True)
    missing = [prefix + key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
    extra = [prefix + key for key in result.unexpected_keys]
    problems = [
        f"{len(keys)} {word} ({_some(keys)})" for keys, word in ((missing, "missing"), (extra, "unexpected")) if keys
    ]
    if problems:
        raise UsageError(
            f"{path.name} does not fit the network its card describes: tensors {' and '.join(problems)}.",
            "Convert the original checkpoint again with `regionclip models add NAME FILE`.",
        )


@contextlib.contextmanager
def _explained(path: Path, prefix: str) -> Iterator[None]:
    """Turn torch's complaint about shapes into a sentence."""
    try:
        yield
    except RuntimeError as err:
        lines = [line.strip() for line in str(err).splitlines() if "size mismatch" in line]
        raise UsageError(f"{path.name} does not fit the network its card describes: {prefix}: {_some(lines)}") from err


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _some(words: list[str]) -> str:
    return ", ".join(words[:3]) + (", ..." if len(words) > 3 else "")
