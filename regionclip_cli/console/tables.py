"""Tables: fitted to the terminal width, or plain and untruncated in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

GAP = "  "
MAX_WHOLE = 28
"""Columns up to this width are not wrapped on a terminal, where the others have room."""
MIN_WRAPPED = 24
"""Width that must remain for the wrapped columns."""


def write_table(stream: TextIO, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a header and rows to `stream`.

    On a terminal, long cells are wrapped to fit its width. In a pipe or file each row is exactly one line, with columns
    padded by spaces.

    Raises:
        ValueError: A row and the header differ in length.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    for row in cells:
        if len(row) != len(columns):
            raise ValueError(f"a row of {len(row)} cells in a table of {len(columns)} columns: {row}")
    if stream.isatty():
        _write_fitted(stream, columns, cells)
    else:
        _write_plain(stream, columns, cells)


def _write_fitted(stream: TextIO, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    console = RichConsole(file=stream)
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    widths = [max(len(row[index]) for row in [columns, *cells]) for index in range(len(columns))]
    short = [width if width <= MAX_WHOLE else 0 for width in widths]
    keep_whole = sum(short) + len(GAP) * len(columns) <= console.width - MIN_WRAPPED
    for column, width in zip(table.columns, short, strict=True):
        column.overflow = "fold"
        column.no_wrap = keep_whole and width > 0
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _write_plain(stream: TextIO, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    lines = [[" ".join(cell.split()) for cell in row] for row in [columns, *cells]]
    widths = [max(len(row[index]) for row in lines) for index in range(len(columns))]
    for row in lines:
        stream.write(GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
    stream.flush()
