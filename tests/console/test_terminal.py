"""Data on stdout, talk on stderr, as loud as asked, on a terminal and in a pipe."""

from __future__ import annotations

import io
import json
import re

import pytest

from regionclip_cli.console import Console


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Latin(io.TextIOWrapper):
    """A stream that can only say Latin letters."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="latin-1")

    def text(self) -> str:
        self.seek(0)
        return self.read()


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def err() -> io.StringIO:
    return io.StringIO()


def test_json_is_one_line_on_stdout(out: io.StringIO, err: io.StringIO) -> None:
    console = Console(stdout=out, stderr=err, quiet=True)
    console.json({"label": "茶壺\n", "score": 0.5})
    console.json([])
    lines = out.getvalue().splitlines()
    assert lines[0] == '{"label": "茶壺\\n", "score": 0.5}'
    assert [json.loads(line) for line in lines] == [{"label": "茶壺\n", "score": 0.5}, []]
    assert err.getvalue() == ""


def test_json_is_escaped_for_a_limited_encoding() -> None:
    stream = Latin()
    console = Console(stdout=stream)
    console.json({"label": "茶壺", "image": "a\udcff.jpg"})
    assert json.loads(stream.text()) == {"label": "茶壺", "image": "a\udcff.jpg"}


def test_json_rejects_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Console(stdout=io.StringIO()).json({"score": float("nan")})


def test_messages_go_to_stderr(out: io.StringIO, err: io.StringIO) -> None:
    console = Console(stdout=out, stderr=err)
    console.note("[bold]not markup[/bold]")
    console.warn("careful")
    console.error("it failed", "try again")
    assert out.getvalue() == ""
    assert err.getvalue() == "[bold]not markup[/bold]\nwarning: careful\nerror: it failed\nhint: try again\n"


def test_quiet_keeps_warnings_and_errors(err: io.StringIO) -> None:
    console = Console(stderr=err, quiet=True)
    console.note("note")
    console.detail("detail")
    console.table(["a"], [["b"]], to="stderr")
    console.warn("warning")
    console.error("error")
    assert err.getvalue() == "warning: warning\nerror: error\n"


def test_detail_requires_verbose(err: io.StringIO) -> None:
    Console(stderr=err).detail("hidden")
    Console(stderr=err, verbosity=1).detail("shown")
    assert err.getvalue() == "shown\n"


def test_piped_table_has_one_line_per_row(out: io.StringIO) -> None:
    long = "a sentence that is far longer than the eighty columns of a narrow terminal window, and goes on"
    Console(stdout=out).table(("name", "what"), [("first", long), ("2", None), ("three\nlines", 4)])
    assert out.getvalue().splitlines() == ["name         what", f"first        {long}", "2", "three lines  4"]


def test_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    Console(stdout=screen).table(("name", "what"), [("[red]x[/red]", "word " * 20)])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
    assert any("[red]x[/red]" in line for line in lines)
    assert len(lines) > 4
    assert max(map(len, lines)) <= 40


def test_table_rejects_ragged_rows(out: io.StringIO) -> None:
    with pytest.raises(ValueError, match="1"):
        Console(stdout=out).table(("a", "b"), [("only",)])


def test_facts_are_aligned(out: io.StringIO) -> None:
    Console(stdout=out).facts({"cores": 2, "a longer name": "x", "empty": ""})
    assert out.getvalue() == "cores          2\na longer name  x\nempty\n"


@pytest.mark.parametrize(("no_color", "escapes"), [("", True), ("1", False)])
def test_no_color_is_respected(no_color: str, escapes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    screen = Terminal()
    Console(stderr=screen).warn("careful")
    assert ("\x1b[33m" in screen.getvalue()) is escapes
    assert "careful" in screen.getvalue()


def test_interactive_requires_two_terminals(monkeypatch: pytest.MonkeyPatch, err: io.StringIO) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    assert Console(stderr=Terminal()).interactive
    assert not Console(stderr=err).interactive
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert not Console(stderr=Terminal()).interactive


def test_streams_are_resolved_when_written(capsys: pytest.CaptureFixture[str]) -> None:
    Console().line("data")
    assert capsys.readouterr().out == "data\n"
