"""Which share of a job is this process's: any number of processes, on any machines, with no word between them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from regionclip_cli.errors import UsageError


@dataclass(frozen=True)
class Share:
    """Share `index` (from 0) of `count` equal ones.

    >>> Share(1, 3).of(7)
    range(1, 7, 3)
    """

    index: int = 0
    count: int = 1

    def of(self, total: int) -> range:
        """Return which of `total` pieces of work are this share's: every `count`-th one."""
        return range(self.index, total, self.count)


def choose_share(text: str | None = None) -> Share:
    """Return the share that `text` asks for, else the one `torchrun` gave this process, else the whole.

    Args:
        text: As `--shard-of` takes it: "2/8" is the second of eight, counted from 1.

    Raises:
        UsageError: The text is no such fraction.
    """
    if text is None:
        return Share(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"{text!r} is no share of a job.", "Write 2/8 for the second of eight.")
    return Share(int(found[1]) - 1, int(found[2]))
