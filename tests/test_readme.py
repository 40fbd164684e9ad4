"""The README is correct: its first command and output, its Python example, its links and its commands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
ROW = re.compile(r"^\s*(?:docs/photos/(\w+)\.jpg)?\s+([a-z ]+?)\s+(\d\.\d\d)\s+(\d+ \d+ \d+ \d+)$", re.MULTILINE)


def rows(text: str) -> list[tuple[str, str, float]]:
    """Return (photo or "", object, score) of each line of a detection table."""
    return [(photo, label, float(score)) for photo, label, score, _box in ROW.findall(text)]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Run the README's first command in a folder with only the photos; return its output and the folder."""
    command = re.search(r"uv run (regionclip detect .*)", README)
    if command is None:
        pytest.fail("the README has no `uv run regionclip detect` line")
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "docs" / "photos", folder / "docs" / "photos")
    argv = [sys.executable, "-m", "regionclip_cli", *shlex.split(command.group(1))[1:]]
    cache = {"REGIONCLIP_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    done = subprocess.run(argv, cwd=folder, env={**os.environ, **cache}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(done.stderr)
    return done.stdout + done.stderr, folder


def test_first_command_prints_the_output_shown(first_run: tuple[str, Path]) -> None:
    shown, printed = rows(README), rows(first_run[0])
    assert shown
    assert [row[:2] for row in shown] == [row[:2] for row in printed]
    for row, actual in zip(shown, printed, strict=True):
        assert row[2] == pytest.approx(actual[2], abs=0.02), row


def test_first_command_writes_its_results(first_run: tuple[str, Path]) -> None:
    out = first_run[1] / "regionclip-detections"
    assert len((out / "detections.jsonl").read_text().splitlines()) == 2
    assert sorted(p.name for p in (out / "images" / "docs" / "photos").iterdir()) == ["cat.jpg", "coffee.jpg"]


def test_python_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    if code is None:
        pytest.fail("the README has no Python example")
    monkeypatch.chdir(ROOT)
    exec(compile(code.group(1), "README.md", "exec"), {})  # noqa: S102 - our own example
    printed = capsys.readouterr().out
    assert printed.count("'detections': [") == 2
    assert "'label': 'cat'" in printed


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_links_exist(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("line", re.findall(r"`(regionclip [^`]+)`", README))
def test_commands_name_real_options(line: str) -> None:
    argv = shlex.split(line)
    command = argv[1:3] if argv[1] in ("models", "recipes") else argv[1:2]
    page = subprocess.run(
        [sys.executable, "-m", "regionclip_cli", *command, "--help"], capture_output=True, text=True, check=True
    )
    flags = [word for word in argv if word.startswith("-") and len(word) > 1]
    assert [flag for flag in flags if flag not in page.stdout] == []
