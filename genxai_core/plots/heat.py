"""Heat maps with names at their rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ..errors import InputError
from .canvas import DIVERGING, FRAME, INK, more, shorten, width_of

MOST_NAMES = 48

NUMBERS = 0.3
"""Inches that a cell must have for its value to be written in it."""


def square_map(values: np.ndarray, names: Sequence[str], *, label: str, title: str = "") -> Figure:
    """Draw a matrix in [-1, 1] of names × names, such as cosines, in a diverging map with white at zero.

    Parameters
    ----------
    values
        ``[D, D]``. Written into the cells where these are large enough: up to 16.
    names
        D texts. Of more than 48, the first 48 are drawn.
    label
        What the values are; stands at their scale.
    title
        Above everything.

    Raises
    ------
    InputError
        If there is nothing to draw.
    """
    left_out = more(len(names) - MOST_NAMES)
    names, values = names[:MOST_NAMES], values[:MOST_NAMES, :MOST_NAMES]
    d = len(names)
    if d == 0:
        raise InputError("there are no values to draw")
    cell = min(0.5, max(0.1, 5.0 / d))
    texts = [shorten(name, 24) for name in names]
    margin, top = 0.15 + max(map(width_of, texts)), 0.4 if title else 0.1
    tall = top + cell * d + margin + (0.2 if left_out else 0)
    figure = Figure(figsize=(margin + cell * d + 0.9, tall), facecolor="white")
    axes = place(figure, margin, top, cell * d, cell * d)
    scale = ScalarMappable(Normalize(-1, 1), mpl.colormaps[DIVERGING])
    heat(axes, values, scale, rows=texts, columns=texts, numbers=cell >= NUMBERS)
    scale_bar(figure, scale, margin + cell * d + 0.15, top, min(cell * d, 2.0), label)
    headline(figure, title)
    footline(figure, left_out)
    return figure


def footline(figure: Figure, text: str) -> None:
    """Write at the bottom what is not drawn."""
    figure.text(0.5, 0.05 / figure.get_figheight(), text, ha="center", va="bottom", fontsize=8, color=INK)


def headline(figure: Figure, title: str) -> None:
    """Write a title at the top."""
    top = 1 - 0.05 / figure.get_figheight()
    figure.text(0.5, top, title, ha="center", va="top", fontsize=9.5, color=INK, parse_math=False)


def place(figure: Figure, x: float, y: float, wide: float, high: float) -> Axes:
    """Add axes at a place in inches, y downwards."""
    width, height = figure.get_size_inches()
    return figure.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))


def heat(
    axes: Axes, values: np.ndarray, scale: Any, *, rows: Sequence[str], columns: Sequence[str], numbers: bool
) -> None:
    """Draw ``[rows, columns]`` values, with their names, and their values where asked."""
    axes.imshow(values, cmap=scale.cmap, norm=scale.norm, aspect="auto", interpolation="nearest")
    upright = values.shape[1] * (max(map(width_of, columns)) + 0.05) > axes.bbox.width / axes.figure.dpi
    turn = 90 if upright else 0
    axes.set_xticks(range(len(columns)), columns, rotation=turn, fontsize=7.5, color=INK, parse_math=False)
    axes.set_yticks(range(len(rows)), rows, fontsize=7.5, color=INK, parse_math=False)
    frame(axes)
    if not numbers:
        return
    for (row, column), value in np.ndenumerate(values):
        dark = np.dot(scale.to_rgba(value)[:3], (0.299, 0.587, 0.114)) < 0.5
        axes.text(column, row, fraction(value), ha="center", va="center", fontsize=7, color="white" if dark else INK)


def frame(axes: Axes) -> None:
    """Give axes the thin gray frame of all pictures, without ticks."""
    axes.tick_params(length=0, pad=2)
    for spine in axes.spines.values():
        spine.set_edgecolor(FRAME)
        spine.set_linewidth(0.6)


def scale_bar(figure: Figure, scale: Any, x: float, y: float, high: float, label: str) -> None:
    """Draw the scale of values with their label."""
    bar = figure.colorbar(scale, cax=place(figure, x, y, 0.1, high))
    bar.ax.tick_params(length=2, color=FRAME, labelsize=7.5, labelcolor=INK)
    bar.set_label(shorten(label, 30), fontsize=8, color=INK, parse_math=False)
    bar.outline.set_edgecolor(FRAME)
    bar.outline.set_linewidth(0.6)


def fraction(value: float) -> str:
    """Write a value for a cell: ``.25``, ``−.50``, ``1.5``, ``93``, ``2e4``."""
    size = abs(value)
    if size >= 9999.5:
        text = f"{size:.0e}".replace("e+0", "e").replace("e+", "e")
    else:
        text = f"{size:.2f}".removeprefix("0") if size < 0.995 else f"{size:.1f}" if size < 9.95 else f"{size:.0f}"
    return f"−{text}" if value < 0 and text.strip(".0") else text
