"""Output streams: results go to stdout, messages to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from regionclip_cli.console.progress import BarProgress, LogProgress


class Console:
    """Both output streams and their verbosity.

    Args:
        quiet: Print only warnings and errors to stderr (`-q`).
        verbosity: Number of `-v` flags.
        stdout: Stream for results; None uses `sys.stdout` at the time of writing.
        stderr: Stream for messages; None uses `sys.stderr` at the time of writing.
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
        """Stream for results."""
        return self._stdout if self._stdout is not None else sys.stdout

    @property
    def stderr(self) -> TextIO:
        """Stream for messages."""
        return self._stderr if self._stderr is not None else sys.stderr

    @property
    def interactive(self) -> bool:
        """Whether the user can be prompted: stdin and stderr are both terminals."""
        return bool(sys.stdin and sys.stdin.isatty() and self.stderr.isatty())

    def json(self, value: Any) -> None:
        """Write a JSON object to stdout as one line.

        Raises:
            ValueError: The value contains NaN or infinity, which JSON cannot represent.
        """
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        try:
            text.encode(self.stdout.encoding or "utf-8")
        except UnicodeEncodeError:  # the encoding lacks a character, or a file name is not UTF-8
            text = json.dumps(value, allow_nan=False)
        self.line(text)

    def line(self, text: str = "") -> None:
        """Write a line to stdout and flush it."""
        if self._bar is not None and self.stdout.isatty():  # print above the bar on the same screen
            self._bar.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        self.stdout.write(f"{text}\n")
        self.stdout.flush()

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, to: Literal["stdout", "stderr"] = "stdout"
    ) -> None:
        """Write a table, fitted to the terminal width, or untruncated if the output is not a terminal.

        Args:
            columns: Header cells.
            rows: Cells of each row; None is an empty cell.
            to: `stdout` for results, `stderr` for messages (silent with `-q`).
        """
        if to == "stderr" and self.quiet:
            return
        self.close()
        from regionclip_cli.console.tables import write_table

        write_table(self.stdout if to == "stdout" else self.stderr, columns, rows)

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Write aligned `name  value` lines to stdout."""
        width = max((len(name) for name in facts), default=0)
        for name, value in facts.items():
            self.line(f"{name:<{width}}  {value}".rstrip())

    def note(self, message: str) -> None:
        """Print a message to stderr; silent with `-q`."""
        if not self.quiet:
            self._talk(message)

    def detail(self, message: str) -> None:
        """Print a message to stderr, only with `-v`."""
        if self.verbosity:
            self._talk(message)

    def warn(self, message: str) -> None:
        """Print a warning to stderr."""
        self._talk(message, label="warning", style="yellow")

    def error(self, message: str, hint: str = "") -> None:
        """Print an error to stderr, with a hint on a second line."""
        self._talk(message, label="error", style="bold red")
        if hint:
            self._talk(hint, label="hint", style="cyan")

    def progress(self) -> BarProgress | LogProgress:
        """Return a `Progress` for a stage: a bar on a terminal, otherwise lines; silent with `-q`."""
        from regionclip_cli.console.progress import BarProgress, LogProgress

        if self.stderr.isatty() and not self.quiet:
            return BarProgress(self)
        return LogProgress(self)

    def share_with_bar(self, bar: RichConsole | None, stop: Callable[[], None] | None = None) -> None:
        """Print through the console of a live display, which redraws the last lines of the screen.

        Args:
            bar: The rich console of the display; None when it has ended.
            stop: Called by `close` to end a display that is still running.
        """
        self._bar = bar
        self._stop = stop

    def close(self) -> None:
        """Stop a live display that an error left running."""
        if self._stop is not None:
            self._stop()

    def rich(self, to: Literal["stdout", "stderr"]) -> RichConsole:
        """Return a rich console for one of the streams; rich respects `NO_COLOR` and pipes."""
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
