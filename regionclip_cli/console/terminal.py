"""Where output goes: data to stdout, talk to stderr, quieter or louder as the user asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from regionclip_cli.console.progress import BarProgress, LogProgress


class Console:
    """Both output streams and how much to say on them.

    Args:
        quiet: Say nothing on stderr but warnings and errors (`-q`).
        verbosity: How often `-v` was given.
        stdout: Stream for data; None means whatever `sys.stdout` is at the time of writing.
        stderr: Stream for talk; None means whatever `sys.stderr` is at the time of writing.
    """

    def __init__(
        self, *, quiet: bool = False, verbosity: int = 0, stdout: TextIO | None = None, stderr: TextIO | None = None
    ) -> None:
        self.quiet = quiet
        self.verbosity = verbosity
        self._stdout = stdout
        self._stderr = stderr
        self._bar: RichConsole | None = None
        self._stop: Callable[[], None] | None = None

    @property
    def stdout(self) -> TextIO:
        """The stream for data."""
        return self._stdout if self._stdout is not None else sys.stdout

    @property
    def stderr(self) -> TextIO:
        """The stream for talk."""
        return self._stderr if self._stderr is not None else sys.stderr

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked: stdin and stderr are both a terminal."""
        return bool(sys.stdin and sys.stdin.isatty() and self.stderr.isatty())

    def json(self, value: Any) -> None:
        """Write one JSON object as one line to stdout.

        Raises:
            ValueError: The value holds NaN or infinity, which JSON has no word for.
        """
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        try:
            text.encode(self.stdout.encoding or "utf-8")
        except UnicodeEncodeError:  # a terminal without this alphabet, or a file name that is not UTF-8
            text = json.dumps(value, allow_nan=False)
        self.line(text)

    def line(self, text: str = "") -> None:
        """Write one line of data to stdout, at once, so that a reader of the pipe sees it now."""
        if self._bar is not None and self.stdout.isatty():  # let the bar step aside on the screen they share
            self._bar.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        self.stdout.write(f"{text}\n")
        self.stdout.flush()

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, to: Literal["stdout", "stderr"] = "stdout"
    ) -> None:
        """Write a table: as wide as the terminal, and uncut when the output is not a terminal.

        Args:
            columns: Headings.
            rows: One sequence of cells a row; None is an empty cell.
            to: `stdout` when the table is what the user asked for; `stderr` (silent under `-q`) when it is talk.
        """
        if to == "stderr" and self.quiet:
            return
        from regionclip_cli.console.tables import write_table

        write_table(self.stdout if to == "stdout" else self.stderr, columns, rows)

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Write `name  value` lines to stdout, the values in one column."""
        width = max((len(name) for name in facts), default=0)
        for name, value in facts.items():
            self.line(f"{name:<{width}}  {value}".rstrip())

    def note(self, message: str) -> None:
        """Tell something useful on stderr; silent under `-q`."""
        if not self.quiet:
            self._talk(message)

    def detail(self, message: str) -> None:
        """Tell something for the curious on stderr; only with `-v`."""
        if self.verbosity:
            self._talk(message)

    def warn(self, message: str) -> None:
        """Tell on stderr that something went wrong while the work goes on."""
        self._talk(message, label="warning", style="yellow")

    def error(self, message: str, hint: str = "") -> None:
        """Tell on stderr what failed, and in a second line what to do."""
        self._talk(message, label="error", style="bold red")
        if hint:
            self._talk(hint, label="hint", style="cyan")

    def progress(self) -> BarProgress | LogProgress:
        """Return a `Progress` for a stage: a bar on a terminal, a line every 5 % elsewhere, nothing under `-q`."""
        from regionclip_cli.console.progress import BarProgress, LogProgress

        if self.stderr.isatty() and not self.quiet:
            return BarProgress(self)
        return LogProgress(self)

    def share_with_bar(self, bar: RichConsole | None, stop: Callable[[], None] | None = None) -> None:
        """Print through `bar` from now on, because it redraws the last lines of the screen; None ends that.

        Args:
            bar: The rich console that the bar is drawn on.
            stop: What `close` calls to end a bar that was left running.
        """
        self._bar = bar
        self._stop = stop

    def close(self) -> None:
        """End a bar that an error left on the screen."""
        if self._stop is not None:
            self._stop()

    def rich(self, to: Literal["stdout", "stderr"]) -> RichConsole:
        """Return a rich console on one of the streams; rich itself minds `NO_COLOR` and pipes."""
        from rich.console import Console as RichConsole

        return RichConsole(file=self.stdout if to == "stdout" else self.stderr)

    def _talk(self, message: str, label: str = "", style: str = "") -> None:
        stream = self.stderr
        if self._bar is None and not stream.isatty():
            stream.write(f"{label}: {message}\n" if label else f"{message}\n")
            stream.flush()
            return
        from rich.text import Text

        text = Text(message) if not label else Text.assemble((f"{label}: ", style), message)
        (self._bar or self.rich("stderr")).print(text, highlight=False, soft_wrap=True)
