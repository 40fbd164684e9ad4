"""Every test runs offline, in its own cache folder, with a fixed seed."""

from __future__ import annotations

import signal
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
def fixtures() -> Path:
    """Return the folder of files that the tests read."""
    return Path(__file__).parent / "fixtures"
