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


def test_json_survives_an_alphabet_the_stream_lacks() -> None:
    stream = Latin()
    console = Console(stdout=stream)
    console.json({"label": "茶壺", "image": "a\udcff.jpg"})
    assert json.loads(stream.text()) == {"label": "茶壺", "image": "a\udcff.jpg"}


def test_json_refuses_numbers_that_json_has_no_word_for() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Console(stdout=io.StringIO()).json({"score": float("nan")})


def test_talk_goes_to_stderr(out: io.StringIO, err: io.StringIO) -> None:
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


def test_details_need_v(err: io.StringIO) -> None:
    Console(stderr=err).detail("hidden")
    Console(stderr=err, verbosity=1).detail("shown")
    assert err.getvalue() == "shown\n"


def test_a_table_in_a_pipe_has_one_whole_line_a_row(out: io.StringIO) -> None:
    long = "a sentence that is far longer than the eighty columns of a narrow terminal window, and goes on"
    Console(stdout=out).table(("name", "what"), [("first", long), ("2", None), ("three\nlines", 4)])
    assert out.getvalue().splitlines() == ["name         what", f"first        {long}", "2", "three lines  4"]


def test_a_table_on_a_terminal_fits_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    Console(stdout=screen).table(("name", "what"), [("[red]x[/red]", "word " * 20)])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
    assert any("[red]x[/red]" in line for line in lines)
    assert len(lines) > 4
    assert max(map(len, lines)) <= 40


def test_a_crooked_table_is_refused(out: io.StringIO) -> None:
    with pytest.raises(ValueError, match="a row of 1 cells in a table of 2 columns"):
        Console(stdout=out).table(("a", "b"), [("only",)])


def test_facts_stand_in_one_column(out: io.StringIO) -> None:
    Console(stdout=out).facts({"cores": 2, "a longer name": "x", "empty": ""})
    assert out.getvalue() == "cores          2\na longer name  x\nempty\n"


@pytest.mark.parametrize(("no_color", "escapes"), [("", True), ("1", False)])
def test_colour_minds_no_color(no_color: str, escapes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    screen = Terminal()
    Console(stderr=screen).warn("careful")
    assert ("\x1b[33m" in screen.getvalue()) is escapes
    assert "careful" in screen.getvalue()


def test_interactive_needs_a_terminal_on_both_ends(monkeypatch: pytest.MonkeyPatch, err: io.StringIO) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    assert Console(stderr=Terminal()).interactive
    assert not Console(stderr=err).interactive
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert not Console(stderr=Terminal()).interactive


def test_streams_are_looked_up_when_written(capsys: pytest.CaptureFixture[str]) -> None:
    Console().line("data")
    assert capsys.readouterr().out == "data\n"
