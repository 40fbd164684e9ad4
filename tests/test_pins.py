"""The pins are one list: constraints.txt for pip, `constraint-dependencies` for uv."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def pins() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pins", ROOT / ".ci" / "pins.py")
    if spec is None or spec.loader is None:
        pytest.fail(".ci/pins.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pyproject_carries_the_pins_of_constraints(pins: ModuleType) -> None:
    assert pins.in_step()


def test_a_changed_pin_is_noticed(pins: ModuleType, tmp_path: Path) -> None:
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    text = (tmp_path / "constraints.txt").read_text()
    (tmp_path / "constraints.txt").write_text(re.sub(r"(?m)^torch==.*$", "torch==0.0.1", text))
    assert not pins.in_step(tmp_path)


def test_pins_are_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][\w.+!]*", line) for line in lines if not line.startswith("#"))
