"""A toy pretrainer and pictures with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData
from toys import DIM, build_detector, draw_shapes, image_sample

from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.pretrainer import Objectives, RegionTextPretrainer
from regionclip_cli.vision.teacher import OnlineTeacher

CONCEPTS = 7
ALL = Objectives(temperature=0.1)


def concepts() -> torch.Tensor:
    """Return (7, D) embeddings, the same every time."""
    return torch.randn(CONCEPTS, DIM, generator=torch.Generator().manual_seed(1))


def texts(captions: Sequence[str]) -> torch.Tensor:
    """Return (B, D) embeddings that depend on each caption alone."""
    rows = [torch.randn(DIM, generator=torch.Generator().manual_seed(len(caption))) for caption in captions]
    return torch.stack(rows)


def student(seed: int = 0, **options: Any) -> OpenVocabularyDetector:
    """Return a toy detector with random weights."""
    detector = build_detector(**options)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for parameter in detector.backbone.visual.layer4.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return detector


def teacher(regions: int = 4) -> OnlineTeacher:
    """Return a toy teacher that proposes the cells of a grid."""
    tower = student(5, proposals={"type": "grid", "cells": [2, 3]})
    return OnlineTeacher(tower, tower, concepts(), temperature=0.1, regions=regions)


def pretrainer(objectives: Objectives = ALL, **options: Any) -> RegionTextPretrainer:
    """Return a toy pretrainer."""
    return RegionTextPretrainer(
        student(freeze=2), concepts(), objectives, texts=texts if objectives.image_text else None, **options
    ).train()


SIZES = ((64, 96), (80, 64), (64, 64), (96, 112), (64, 96))


def batch(count: int = 4, regions: int = 5, first: int = 0, mixed: bool = False) -> tuple[Any, list[Any]]:
    """Return images and samples with labels and captions; image i is the same in every batch.

    Images are (B, 3, 64, 96), or with `mixed` a list of images of several sizes, as `UnpaddedImages` leaves them.
    """
    images, samples = [], []
    for number in range(first, first + count):
        height, width = SIZES[number % len(SIZES)] if mixed else SIZES[0]
        image, _, _ = draw_shapes(number, height, width)
        images.append(torch.from_numpy(image).permute(2, 0, 1).float())
        generator = np.random.default_rng(number)
        corners = generator.uniform(0, 30, (regions + number % 2, 2))
        boxes = np.concatenate([corners, corners + generator.uniform(16, 33, corners.shape)], axis=1)
        order = np.stack([generator.permutation(CONCEPTS)[:3] for _ in boxes])
        probs = np.sort(generator.dirichlet(np.ones(4), len(boxes))[:, :3])[:, ::-1].copy()
        sample = image_sample(height, width, key=f"image-{number}", caption="x" * (number + 1), seed=number)
        sample.regions = InstanceData(bboxes=boxes.astype(np.float32), concepts=order, probs=probs.astype(np.float32))
        samples.append(sample)
    return images if mixed else torch.stack(images), samples
