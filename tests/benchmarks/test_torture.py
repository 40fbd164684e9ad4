"""A sample of `just torture`: every stage is killed, resumed, and must leave what an undisturbed run leaves."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TORTURE = Path(__file__).resolve().parents[2] / "benchmarks" / "torture.py"
KILLS_PER_SCENARIO = 1


@pytest.fixture(scope="module")
def torture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("torture", TORTURE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["torture"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("one_thread")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", ["concepts", "pseudolabel", "pretrain", "finetune", "evaluate", "detect"])
def test_killed_runs_leave_the_results_of_an_undisturbed_run(
    scenario: str, torture: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tally = torture.torture_all([scenario], KILLS_PER_SCENARIO, seed=0, folder=tmp_path)[scenario]
    assert tally.faults == []
    assert tally.kills >= KILLS_PER_SCENARIO
    assert tally.compared >= 1
