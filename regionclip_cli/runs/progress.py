"""Progress reporting of stages, independent of the terminal."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """What a stage calls while it works. The command line draws it; a library user may pass `Silent()`."""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Begin a task of `total` units (None when unknown); an empty unit means that nothing is counted."""

    def advance(self, done: int = 1) -> None:
        """Say that `done` more units are finished."""

    def note(self, message: str) -> None:
        """Say something a user may want to know."""

    def warn(self, message: str) -> None:
        """Say something that went wrong without stopping the work."""

    def finish(self) -> None:
        """End the task that `start` began."""


class Silent:
    """A `Progress` that says nothing."""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Ignore."""

    def advance(self, done: int = 1) -> None:
        """Ignore."""

    def note(self, message: str) -> None:
        """Ignore."""

    def warn(self, message: str) -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""


@contextmanager
def loading(progress: Progress, what: str) -> Iterator[None]:
    """Announce slow imports or the loading of a model, and pause garbage collection meanwhile.

    Importing thousands of modules allocates many objects and frees few, so that collections only cost time.

    Args:
        progress: Receives a task without a unit.
        what: What is loaded, e.g. the model name.
    """
    progress.start(f"Loading {what}", None, "")
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()
        progress.finish()


@contextmanager
def resumable(progress: Progress) -> Iterator[None]:
    """Tell a user who interrupts the block that what is done is kept, and how to go on; the interruption goes on, too.

    Args:
        progress: Told it.
    """
    try:
        yield
    except KeyboardInterrupt:
        progress.note("What is done so far is kept; --resume goes on from there.")
        raise
