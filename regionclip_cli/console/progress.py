"""Progress of a stage: a bar on a terminal, a line every 5 % in a log.

Both classes implement the `Progress` protocol of `runs.progress`. A task without a unit, e.g. loading a model, counts
nothing: it is a spinner on a terminal, and otherwise one line at its start.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from regionclip_cli.errors import pluralize

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import Task

    from regionclip_cli.console.terminal import Console

STEP_PERCENT = 5
MIN_SECONDS = 2.0
"""Time between two progress lines of a known total."""
UNKNOWN_TOTAL_SECONDS = 30.0


def spell_seconds(seconds: float) -> str:
    """Format a duration: `0.8 s`, `42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class LogProgress:
    """Progress lines on stderr: every 5 % of a known total (at most every 2 s), else every 30 s, and a summary.

    Args:
        console: Where to print; `-q` silences all but warnings.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._task = ""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Begin a task of `total` units (None when unknown)."""
        if not unit and task != self._task:
            self._console.note(f"{task} ...")
        self._task, self._total, self._unit = task, total, unit
        self._done = 0
        self._step = 0
        self._began = self._spoke = self._clock()

    def advance(self, done: int = 1) -> None:
        """Count `done` more units and print a line when due."""
        self._done += done
        now = self._clock()
        rate = self._done / max(now - self._began, 1e-9)
        if not self._total:
            if self._unit and now - self._spoke >= UNKNOWN_TOTAL_SECONDS:
                self._spoke = now
                self._console.note(f"{self._task}: {pluralize(self._done, self._unit)}, {rate:.3g} {self._unit}/s")
            return
        percent = 100 * self._done // self._total
        due = percent // STEP_PERCENT > self._step and now - self._spoke >= MIN_SECONDS
        if due and self._done < self._total:
            self._step = percent // STEP_PERCENT
            self._spoke = now
            left = spell_seconds(max(self._total - self._done, 0) / rate)
            self._console.note(
                f"{self._task}: {percent}% ({self._done}/{self._total} {self._unit}), "
                f"{rate:.3g} {self._unit}/s, {left} left"
            )

    def note(self, message: str) -> None:
        """Print a message."""
        self._console.note(message)

    def warn(self, message: str) -> None:
        """Print a warning."""
        self._console.warn(message)

    def finish(self) -> None:
        """End the task with a summary line."""
        if not self._task:
            return
        if not self._unit:
            self._task = ""
            return
        seconds = self._clock() - self._began
        rate = self._done / max(seconds, 1e-9)
        self._console.note(
            f"{self._task}: {pluralize(self._done, self._unit)} in {spell_seconds(seconds)} ({rate:.3g} {self._unit}/s)"
        )
        self._task = ""


class BarProgress:
    """Progress bar with throughput and remaining time, on the terminal behind stderr."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: RichProgress | None = None
        self._task = ""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Begin a task of `total` units (None when unknown)."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Rate(ProgressColumn):
            """Recent throughput in units per second."""

            def render(self, task: Task) -> Text:
                """Return the rate, or an empty text before two units are done."""
                speed = task.finished_speed or task.speed
                return Text(f"{speed:.3g} {unit}/s" if speed else "")

        if not unit and task == self._task:
            return
        self.finish()
        self._task = task
        screen = self._console.rich("stderr")
        columns: tuple[ProgressColumn, ...] = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        if unit:
            name = TextColumn("{task.description}")
            columns = (name, BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
        # stdout may be a file while stderr is a terminal, so rich must not capture it.
        self._bar = Progress(*columns, console=screen, transient=not unit, redirect_stdout=False, redirect_stderr=False)
        self._id = self._bar.add_task(task, total=total)
        self._bar.start()
        self._console.share_with_bar(screen, self.finish)

    def advance(self, done: int = 1) -> None:
        """Count `done` more units."""
        if self._bar is not None:
            self._bar.advance(self._id, done)

    def note(self, message: str) -> None:
        """Print a message above the bar."""
        self._console.note(message)

    def warn(self, message: str) -> None:
        """Print a warning above the bar."""
        self._console.warn(message)

    def finish(self) -> None:
        """Stop the bar and leave it on the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._console.share_with_bar(None)
            self._bar, self._task = None, ""
