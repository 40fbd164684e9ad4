"""Progress: a bar on a terminal, a line every 5 % in a log."""

from __future__ import annotations

import gc
import io
import re

import pytest

from regionclip_cli.console import Console
from regionclip_cli.console.progress import BarProgress, LogProgress, spell_seconds
from regionclip_cli.runs.progress import Progress, loading


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that is advanced by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    return Terminal()


def plain(screen: Terminal) -> str:
    """Return what was written without escape codes, each redrawn line on its own."""
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", screen.getvalue()).replace("\r", "\n")


def log(total: int | None, steps: int, seconds_each: float, **options: bool) -> list[str]:
    """Return the lines that `steps` units leave on stderr."""
    err, clock = io.StringIO(), Clock()
    progress: Progress = LogProgress(Console(stderr=err, **options), clock)
    progress.start("detect", total, "images")
    for _ in range(steps):
        clock.now += seconds_each
        progress.advance()
    progress.finish()
    return err.getvalue().splitlines()


def test_log_has_a_line_every_five_percent_and_a_summary() -> None:
    lines = log(total=1000, steps=1000, seconds_each=0.5)
    assert len(lines) == 20
    assert lines[0] == "detect: 5% (50/1000 images), 2 images/s, 7 min 55 s left"
    assert lines[18] == "detect: 95% (950/1000 images), 2 images/s, 25 s left"
    assert lines[19] == "detect: 1,000 images in 8 min 20 s (2 images/s)"


def test_log_of_few_units() -> None:
    assert log(total=3, steps=3, seconds_each=0.1) == ["detect: 3 images in 0.3 s (10 images/s)"]
    assert log(total=4, steps=4, seconds_each=1) == [
        "detect: 50% (2/4 images), 1 images/s, 2.0 s left",
        "detect: 4 images in 4.0 s (1 images/s)",
    ]


def test_log_of_unknown_total_has_a_line_every_30_seconds() -> None:
    assert log(total=None, steps=8, seconds_each=10) == [
        "detect: 3 images, 0.1 images/s",
        "detect: 6 images, 0.1 images/s",
        "detect: 8 images in 1 min 20 s (0.1 images/s)",
    ]


def test_log_counts_beyond_the_total() -> None:
    assert log(total=2, steps=4, seconds_each=1)[-1] == "detect: 4 images in 4.0 s (1 images/s)"


def test_log_of_zero_units() -> None:
    assert log(total=0, steps=0, seconds_each=1) == ["detect: 0 images in 0.0 s (0 images/s)"]


def test_quiet_prints_warnings_only() -> None:
    assert log(total=100, steps=100, seconds_each=1, quiet=True) == []
    err = io.StringIO()
    progress = Console(stderr=err, quiet=True).progress()
    progress.start("detect", 2, "images")
    progress.note("a note")
    progress.warn("bad.jpg cannot be read")
    progress.finish()
    assert err.getvalue() == "warning: bad.jpg cannot be read\n"


def test_task_without_unit_is_announced_once() -> None:
    err = io.StringIO()
    progress = Console(stderr=err).progress()
    progress.start("Loading tiny", None, "")
    with loading(progress, "tiny"):
        assert not gc.isenabled()
    assert gc.isenabled()
    progress.finish()
    assert err.getvalue() == "Loading tiny ...\n"


def test_task_without_unit_is_a_transient_spinner(screen: Terminal) -> None:
    console = Console(stderr=screen)
    progress = console.progress()
    progress.start("Loading tiny", None, "")
    progress.note("Model tiny on cpu.")
    progress.start("Detecting", 1, "images")
    progress.advance()
    progress.finish()
    lines = [line.strip() for line in plain(screen).splitlines() if line.strip()]
    assert "Loading tiny" in lines[0]
    assert "Model tiny on cpu." in lines
    assert "Loading" not in lines[-1]


def test_finish_without_a_task_prints_nothing() -> None:
    err = io.StringIO()
    progress = Console(stderr=err).progress()
    progress.finish()
    assert err.getvalue() == ""


@pytest.mark.parametrize(
    ("stream", "quiet", "kind"),
    [(Terminal(), False, BarProgress), (Terminal(), True, LogProgress), (io.StringIO(), False, LogProgress)],
)
def test_bar_requires_a_terminal(stream: io.StringIO, quiet: bool, kind: type) -> None:
    assert isinstance(Console(stderr=stream, quiet=quiet).progress(), kind)


def test_bar_shows_count_and_rate(screen: Terminal) -> None:
    progress: Progress = Console(stderr=screen).progress()
    progress.start("detect", 4, "images")
    for _ in range(4):
        progress.advance()
    progress.finish()
    last = plain(screen).splitlines()[-1]
    assert re.fullmatch(r"detect .* 4/4 +\S+ images/s +0:00:00", last.strip())


def test_messages_are_printed_above_the_bar(screen: Terminal) -> None:
    console = Console(stderr=screen)
    progress = console.progress()
    progress.start("detect", 2, "images")
    progress.warn("bad.jpg cannot be read")
    progress.note("[red]as written[/red]")
    progress.finish()
    text = screen.getvalue()
    assert "warning: bad.jpg cannot be read" in text
    assert "[red]as written[/red]" in text
    assert text.rindex("0/2") > text.index("bad.jpg")


def test_redirected_output_is_not_drawn_with_the_bar(screen: Terminal) -> None:
    out = io.StringIO()
    console = Console(stdout=out, stderr=screen)
    progress = console.progress()
    progress.start("detect", 1, "images")
    console.json({"image": "a.jpg"})
    progress.finish()
    assert out.getvalue() == '{"image": "a.jpg"}\n'
    assert "a.jpg" not in screen.getvalue()


def test_output_on_the_same_terminal_is_printed_above_the_bar(screen: Terminal) -> None:
    console = Console(stdout=screen, stderr=screen)
    progress = console.progress()
    progress.start("detect", 1, "images")
    console.json({"image": "a" * 200})
    progress.finish()
    console.line("after")
    assert f'{{"image": "{"a" * 200}"}}\n' in screen.getvalue()
    assert screen.getvalue().endswith("after\n")


def test_close_stops_a_running_bar(screen: Terminal) -> None:
    console = Console(stderr=screen)
    console.progress().start("detect", 2, "images")
    console.close()
    console.close()
    assert screen.getvalue().count("\x1b[?25h") == 1  # the cursor is back, once
    console.error("it failed")
    assert plain(screen).endswith("error: it failed\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (42.4, "42 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_spell_seconds(seconds: float, text: str) -> None:
    assert spell_seconds(seconds) == text
