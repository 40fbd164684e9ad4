"""Every example in docs/how-to works as written: its files are installed as a package and its commands are run."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributions import install_folder

from regionclip_cli import app, plugins
from regionclip_cli.errors import ExitCode

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
MAX_EXAMPLE_LINES = 32


@dataclass(frozen=True)
class Command:
    """A line `$ command` of a console block, and the words its output must contain."""

    argv: list[str]
    output: list[str]


def files(page: str) -> dict[str, str]:
    return {name: code for _, name, code in BLOCK.findall(page) if name}


def commands(page: str) -> list[Command]:
    found: list[Command] = []
    for language, _, text in BLOCK.findall(page):
        for line in text.splitlines() if language == "console" else []:
            if line.startswith("$ "):
                found.append(Command(shlex.split(line[2:]), []))
            elif line.strip():
                found[-1].output.append(line.strip())
    return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty project folder to work in; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(plugins.SWITCH, raising=False)
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "site").mkdir()
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_example_works_as_written(page: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text(encoding="utf-8")
    for name, code in files(text).items():
        (project / name).write_text(code, encoding="utf-8")
    assert commands(text)
    for command in commands(text):
        if command.argv == ["pip", "install", "."]:
            install_folder(project / "site", project)
            continue
        program, *argv = command.argv
        if program == "cat":
            out = (project / argv[0]).read_text(encoding="utf-8")
        else:
            assert program == "regionclip"
            code = app.main(argv)
            out, err = capsys.readouterr()
            assert code == ExitCode.OK, err
        assert [line for line in command.output if line not in out] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_example_is_short(page: Path) -> None:
    modules = [code for name, code in files(page.read_text(encoding="utf-8")).items() if name.endswith(".py")]
    assert all(len(code.splitlines()) <= MAX_EXAMPLE_LINES for code in modules)


def test_contributing_links_every_page() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f"docs/how-to/{page.name}" not in text] == []
