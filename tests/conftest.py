"""Every test runs offline, in its own cache folder, with a fixed seed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# A shell starts background jobs with Ctrl-C ignored, and processes inherit that; the tests of Ctrl-C need it heard.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the cache at an empty folder and forbid model hubs."""
    monkeypatch.setenv("REGIONCLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute on one thread: sums come in one order then, and on a busy machine no thread waits for another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fixtures() -> Path:
    """Return the folder of files that the tests read."""
    return Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one small model for all tests that only read it."""
    from toys import write_toy_model

    return write_toy_model(tmp_path_factory.mktemp("model") / "toy.safetensors", conf=0.01)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `photos/` with `1.jpg`, `2.png` and `sub/1.jpg`, and work in the folder above it."""
    from photos import write_photos

    monkeypatch.chdir(tmp_path)
    return write_photos(tmp_path / "photos")
