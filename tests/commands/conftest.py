"""One toy model for all tests of this folder, and a folder of small photos."""

from __future__ import annotations

from pathlib import Path

import pytest
from photos import write_photos
from toys import write_toy_model


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("model") / "toy.safetensors", conf=0.01)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `photos/` with `1.jpg`, `2.png` and `sub/1.jpg`, and work in the folder above it."""
    monkeypatch.chdir(tmp_path)
    return write_photos(tmp_path / "photos")
