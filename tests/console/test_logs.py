"""Log records and warnings of libraries in the amount the user chose."""

from __future__ import annotations

import io
import logging
import sys
import warnings

import pytest

from regionclip_cli.console import Console
from regionclip_cli.console.logs import listening

EVERYBODY = ("warning: warning", "error: error", "warning: library: warning", "error: library: error")


def talk() -> None:
    """Say something at every level, as ours and as a library."""
    for name in ("regionclip_cli.part", "library"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(level, "%s", logging.getLevelName(level).lower())


@pytest.mark.parametrize(
    ("verbosity", "expected"),
    [
        (0, [*EVERYBODY[:2], EVERYBODY[3]]),
        (1, ["info", *EVERYBODY]),
        (2, ["debug", "info", *EVERYBODY[:2], "library: debug", "library: info", *EVERYBODY[2:]]),
    ],
)
def test_levels_follow_verbosity(verbosity: int, expected: list[str]) -> None:
    err = io.StringIO()
    with listening(Console(stderr=err, verbosity=verbosity)):
        talk()
    assert err.getvalue().splitlines() == expected


def test_logging_is_restored() -> None:
    root, ours = logging.getLogger(), logging.getLogger("regionclip_cli")
    before = (root.level, ours.level, list(root.handlers), list(warnings.filters))
    with pytest.raises(ZeroDivisionError), listening(Console(stderr=io.StringIO(), verbosity=2)):
        _ = 1 / 0
    assert (root.level, ours.level, list(root.handlers), list(warnings.filters)) == before


def test_requested_warnings_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    with listening(Console(stderr=io.StringIO())), pytest.raises(UserWarning, match="old"):
        warnings.warn("old", UserWarning, stacklevel=1)
