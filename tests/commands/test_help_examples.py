"""The examples on every help page: shown on unbroken lines at 80 columns, and accepted by the command."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import typer

from regionclip_cli import app
from regionclip_cli.commands.recipe_arguments import open_recipe
from regionclip_cli.errors import ExitCode
from regionclip_cli.recipe.library import packaged

HEADING = "[bold]Examples:[/bold]"
CONTINUED = re.compile(r"\\\n\s*")


class Page(NamedTuple):
    """A help page: the words after `regionclip`, the source of its text, and how to replace the command's body."""

    words: tuple[str, ...]
    text: str
    owner: Any
    attribute: str


def pages() -> Iterator[Page]:
    yield Page((), app.HELP, None, "")
    for command in app.BUILT_IN:
        location, _, attribute = command.location.partition(":")
        module = importlib.import_module(location)
        code = getattr(module, attribute)
        if not isinstance(code, typer.Typer):
            yield Page((command.name,), inspect.cleandoc(code.__doc__), module, attribute)
            continue
        for info in code.registered_commands:
            name = info.name or info.callback.__name__
            yield Page((command.name, name), inspect.cleandoc(info.callback.__doc__), info, "callback")


PAGES = {" ".join(page.words) or "regionclip": page for page in pages()}
EXAMPLES = {
    example.strip(): name
    for name, page in PAGES.items()
    for example in CONTINUED.sub("", page.text.partition(HEADING)[2]).strip().splitlines()
}


@pytest.mark.parametrize("name", PAGES)
def test_examples_keep_their_lines_at_80_columns(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = PAGES[name]
    expected = [line for line in page.text.partition(HEADING)[2].splitlines() if line.strip()]
    assert expected
    assert app.main([*page.words, "--help"]) == ExitCode.OK
    shown = [line.removeprefix(" ").rstrip() for line in capsys.readouterr().out.splitlines()]
    first = shown.index("Examples:") + 1
    assert shown[first : first + len(expected)] == expected


def recording(body: Callable[..., Any], calls: list[dict[str, Any]]) -> Callable[..., None]:
    """Return a function with the signature of `body` that records its arguments."""

    @functools.wraps(body)
    def record(*args: Any, **values: Any) -> None:
        calls.append(values)

    return record


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_accepted(example: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for variable in ("CC3M", "COCO", "LVIS", "RESNET50"):
        monkeypatch.setenv(variable, str(tmp_path))
    words = shlex.split(example)
    while words[0] not in ("regionclip", "regionclip_cli"):  # torchrun ... -m, cat ... |, cp "$(
        if words[0].startswith("$("):
            words = shlex.split(words[0][2:-1])
            break
        words = words[1:]
    words = words[1 : words.index(">") if ">" in words else None]
    page = next(page for page in reversed(PAGES.values()) if page.words == tuple(words[: len(page.words)]) != ())
    calls: list[dict[str, Any]] = []
    body = getattr(page.owner, page.attribute)
    monkeypatch.setattr(page.owner, page.attribute, recording(body, calls))
    assert app.main(words) == ExitCode.OK
    assert len(calls) == 1
    recipe = calls[0].get("recipe") or next(iter(calls[0].get("words") or ()), None)
    if recipe in packaged():
        section = words[0].replace("train-proposals", "proposals")
        overrides = calls[0].get("overrides") or calls[0].get("words", [])[1:]
        open_recipe(recipe, overrides, section=None if section == "recipes" else section)
