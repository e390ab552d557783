"""The board as a picture that can be cited: a panel of dots with intervals for every task."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from genxai_core.plots import COLOURS, INK

from .contest import short
from .task import FRAME

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .scoreboard import Scoreboard

ROW, DOTS, CHARACTER = 0.17, 2.1, 0.06
"""Inches: the height of a contestant's row, the width of a panel's dots, and that of a letter."""

HEAD, FOOT, BELOW, VALUES = 0.4, 0.42, 0.5, 0.45
"""Inches: above a panel's dots, below them, the figure's legend, and the column of means."""

LONGEST = 30
"""Letters of a contestant's name that are shown."""

FAILED = 3
"""Contestants without scores that have a row each; more share one."""

FAINT = "#8A8A8A"
MARKS = {"better": ("o", COLOURS[0]), "same": ("o", "white"), "worse": ("v", COLOURS[1])}
"""Marker and filling by standing: told apart without colours, too."""

LEGEND = {
    "better": "better than heuristic, random and constant",
    "same": "neither can be told",
    "worse": "worse than one of them",
}


class Row(NamedTuple):
    """One line of a panel."""

    name: str
    verdict: str
    """Its standing; ``frame`` for one that frames the task, ``failed`` for one without scores."""
    mean: float
    low: float
    high: float


def draw(board: Scoreboard, columns: int = 0) -> Figure:
    """Draw every task's contestants by the measure that ranks, the best first, with 95 % intervals over seeds.

    Perfect is always at the right. The four that frame a task are gray; a dotted line is chance, a gray one the
    heuristic. Who scores far below all of these stands at the edge with an arrow. The panels are as high as they have
    contestants, and stand in the column that is shortest.

    Parameters
    ----------
    board
        A board with at least one task.
    columns
        Panels side by side; 0 chooses two.
    """
    rows = {task: _rows(board, task) for task in board.tasks}
    columns = min(columns or 2, len(rows))
    labels = CHARACTER * max(min(len(row.name), LONGEST) for found in rows.values() for row in found) + 0.15
    wide = labels + DOTS + VALUES
    tops = [0.0] * columns
    places: dict[str, tuple[int, float, float]] = {}
    for task, found in rows.items():
        column = tops.index(min(tops))
        high = ROW * len(found)
        places[task] = (column, tops[column] + HEAD, high)
        tops[column] += HEAD + high + FOOT
    width, height = columns * wide + 0.1, max(tops) + BELOW
    figure = Figure(figsize=(width, height), facecolor="white")
    for task, (column, top, high) in places.items():
        left = column * wide + labels
        box = (left / width, 1 - (top + high) / height, DOTS / width, high / height)
        _panel(figure.add_axes(box), board, task, rows[task])
    _legend(figure)
    return figure


def _rows(board: Scoreboard, task: str) -> list[Row]:
    found = []
    for name in board.contestants(task, frame=True):
        shown = board.called(task, name) if name in FRAME else short(name)
        standing = "frame" if name in FRAME else board.standing(task, name)
        found.append(Row(shown, standing, *board.interval(task, name)))
    failed = [short(name) for name in board.failures.get(task, {})]
    if len(failed) > FAILED:
        failed = [f"{len(failed)} contestants"]
    return [*found, *(Row(name, "failed", math.nan, math.nan, math.nan) for name in failed)]


def _panel(axis: Axes, board: Scoreboard, task: str, rows: list[Row]) -> None:
    measure = board.first(task)
    about = board.tasks[task]["measures"][measure]
    worst, best = _ends(board, task, rows)
    random = board.interval(task, "random").mean
    chance = about["chance"] if about["chance"] is not None else random
    axis.axvline(chance, color=FAINT, linewidth=0.9, linestyle=(0, (1.5, 2)), zorder=1)
    axis.axvline(board.interval(task, "heuristic").mean, color="#CFCFCF", linewidth=3.5, zorder=0)
    across = axis.get_yaxis_transform()
    for place, row in enumerate(rows):
        gray = row.verdict in ("frame", "failed")
        ink = FAINT if gray else INK
        name = _cut(row.name)
        style: dict[str, Any] = {"va": "center", "color": ink, "transform": across, "parse_math": False}
        axis.text(-0.03, place, name, ha="right", fontsize=7.5, **style)
        text = "failed" if row.verdict == "failed" else _number(row.mean)
        axis.text(1.04, place, text, ha="left", fontsize=7, **style)
        if row.verdict != "failed":
            _dot(axis, row, place, worst, best)
    axis.set_xlim(worst, best)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_yticks([])
    axis.tick_params(labelsize=7, colors=INK, length=2.5)
    axis.set_xlabel(_words(measure, about["higher_is_better"]), fontsize=7.5, color=INK, labelpad=2)
    axis.set_title(task, fontsize=9.5, color=INK, fontweight="bold", pad=6, parse_math=False)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color("#BBBBBB")
    axis.grid(axis="x", alpha=0.25, linewidth=0.5)
    axis.set_axisbelow(True)


def _dot(axis: Axes, row: Row, place: int, worst: float, best: float) -> None:
    low, high = min(worst, best), max(worst, best)
    marker, filling = MARKS.get(row.verdict, ("D", FAINT))
    edge = FAINT if row.verdict == "frame" else (INK if row.verdict == "same" else filling)
    if not low <= row.mean <= high:
        # beyond the edge that is worst; nothing is better than perfect by much
        axis.annotate(
            "",
            xy=(worst, place),
            xytext=(worst + 0.09 * (best - worst), place),
            arrowprops={"arrowstyle": "-|>", "color": edge, "linewidth": 1.2},
        )
        return
    if math.isfinite(row.low):
        ends = (max(low, row.low), min(high, row.high))
        axis.plot(ends, (place, place), color=edge, linewidth=1.5, solid_capstyle="butt", zorder=2)
    axis.plot(
        row.mean, place, marker, markersize=4.6, markerfacecolor=filling, markeredgecolor=edge, zorder=3, clip_on=False
    )


def _ends(board: Scoreboard, task: str, rows: list[Row]) -> tuple[float, float]:
    """Return the axis' worst end and its best: the frame, and contestants down to one such width below it."""
    about = board.tasks[task]["measures"][board.first(task)]
    sign = 1.0 if about["higher_is_better"] else -1.0
    frame = [sign * row.mean for row in rows if row.verdict == "frame"]
    top = max(sign * about["perfect"], *frame)
    span = max(top - min(frame), 1e-9)
    means = [sign * row.mean for row in rows if row.verdict != "failed"]
    bottom = max(min(means), min(frame) - span)
    top = max(top, *means) if max(means) < top + span else top
    margin = 0.05 * (top - bottom)
    return sign * (bottom - margin), sign * (top + margin)


def _legend(figure: Figure) -> None:
    handles = []
    for verdict, (marker, filling) in MARKS.items():
        edge = INK if verdict == "same" else filling
        handles.append(
            Line2D([], [], linestyle="", marker=marker, markerfacecolor=filling, markeredgecolor=edge, markersize=5)
        )
    handles.append(Line2D([], [], linestyle="", marker="D", color=FAINT, markersize=5))
    handles.append(Line2D([], [], color="#CFCFCF", linewidth=3.5))
    handles.append(Line2D([], [], color=FAINT, linewidth=0.9, linestyle=(0, (1.5, 2))))
    labels = [*LEGEND.values(), "frames the task", "the heuristic", "chance"]
    columns = 6 if figure.get_figwidth() > 10 else 3 if figure.get_figwidth() > 5.5 else 2
    figure.legend(
        handles, labels, loc="lower center", ncols=columns, fontsize=7.5, frameon=False, labelcolor=INK, borderpad=0
    )


def _cut(name: str) -> str:
    """Shorten a name in its middle: what tells two apart is often at the end."""
    half = (LONGEST - 1) // 2
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1 - half]}…{name[-half:]}"


def _words(measure: str, higher: bool) -> str:
    return f"{measure}, {'higher' if higher else 'lower'} is better"


def _number(value: float) -> str:
    if abs(value) < 0.0005:
        return "0"
    text = f"{value:.2f}" if abs(value) < 100 else f"{value:.3g}"
    return (text if float(text) else f"{value:.1g}").replace("-", "−")
