"""A toy model, a handful of pictures of coloured rectangles, and what a detector needs to be measured on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from box_toys import write_shapes
from toys import write_toy_model

from regionclip_cli.data.detection_sets import DetectionSet, open_detection_set
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.recipe.schema import DetectionData, EvaluateSection, Recipe
from regionclip_cli.vision.detector import OpenVocabularyDetector
from regionclip_cli.vision.model_io import load_detector


@pytest.fixture(scope="session")
def toy_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("measured") / "toy.safetensors")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    return write_shapes(tmp_path_factory.mktemp("shapes"), images=5)


@pytest.fixture(scope="session")
def truth(shapes: DetectionData) -> DetectionSet:
    return open_detection_set(shapes)


@pytest.fixture
def loaded(toy_path: Path) -> tuple[OpenVocabularyDetector, ModelCard, TextEncoder]:
    detector, card = load_detector(toy_path)
    return detector, card, TextEncoder(toy_path)


@pytest.fixture
def make_recipe(tmp_path: Path, toy_path: Path, shapes: DetectionData) -> Any:
    """Return a recipe with one measurement on the shapes, with settings said anew."""

    def make(*others: dict[str, Any], out: Path = tmp_path / "run", **settings: Any) -> Recipe:
        sections = [
            EvaluateSection(**{**shapes.model_dump(), "model": str(toy_path), "report": False, **each})
            for each in (settings, *others)
        ]
        return Recipe(name="toy", out=str(out), device="cpu", evaluate=tuple(sections))

    return make
