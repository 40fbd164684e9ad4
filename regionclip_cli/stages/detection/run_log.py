"""The log of a run: every detail, in a file of its own."""

from __future__ import annotations

import logging
from pathlib import Path

from regionclip_cli.results.files import writing


class _QuietFileHandler(logging.FileHandler):
    """Loses a line rather than disturb a run, should the disk be full."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore."""


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
