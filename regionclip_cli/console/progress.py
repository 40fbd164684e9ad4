"""How far a stage is: a bar on a terminal, a line every 5 % in a log.

Both classes have the methods that a stage calls (`start`, `advance`, `note`, `warn`, `finish`).
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
UNKNOWN_TOTAL_SECONDS = 30.0


def spell_seconds(seconds: float) -> str:
    """Return a duration as a person says it: `0.8 s`, `42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class LogProgress:
    """Lines on stderr: one every 5 % of a known total, one every 30 s of an unknown one, and one at the end.

    Args:
        console: Where the lines go; `-q` silences all but warnings.
        clock: Seconds from a steady clock.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._task = ""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Begin a task of `total` units (None when unknown)."""
        self._task, self._total, self._unit = task, total, unit
        self._done = 0
        self._step = 0
        self._began = self._spoke = self._clock()

    def advance(self, done: int = 1) -> None:
        """Count `done` more units and say so when a step is full."""
        self._done += done
        now = self._clock()
        rate = self._done / max(now - self._began, 1e-9)
        if not self._total:
            if now - self._spoke >= UNKNOWN_TOTAL_SECONDS:
                self._spoke = now
                self._console.note(f"{self._task}: {pluralize(self._done, self._unit)}, {rate:.3g} {self._unit}/s")
            return
        percent = 100 * self._done // self._total
        if percent // STEP_PERCENT > self._step and self._done < self._total:
            self._step = percent // STEP_PERCENT
            left = spell_seconds(max(self._total - self._done, 0) / rate)
            self._console.note(
                f"{self._task}: {percent}% ({self._done}/{self._total} {self._unit}), "
                f"{rate:.3g} {self._unit}/s, {left} left"
            )

    def note(self, message: str) -> None:
        """Say something a user may want to know."""
        self._console.note(message)

    def warn(self, message: str) -> None:
        """Say something that went wrong without stopping the work."""
        self._console.warn(message)

    def finish(self) -> None:
        """End the task with one line that sums it up."""
        if not self._task:
            return
        seconds = self._clock() - self._began
        rate = self._done / max(seconds, 1e-9)
        self._console.note(
            f"{self._task}: {pluralize(self._done, self._unit)} in {spell_seconds(seconds)} ({rate:.3g} {self._unit}/s)"
        )
        self._task = ""


class BarProgress:
    """A bar with units a second and the time that remains, redrawn in place on the terminal behind stderr."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: RichProgress | None = None

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Begin a task of `total` units (None when unknown)."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Rate(ProgressColumn):
            """Units a second, over the last moments."""

            def render(self, task: Task) -> Text:
                """Return the rate as text, empty until two units are done."""
                speed = task.finished_speed or task.speed
                return Text(f"{speed:.3g} {unit}/s" if speed else "")

        self.finish()
        screen = self._console.rich("stderr")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
        # stdout may be a file while stderr is a terminal: rich must not catch what is printed to it.
        self._bar = Progress(*columns, console=screen, redirect_stdout=False, redirect_stderr=False)
        self._id = self._bar.add_task(task, total=total)
        self._bar.start()
        self._console.share_with_bar(screen, self.finish)

    def advance(self, done: int = 1) -> None:
        """Count `done` more units."""
        if self._bar is not None:
            self._bar.advance(self._id, done)

    def note(self, message: str) -> None:
        """Say something a user may want to know, above the bar."""
        self._console.note(message)

    def warn(self, message: str) -> None:
        """Say something that went wrong without stopping the work, above the bar."""
        self._console.warn(message)

    def finish(self) -> None:
        """Leave the bar as it stands and give the screen back."""
        if self._bar is not None:
            self._bar.stop()
            self._console.share_with_bar(None)
            self._bar = None
