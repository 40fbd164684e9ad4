"""A `Progress` that remembers what it was told."""

from __future__ import annotations

from regionclip_cli.runs.progress import Silent


class Listener(Silent):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.done = 0
        self.total: int | None = None

    def start(self, task: str, total: int | None, unit: str) -> None:
        self.total, self.done = total, 0

    def advance(self, done: int = 1) -> None:
        self.done += done

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def note(self, message: str) -> None:
        self.notes.append(message)
