"""The pretrainer on the official weights: its losses are those that the official code printed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.structures import InstanceData
from parity import convert_official, embeddings, official
from torch import nn
from toys import image_sample

from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.model_io import load_detector, load_teacher
from regionclip_cli.vision.pretrainer import Objectives, RegionTextPretrainer
from regionclip_cli.vision.teacher import OnlineTeacher

D = 1024
EXPECTED = official("rn50")


@pytest.fixture(scope="module")
def towers() -> Iterator[tuple[OpenVocabularyDetector, OpenVocabularyDetector]]:
    with tempfile.TemporaryDirectory() as folder:
        path = convert_official(Path(folder), "rn50", lambda key: key.startswith(("backbone.", "teacher_backbone.")))
        yield load_detector(path)[0], OpenVocabularyDetector(load_teacher(path), {"type": "given"}).eval()


@torch.no_grad()
def test_region_losses(towers: tuple[OpenVocabularyDetector, OpenVocabularyDetector]) -> None:
    student, tower = towers
    concepts = embeddings("concept_embeddings", 50, D)
    model = RegionTextPretrainer(
        student, concepts, Objectives(min_score=0, image_text=0), OnlineTeacher(tower, tower, concepts)
    )
    image = torch.from_numpy(EXPECTED["image"]).permute(2, 0, 1)
    sample = image_sample(*image.shape[1:])
    sample.proposals = InstanceData(bboxes=torch.from_numpy(EXPECTED["boxes"]))
    data = model.data_preprocessor({"inputs": [image], "data_samples": [sample]}, True)
    (known,) = model.teacher(data["inputs"], data["data_samples"])
    torch.testing.assert_close(known.full, torch.from_numpy(EXPECTED["pretrain_teacher_probs"]), rtol=1e-3, atol=1e-4)
    assert known.concepts[:, 0].tolist() == EXPECTED["pretrain_target"].tolist()
    found = model(**data, mode="loss")
    assert found["loss_distill"].item() == pytest.approx(float(EXPECTED["pretrain_loss_distill"]), rel=1e-3)
    assert found["loss_region_text"].item() == pytest.approx(float(EXPECTED["pretrain_loss_contrastive"]), rel=1e-3)


class Answers(nn.Module):
    """A region encoder that gives the stand-in embeddings of images, one after the other."""

    chunk = 64
    checkpointing = False

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.rows = iter(rows)

    def forward(self, features: torch.Tensor, boxes: list[torch.Tensor]) -> torch.Tensor:
        """Return (1, D) for the one box of one image."""
        return next(self.rows)[None]


@torch.no_grad()
def test_image_text_loss(towers: tuple[OpenVocabularyDetector, OpenVocabularyDetector]) -> None:
    images = embeddings("it_image", 6, D)
    captions = 0.3 * embeddings("it_text", 6, D) + images
    model = RegionTextPretrainer(
        towers[0],
        embeddings("concept_embeddings", 50, D),
        Objectives(region_text=0, distill=0),
        texts=lambda _: captions,
    )
    model.student.region_encoder = Answers(images)
    found = model(torch.zeros(6, 3, 32, 32), [image_sample(32, 32) for _ in range(6)], mode="loss")
    assert found["loss_image_text"].item() == pytest.approx(float(EXPECTED["image_text_loss"]), rel=1e-3)
