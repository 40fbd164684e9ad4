"""RegionCLIP RN50x4: region embeddings of the official code, from a checkpoint in the released layout."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from parity import Loaded, convert_official, official, weights

EXPECTED = official("rn50x4")


@pytest.fixture(scope="module")
def model() -> Iterator[Loaded]:
    with tempfile.TemporaryDirectory() as folder:
        # The fixture has numbers of the student alone; the rest of the checkpoint stays zero, which saves seconds.
        path = convert_official(Path(folder), "rn50x4", lambda key: key.startswith("backbone."))
        yield Loaded(path, EXPECTED)


OURS: dict[str, Callable[[Loaded], object]] = {
    "image": lambda model: weights.image("photo7", 192, 320, 64),
    "boxes": lambda model: model.boxes,
    "region_embeddings": lambda model: model.regions,
}


def test_every_array_is_checked():
    assert set(OURS) == set(EXPECTED)


@pytest.mark.parametrize("name", list(EXPECTED))
def test_array(model: Loaded, name: str) -> None:
    ours, theirs = np.asarray(OURS[name](model)), EXPECTED[name]
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_it_is_the_larger_network(model: Loaded) -> None:
    assert model.card.backbone == "clip-rn50x4"
    assert (model.detector.backbone.pool_size, model.detector.backbone.embed_dim) == (18, 640)
