"""Curves of trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ..errors import InputError
from .canvas import COLOURS, FRAME, INK, literal, shorten

if TYPE_CHECKING:
    from torch import Tensor

DASHES: tuple[Any, ...] = ("-", (0, (4, 3)), (0, (1.2, 2)), (0, (7, 2, 1.2, 2)))
"""Styles of lines that are compared: where several coincide, the lower ones show through the gaps of the upper."""

_NOT_SERIES = ("step", "seconds")


def curves(history: Mapping[str, Sequence[float]], *, title: str = "") -> Figure:
    """Draw every series of a training history over its steps, thin as measured and bold as a running mean.

    Raises
    ------
    InputError
        If the history holds no series.
    """
    figure = Figure(figsize=(6.4, 2.8), facecolor="white")
    axis = figure.subplots()
    names = _series(history)
    for colour, name in zip(COLOURS * (1 + len(names) // len(COLOURS)), names):
        _curve(axis, history, name, colour, label=name)
    _style(axis)
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    if title:
        axis.set_title(title, fontsize=9.5, color=INK, parse_math=False)
    figure.tight_layout()
    return figure


def curves_compared(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Draw several trainings: one panel per series, in it one line per training that has it, on one scale.

    Parameters
    ----------
    histories
        By the name of the training.

    Raises
    ------
    InputError
        If they hold no series.
    """
    names = list(dict.fromkeys(name for history in histories.values() for name in _series(history)))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.3 * columns, 2.4 * rows + 0.35), facecolor="white")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    styles = list(zip(COLOURS * len(histories), DASHES * len(histories), histories))
    for axis, name in zip(panels, names):
        for colour, dashes, label in styles:
            if name in histories[label]:
                _curve(axis, histories[label], name, colour, label=label, dashes=dashes)
        _style(axis)
        axis.set_title(shorten(_words(name), 40), fontsize=9, color=INK)
    for axis in panels[len(names) :]:
        axis.remove()
    lines = [mpl.lines.Line2D([], [], color=c, linestyle=d, linewidth=2) for c, d, _ in styles]
    labels = [shorten(literal(label), 30) for label in histories]
    figure.legend(
        lines, labels, loc="lower center", ncols=min(4, len(labels)), fontsize=8.5, frameon=False, handlelength=3
    )
    figure.tight_layout(rect=(0, 0.3 / figure.get_figheight(), 1, 1))
    return figure


def search_curves(history: Tensor, failed: Tensor, *, title: str = "") -> Figure:
    """Draw the error of each of several searches after each of its steps, those that failed in another colour.

    Parameters
    ----------
    history
        ``[N, T]``. The axis is logarithmic where all are positive and span a factor of 3. Of more than 64, the first
        64 are drawn.
    failed
        ``[N]`` bool.
    title
        Above the axes.

    Raises
    ------
    InputError
        If there are no searches or no steps.
    """
    if history.numel() == 0:
        raise InputError("the history holds no steps to draw")
    values = history[:64].detach().cpu().double().numpy()
    figure = Figure(figsize=(5.2, 2.6), facecolor="white")
    axis = figure.subplots()
    for colour, dashes, name, wanted in ((COLOURS[0], "-", "found", False), (COLOURS[1], DASHES[1], "failed", True)):
        rows = [row for row, bad in zip(values, failed.tolist()) if bad == wanted]
        for i, row in enumerate(rows):
            label = f"{name} ({len(rows)})" if i == 0 else None
            steps = range(1, len(row) + 1)
            axis.plot(steps, row, color=colour, linestyle=dashes, linewidth=1, alpha=0.8, label=label)
    finite = values[np.isfinite(values)]
    if finite.size and 0 < 3 * finite.min() < finite.max():
        axis.set_yscale("log")
        few = finite.max() < 100 * finite.min()
        axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5) if few else range(2, 10)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}" if few else NullFormatter())
    _style(axis)
    axis.tick_params(which="minor", labelsize=8, labelcolor=INK)
    axis.set_ylabel("error", fontsize=8, color=INK)
    axis.legend(fontsize=8, frameon=False)
    if title:
        axis.set_title(title, fontsize=9.5, color=INK, parse_math=False)
    figure.tight_layout()
    return figure


def series_of(history: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the names of what a history measured: everything but ``step`` and ``seconds``, unless it is empty."""
    return [name for name, values in history.items() if name not in _NOT_SERIES and len(values)]


def _series(history: Mapping[str, Sequence[float]]) -> list[str]:
    names = series_of(history)
    if not names:
        raise InputError("the history holds no series to draw")
    return names


def _curve(
    axis: Axes,
    history: Mapping[str, Sequence[float]],
    name: str,
    colour: str,
    *,
    label: str,
    dashes: Any = "-",
) -> None:
    values = np.asarray(history[name], dtype=float)
    steps = np.asarray(history.get("step", range(len(values))), dtype=float)
    window = max(1, len(values) // 25)
    smooth = np.convolve(values, np.ones(window) / window, mode="valid")
    marker = "o" if len(values) == 1 else None
    axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.7, zorder=1)  # below every running mean
    axis.plot(
        steps[window - 1 :], smooth, color=colour, linestyle=dashes, linewidth=1.7, marker=marker, label=_words(label)
    )


def _words(name: str) -> str:
    return literal(name.replace("_", " "))


def _style(axis: Axes) -> None:
    axis.set_xlabel("step", fontsize=8, color=INK)
    axis.tick_params(labelsize=8, colors=INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axis.spines[side].set_color(FRAME)
    axis.grid(alpha=0.25, linewidth=0.5)
