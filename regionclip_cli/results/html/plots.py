"""Plots of a report as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from regionclip_cli.results.drawing import PALETTE
from regionclip_cli.results.html.content import Confusion, Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT = "#7d8590", "#b6bcc4"
"""Colours that are readable on a white and on a black page."""


def curve_plot(curves: Sequence[Curve]) -> str:
    """Return precision over recall as SVG."""
    figure, axes = _figure(6.2, 4.2)
    for curve, colour in zip(curves, (PALETTE[2], PALETTE[3], PALETTE[1], *PALETTE[4:]), strict=False):
        axes.plot(curve.recall, curve.precision, color=colour, linewidth=2, label=curve.label)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    axes.grid(color=FAINT, linewidth=0.5, alpha=0.5)
    if curves:
        axes.legend(frameon=False, labelcolor=INK)
    return _svg(figure, "Precision over recall at IoU 0.5")


def confusion_plot(confusion: Confusion) -> str:
    """Return a confusion table as SVG: true classes in rows, predictions in columns, coloured by share of the row."""
    rows, columns = confusion.counts.shape
    figure, axes = _figure(2.4 + 0.42 * columns, 1.6 + 0.3 * rows)
    totals = confusion.counts.sum(axis=1, keepdims=True).clip(min=1)
    # Cells centred at whole numbers; imshow would embed a bitmap in the SVG.
    edges = [[place - 0.5 for place in range(count + 1)] for count in (columns, rows)]
    axes.pcolormesh(*edges, confusion.counts / totals, cmap="Blues", vmin=0, vmax=1)
    axes.invert_yaxis()
    for row in range(rows):
        for column in range(columns):
            count = int(confusion.counts[row, column])
            if count:
                dark = count / totals[row, 0] > 0.55
                colour = "white" if dark else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(columns), confusion.columns, rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(rows), confusion.rows)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=9)
    axes.set_frame_on(False)
    return _svg(figure, "Confusions of the worst classes")


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    """Return an empty figure, size in inches, without a window or pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.tick_params(colors=INK)
    for part in (axes.xaxis.label, axes.yaxis.label):
        part.set_color(INK)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    """Return a figure as an SVG element with text as outlines, so that it looks the same everywhere."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Title": title})
    text = stream.getvalue()
    return text[text.index("<svg") :]
