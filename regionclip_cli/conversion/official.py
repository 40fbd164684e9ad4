"""The files that RegionCLIP's authors released, and what their own code writes.

Pre-training checkpoints hold a student (`backbone.`), its teacher (`teacher_backbone.`), the text encoder
(`lang_encoder.`) and a frozen proposal network (`offline_`). Fine-tuned detectors hold no teacher and no text encoder;
they have a box head, the embeddings of the classes they were trained and tested on, and for LVIS a mask head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regionclip_cli.conversion.architecture import recognise_tower
from regionclip_cli.conversion.clip import (
    CLIP,
    LOGIT_SCALE,
    OPENAI_FACTS,
    VISUAL,
    below,
    take_text,
    under,
    with_counters,
)
from regionclip_cli.conversion.proposal_networks import convert_proposals, is_proposal_network
from regionclip_cli.conversion.shapes import check, clip_shapes, some
from regionclip_cli.errors import UsageError
from regionclip_cli.hub.backbones import BACKBONES
from regionclip_cli.hub.model_card import read_card
from regionclip_cli.vision.backbones.build import clip_config

STUDENT, TEACHER, TEXT = "backbone.", "teacher_backbone.", "lang_encoder."
PREDICTOR, MASK = "roi_heads.box_predictor.", "roi_heads.mask_head."
OFFLINE = "offline_"
SOURCE = "https://github.com/microsoft/RegionCLIP"
NETWORK = ("offline_backbone.", "offline_proposal_generator.")
TEACHERS_WORDS = ("teacher_lang_encoder.", "teacher.")
"""The teacher's copy of the text encoder, which is the student's own and is left out."""

Found = tuple[dict[str, Any], dict[str, Tensor]]
"""Fields of a model card, and tensors of a model file."""


def convert_pretraining(tensors: Mapping[str, Tensor]) -> Found:
    """Convert a pre-training checkpoint, or the copy of CLIP that pre-training starts from (`..._OAI_CLIP.pth`).

    The cosine similarity is divided by a fixed 0.01, so `logit_scale` is ln(100) where the file has none. A teacher
    that is equal to its student is left out.

    Raises:
        UsageError: No known network, or missing, unknown or misshapen tensors.
    """
    _refuse_unknown(tensors, (STUDENT, TEACHER, TEXT, *TEACHERS_WORDS, *NETWORK, LOGIT_SCALE, *OPENAI_FACTS))
    backbone, student = _tower(tensors, STUDENT)
    text = below(tensors, TEXT)
    scale = tensors.get(LOGIT_SCALE, torch.tensor(math.log(100)))
    clip = {**under(VISUAL, student), **text, LOGIT_SCALE: scale}
    check(clip, clip_shapes(clip_config(BACKBONES[backbone])), f"This {backbone} student with its text encoder")
    fields: dict[str, Any] = {"backbone": backbone, "parts": ["visual", "text"], "source": SOURCE}
    found = under(CLIP, clip)
    _add_proposals(tensors, fields, found)
    if any(key.startswith(TEACHER) for key in tensors):
        name, teacher = _tower(tensors, TEACHER)
        if name != backbone or any(not torch.equal(value, student[key]) for key, value in teacher.items()):
            fields["teacher"] = name
            fields["parts"].append("teacher")
            found |= under("teacher." + VISUAL, teacher)
    return fields, found


def convert_finetuned(tensors: Mapping[str, Tensor], text_from: Path | None) -> Found:
    """Convert a fine-tuned detector; its text tower comes from another model file, if one is named.

    Raises:
        MissingError: `text_from` has no text tower.
        UsageError: No known network, missing, unknown or misshapen tensors, a box head with one box a class, or a
            background embedding that is not zero.
    """
    _refuse_unknown(tensors, (STUDENT, *NETWORK, PREDICTOR, MASK))
    backbone, student = _tower(tensors, STUDENT)
    fields: dict[str, Any] = {"backbone": backbone, "parts": ["visual"], "source": SOURCE}
    found = under(CLIP + VISUAL, student)
    if text_from is not None:
        fields["clip"], text = take_text(text_from, clip_config(BACKBONES[backbone]))
        fields |= {"parts": ["visual", "text"], "texts": read_card(text_from).text_model}
        found |= under(CLIP, text)
    _add_proposals(tensors, fields, found)
    _add_predictor(below(tensors, PREDICTOR), BACKBONES[backbone].embed_dim, fields, found)
    mask = below(tensors, MASK)
    if mask:
        _check_mask_head(mask, channels=student["attnpool.k_proj.weight"].shape[1])
        fields["parts"].append("mask_head")
        found |= under("mask_head.", mask)
    return fields, found


def _add_predictor(head: Mapping[str, Tensor], dim: int, fields: dict[str, Any], found: dict[str, Tensor]) -> None:
    """Take box head (4, D) and class embeddings (C, D); the background embedding is zero and needs no place."""
    box = head.get("bbox_pred.weight")
    if box is not None and box.shape[0] != 4:
        raise UsageError(
            f"The box head of this detector is class-specific ({box.shape[0] // 4} boxes per region); "
            "open-vocabulary detection requires a class-agnostic box head."
        )
    rows = {key: value.shape[0] for key, value in head.items() if key.endswith("cls_score.weight")}
    shapes: dict[str, tuple[int, ...]] = {"bbox_pred.weight": (4, dim), "bbox_pred.bias": (4,)}
    shapes |= {key: (count, dim) for key, count in rows.items()}
    check({key: value for key, value in head.items() if key != "cls_bg_score.weight"}, shapes, "This box predictor")
    background = head.get("cls_bg_score.weight")
    if background is not None and background.count_nonzero() > 0:
        raise UsageError("This detector has a nonzero background embedding, which is not supported.")
    found |= {"box_head.weight": head["bbox_pred.weight"], "box_head.bias": head["bbox_pred.bias"]}
    fields["parts"].append("box_head")
    for official, ours in (("cls_score.weight", "train"), ("test_cls_score.weight", "test")):
        if official in head:
            found[f"classifier.{ours}"] = head[official]
    if rows:
        fields["parts"].append("classifier")


def _check_mask_head(mask: Mapping[str, Tensor], channels: int) -> None:
    """Check a class-agnostic mask head: one deconvolution of the `layer4` features and one 1x1 convolution."""
    bias = mask.get("deconv.bias")
    width = 256 if bias is None else bias.numel()
    shapes = {
        "deconv.weight": (channels, width, 2, 2),
        "deconv.bias": (width,),
        "predictor.weight": (1, width, 1, 1),
        "predictor.bias": (1,),
    }
    check(mask, shapes, "This mask head")


def _add_proposals(tensors: Mapping[str, Tensor], fields: dict[str, Any], found: dict[str, Tensor]) -> None:
    if is_proposal_network(tensors, OFFLINE):
        fields["proposals"], proposals = convert_proposals(tensors, OFFLINE)
        fields["parts"].append("proposals")
        found |= under("proposals.", proposals)


def _tower(tensors: Mapping[str, Tensor], prefix: str) -> tuple[str, dict[str, Tensor]]:
    """Return the backbone's name and the checked image tower below `prefix`, named as open_clip does."""
    tower = below(tensors, prefix)
    name = recognise_tower(tower)
    shapes = tower_shapes(name)
    check(tower, shapes, f"The {name} tower `{prefix}`")
    return name, with_counters(tower, shapes)


def tower_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of a backbone's image tower, without `visual.`."""
    shapes = clip_shapes(clip_config(BACKBONES[name]))
    return {key.removeprefix(VISUAL): shape for key, shape in shapes.items() if key.startswith(VISUAL)}


def _refuse_unknown(tensors: Mapping[str, Tensor], known: tuple[str, ...]) -> None:
    unknown = [key for key in tensors if not key.startswith(known)]
    if unknown:
        raise UsageError(f"This RegionCLIP checkpoint contains unexpected tensors: {some(unknown, 'unknown')}.")
