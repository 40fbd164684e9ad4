"""A model file of words alone: a text tower of a few thousand numbers beside CLIP's vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 8, "head_width": 8, "patch_size": 8, "image_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2},
}


def write_text_model(path: Path, seed: int = 0, drop: tuple[str, ...] = (), **card: Any) -> Path:
    """Write a model file with random weights; `drop` leaves keys out, `card` sets fields of its card."""
    import open_clip

    from regionclip_cli.hub.model_card import ModelCard
    from regionclip_cli.hub.model_file import write_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = open_clip.CLIP(CONFIG["embed_dim"], CONFIG["vision_cfg"], CONFIG["text_cfg"])
        # Far from the start values, so that every word and every position counts.
        state = {
            f"clip.{key}": torch.randn_like(value) if value.ndim > 1 else value
            for key, value in clip.state_dict().items()
            if key not in drop
        }
    fields = {
        "name": path.stem,
        "backbone": "clip-rn50",
        "clip": CONFIG,
        "parts": ("visual", "text"),
        "templates": "few",
    }
    return write_model(path, ModelCard(**(fields | card)), state)


@pytest.fixture
def write_model_of_words(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a model file into the test's folder."""

    def write(file: str = "words", **options: Any) -> Path:
        return write_text_model(tmp_path / f"{file}.safetensors", **options)

    return write


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model file that tests only read."""
    return write_text_model(tmp_path_factory.mktemp("model") / "words.safetensors")


@pytest.fixture
def config() -> dict[str, Any]:
    """Return the open_clip config of the models that this folder writes."""
    return copy.deepcopy(CONFIG)
