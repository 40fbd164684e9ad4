"""`run.log`: what a run has said, in its own folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regionclip_cli.files import writing

LOG = logging.getLogger("regionclip_cli.run")
"""What is logged here goes to the `run.log` of the run that is open, whatever the program does with other logs."""
LOG.propagate = False
LOG.addHandler(logging.NullHandler())
LINE = "%(asctime)s %(levelname)s %(message)s"


class _QuietFileHandler(logging.FileHandler):
    """Loses a line rather than disturb a run, should the disk be full."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore."""


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Append to `path` what `LOG` is told, and what other loggers let through to the root, until the block ends."""
    handler = _QuietFileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter(LINE))
    root, level = logging.getLogger(), LOG.level
    LOG.setLevel(logging.DEBUG)
    for logger in (LOG, root):
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in (LOG, root):
            logger.removeHandler(handler)
        LOG.setLevel(level)
        handler.close()


class LoggedProgress:
    """A `Progress` that also writes into the run's log what it is told.

    Args:
        progress: The one that shows it.
    """

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._task = ""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Begin a task of `total` units (None when unknown)."""
        self._task = task
        count = unit if total is None else f"{total} {unit}"
        LOG.info("%s: %s" if count else "%s%s", task, count)
        self._progress.start(task, total, unit)

    def advance(self, done: int = 1) -> None:
        """Say that `done` more units are finished."""
        self._progress.advance(done)

    def note(self, message: str) -> None:
        """Say something a user may want to know."""
        LOG.info("%s", message)
        self._progress.note(message)

    def warn(self, message: str) -> None:
        """Say something that went wrong without stopping the work."""
        LOG.warning("%s", message)
        self._progress.warn(message)

    def finish(self) -> None:
        """End the task that `start` began."""
        if self._task:
            LOG.info("%s: done", self._task)
        self._task = ""
        self._progress.finish()


def open_log(path: Path) -> logging.Logger:
    """Return a logger that appends to `path` and to nothing else, whatever the program does with its logs.

    Raises:
        OutputError: The file cannot be opened.
    """
    with writing(path):
        handler = _QuietFileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.Logger("regionclip run", logging.DEBUG)
    log.addHandler(handler)
    return log
