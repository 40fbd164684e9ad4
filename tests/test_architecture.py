"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "regionclip_cli"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
VAGUE = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "managers"}
ANSWERS_THE_SHELL = {"completion.py"}
UNFINISHED = ("TODO", "FIXME", "XXX", "NotImplementedError")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_rooms_import_one_way() -> None:
    lint = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert lint, "import-linter is not installed beside this Python"
    ended = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_names_say_what_is_inside() -> None:
    names = {path: set(path.relative_to(ROOT).with_suffix("").parts) for path in [*SOURCES, *TESTS]}
    assert [name_of(path) for path, parts in names.items() if parts & VAGUE] == []


def test_test_files_have_names_of_their_own() -> None:
    names = Counter(path.name for path in TESTS if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_code_is_finished_and_keeps_the_rules(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [word for word in UNFINISHED if word in text] == []
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assert):
            found.append(f"line {node.lineno}: assert")
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"line {node.lineno}: bare except")
        if isinstance(node, ast.Import) and any(alias.name.partition(".")[0] == "click" for alias in node.names):
            found.append(f"line {node.lineno}: click")
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "click":
            found.append(f"line {node.lineno}: click")
        if isinstance(node, ast.Call) and path.parent.name != "console" and path.name not in ANSWERS_THE_SHELL:
            found += [f"line {node.lineno}: {name}" for name in printing(node)]
    assert found == []


def printing(call: ast.Call) -> list[str]:
    """Return what a call prints with: `print`, `typer.echo`, `sys.stdout.write` and their kind."""
    words = ast.unparse(call.func)
    printers = ("print", "typer.echo", "typer.secho", "rich.print", "input")
    return [words] if words in printers or words.startswith(("sys.stdout.write", "sys.stderr.write")) else []


def test_the_search_for_printing_finds_it() -> None:
    calls = ["print(1)", "typer.echo('x')", "sys.stderr.write('x')", "console.line('x')", "file.write('x')"]
    parsed = [ast.parse(call, mode="eval").body for call in calls]
    assert [bool(printing(node)) for node in parsed if isinstance(node, ast.Call)] == [True, True, True, False, False]
