"""Shell completion of values, as bash and zsh request it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from regionclip_cli.commands import completion

CODE = """
import sys
from regionclip_cli.app import main
code = main()
heavy = {"torch", "mmdet", "open_clip", "rich", "requests"} & set(sys.modules)
print("IMPORTED", *sorted(heavy), file=sys.stderr)
sys.exit(code)
"""


def complete(**variables: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-c", CODE], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    assert ended.stderr.strip() == "IMPORTED"
    return ended.stdout.split()


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGIONCLIP_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "regional.safetensors").touch()


@pytest.mark.parametrize(
    ("line", "cursor", "expected"),
    [
        ("regionclip detect --model reg", 3, ["regionclip-tiny", "regional"]),
        ("regionclip models rm ", 3, ["regional"]),
        ("regionclip models get clip-rn50x", 3, ["clip-rn50x4", "clip-rn50x16", "clip-rn50x64"]),
        ("regionclip detect --format jsonl,im", 3, ["jsonl,images"]),
        ("regionclip detect --classes @ lv", 4, ["lvis"]),  # bash splits words at @ and keeps what is before it
        ("regionclip detect a.jpg --classes cat, @ lv", 6, ["lvis"]),
        ("regionclip detect a.jpg --classes cat", 4, []),
        ("regionclip pretrain ti", 2, ["tiny"]),
        ("regionclip pretrain tiny pretrain.st", 3, ["pretrain.steps="]),
        ("regionclip concepts tiny concepts.min", 3, ["concepts.min_count="]),
        ("regionclip recipes explain pretrain.lr", 3, ["pretrain.lr"]),
        ("regionclip evaluate --split lv", 3, ["lvis-rare"]),
        ("regionclip evaluate --boxes g", 3, ["ground-truth"]),
    ],
)
def test_bash(line: str, cursor: int, expected: list[str]) -> None:
    variables = {completion.BASH_VARIABLE: "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(cursor)}
    assert complete(**variables) == expected


def test_zsh() -> None:
    line = "regionclip detect --classes cat,@lv"
    found = complete(**{completion.BASH_VARIABLE: "complete_zsh", "_TYPER_COMPLETE_ARGS": line})
    assert any("cat,@lvis" in word for word in found)
