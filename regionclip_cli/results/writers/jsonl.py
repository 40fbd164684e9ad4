"""JSON Lines: `detections.jsonl` is the journal of the run itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from regionclip_cli.results.records import Records


def render(records: Records, folder: Path, labels: Sequence[str]) -> None:
    """Do nothing: the journal is already complete."""
