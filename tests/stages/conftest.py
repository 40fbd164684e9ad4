"""A toy model, and a folder with photos, captions and a bank to work in."""

from __future__ import annotations

from pathlib import Path

import pytest
from label_toys import write_bank, write_captions
from toys import write_toy_model


@pytest.fixture(scope="session")
def toy_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("teacher") / "toy.safetensors", "timm")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `captions.jsonl` of seven photos and `bank.safetensors`, and work in their folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    write_captions(tmp_path)
    write_bank(tmp_path / "bank.safetensors")
    return tmp_path
