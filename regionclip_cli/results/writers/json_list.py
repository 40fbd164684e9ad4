"""JSON lists an item at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain, repeat
from typing import Any, BinaryIO


def write_list(file: BinaryIO, items: Iterable[Any]) -> None:
    """Write a JSON list, one item per line."""
    file.write(b"[")
    for separator, item in zip(chain([b"\n"], repeat(b",\n")), items, strict=False):
        file.write(separator + json.dumps(item).encode())
    file.write(b"]")
