"""The text encoder against numbers that the official implementation printed, on weights drawn from their names."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.language.text_encoder import TextEncoder

PREFIX = "lang_encoder."


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    """Return the encoder of RN50 with the stand-in weights."""
    folder = Path(__file__).parents[1] / "fixtures" / "parity"
    weights = _module(folder / "weights.py")
    shapes = json.loads((folder / "checkpoint_keys_rn50.json").read_text())
    state = {
        f"clip.{key.removeprefix(PREFIX)}": torch.from_numpy(weights.tensor(key, tuple(shape)))
        for key, shape in shapes.items()
        if key.startswith(PREFIX)
    }
    path = tmp_path_factory.mktemp("parity") / "rn50.safetensors"
    write_model(path, ModelCard(name="rn50", backbone="clip-rn50", parts=("text",)), state)
    return TextEncoder(path, cache=None)


@pytest.fixture(scope="module")
def official() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[1] / "fixtures" / "parity" / "official_rn50.npz") as arrays:
        return {key: arrays[key] for key in arrays if key.startswith("text_")}


def test_tokens(encoder: TextEncoder, official: dict[str, np.ndarray]) -> None:
    tokens = encoder.tokenize([f"{name}." for name in official["text_names"]])
    np.testing.assert_array_equal(tokens.numpy(), official["text_tokens_first_template"])


def test_one_sentence(encoder: TextEncoder, official: dict[str, np.ndarray]) -> None:
    features = encoder.encode_tokens(torch.from_numpy(official["text_tokens_first_template"].astype(np.int64)))
    np.testing.assert_allclose(features.numpy(), official["text_embedding_first_template"], rtol=1e-3, atol=1e-4)


def test_the_mean_over_81_sentences(encoder: TextEncoder, official: dict[str, np.ndarray]) -> None:
    rows = encoder.encode([str(name) for name in official["text_names"]])
    np.testing.assert_allclose(rows.numpy(), official["text_embedding_mean81"], rtol=1e-3, atol=1e-4)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        pytest.fail(f"{path} is not importable")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
