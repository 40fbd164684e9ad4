"""Send log records and Python warnings to the console, at the verbosity the user chose."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regionclip_cli.console.terminal import Console

OURS = "regionclip_cli"
LEVELS = (
    (logging.ERROR, logging.WARNING),
    (logging.WARNING, logging.INFO),
    (logging.DEBUG, logging.DEBUG),
)
"""Log levels of (libraries, this package) without `-v`, with `-v` and with `-vv`."""


class ConsoleHandler(logging.Handler):
    """Prints log records through a `Console`, so that they do not break a progress bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record, prefixed with the library name unless it is ours."""
        message = self.format(record)
        if not record.name.startswith(OURS):
            message = f"{record.name}: {message}"
        if record.levelno >= logging.ERROR:
            self._console.error(message)
        elif record.levelno >= logging.WARNING:
            self._console.warn(message)
        else:
            self._console.note(message)


@contextmanager
def listening(console: Console) -> Iterator[None]:
    """Send logging and Python warnings to `console` within the block; restore the previous settings after it.

    Without `-v`, Python warnings are dropped unless enabled with `python -W` or `PYTHONWARNINGS`.
    """
    root, ours = logging.getLogger(), logging.getLogger(OURS)
    before = (root.level, ours.level)
    handler = ConsoleHandler(console)
    root.addHandler(handler)
    theirs_from, ours_from = LEVELS[min(console.verbosity, len(LEVELS) - 1)]
    root.setLevel(theirs_from)
    ours.setLevel(ours_from)
    try:
        with warnings.catch_warnings():
            if console.verbosity:
                logging.captureWarnings(True)
            elif not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(before[0])
        ours.setLevel(before[1])
