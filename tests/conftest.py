"""Every test runs offline, in its own cache folder, with a fixed seed."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# A shell starts background jobs with Ctrl-C ignored, and processes inherit that; the tests of Ctrl-C need it heard.
signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores already; threads of their own would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


_OUTSIDE: list[str] = []
"""Files that the tests of this process wrote outside the temporary folder."""


def _watch_writes() -> None:
    """Record every file that Python opens for writing, or database that it opens, outside the temporary folder."""
    allowed = (tempfile.gettempdir(), "/dev", "/proc")
    caches = ("__pycache__", ".pytest_cache", ".hypothesis", ".coverage")

    def note(event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        elif event == "sqlite3.connect":
            path, writes = args[0], True
        else:
            return
        if not writes or not isinstance(path, str | bytes | os.PathLike):
            return
        full = os.path.abspath(os.fsdecode(path).removeprefix("file:").partition("?")[0])
        if not full.startswith(allowed) and ":memory:" not in full and not any(name in full for name in caches):
            _OUTSIDE.append(f"{full} in {os.environ.get('PYTEST_CURRENT_TEST', 'collection')}")

    sys.addaudithook(note)


_watch_writes()


def _leave_the_users_folders() -> None:
    """Move home, cache and config into a temporary folder, before any library looks for them."""
    home = Path(tempfile.mkdtemp(prefix="regionclip-tests-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for name in [name for name in os.environ if name.startswith("REGIONCLIP_")]:
        del os.environ[name]
    os.environ["HOME"] = str(home)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        os.environ[name] = str(home / name.lower())
    os.environ |= {"REGIONCLIP_CACHE": str(home / "regionclip"), "HF_HUB_OFFLINE": "1"}


_leave_the_users_folders()


@pytest.fixture(scope="session", autouse=True)
def _nothing_written_outside() -> Iterator[None]:
    """Fail if a test wrote outside the temporary folder, whatever the scope of its fixtures."""
    yield
    assert _OUTSIDE == []


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test an empty cache of its own."""
    monkeypatch.setenv("REGIONCLIP_CACHE", str(tmp_path_factory.mktemp("cache")))


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
