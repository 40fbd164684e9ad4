"""What mmengine logs goes where all other logs go, and not to stdout, which is data."""

from __future__ import annotations

import logging

from mmengine.logging import MMLogger

NAME = "mmengine"


class _Forward(logging.Handler):
    """Hands records to Python's logger of the same name, which minds the levels that the program chose."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        logger = logging.getLogger(NAME)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)


def redirect_mmengine_logs() -> None:
    """Take mmengine's default logger off stdout. A logger that a program made by itself is left as it is."""
    logger = MMLogger.get_current_instance()
    if logger.instance_name == NAME:
        forward(logger)


def forward(logger: logging.Logger) -> None:
    """Let a logger of mmengine's speak through Python's logger `mmengine` and no longer through stdout."""
    for handler in list(logger.handlers):
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            logger.removeHandler(handler)
    if not any(isinstance(handler, _Forward) for handler in logger.handlers):
        logger.addHandler(_Forward())
