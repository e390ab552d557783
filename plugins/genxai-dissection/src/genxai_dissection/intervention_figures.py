"""Figures of interventions: before and after, effects with intervals, dose curves, alpha, pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from genxai_core.plots import COLOURS, DASHES, FRAME, INK, image_rows, more

from .intervened import STATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .intervened import Intervention

MOST = 24
"""Of more concepts, those with the largest effects are drawn; of more units, the first ones."""

CONTROL = "#777777"
"""The colour of random units."""


def images_figure(found: Intervention, *, title: str = "") -> Figure:
    """Draw samples in three rows: unedited, with the units off, with them put in."""
    assert found.before is not None
    assert found.ablated is not None
    assert found.inserted is not None
    images = torch.stack([found.before, found.ablated, found.inserted])
    names = [""] * len(found.before)
    units = f"{len(found.chosen)} unit{'s' if len(found.chosen) > 1 else ''}"
    rows = ["unedited", f"{units} off", f"{units} put in"]
    return image_rows(images, found.value_range, rows=rows, columns=names, title=title)


def effects_figure(found: Intervention, *, title: str = "") -> Figure:
    """Draw each concept's share unedited, ablated and inserted, and beside it the effect, with intervals."""
    order = found.effects.abs().argsort(descending=True, stable=True)[:MOST].tolist()
    own = found.concepts.index(found.concept)
    order = [own, *(c for c in order if c != own)][:MOST]
    left_out = more(len(found.concepts) - len(order), "concepts")
    figure = Figure(figsize=(6.4, 1.05 + 0.32 * len(order) + (0.2 if left_out else 0)), facecolor="white")
    left, right = figure.subplots(1, 2, sharey=True)
    at = np.arange(len(order))
    for i, (state, colour, marker) in enumerate(zip(STATES, (INK, COLOURS[1], COLOURS[0]), "osD")):
        shown, ends = found.shares[i, order].numpy(), found.share_intervals[i, order].numpy()
        _bars(left, shown, ends, at + 0.22 * (i - 1), colour, marker, state)
    _bars(right, found.effects[order].numpy(), found.effect_intervals[order].numpy(), at, INK, "o", "")
    right.axvline(0, color=FRAME, linewidth=1, zorder=0)
    names = [found.concepts[c] for c in order]
    left.set_yticks(at, names, fontsize=8, color=INK, parse_math=False)
    left.get_yticklabels()[0].set_fontweight("bold")
    left.set_ylim(len(order) - 0.5, -0.5)
    left.set_xlim(left=0)
    above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "ncols": 3, "columnspacing": 0.8}
    left.legend(fontsize=7.5, frameon=False, handletextpad=0.1, **above)
    for axis, label in ((left, "share of pixels"), (right, "effect: inserted less ablated")):
        _style(axis, label, "")
    _finish(figure, title, left_out)
    return figure


def curve_figure(found: Intervention, *, title: str = "") -> Figure:
    """Draw what is left of the concept's share with the first 0, 1, … n units of each order off."""
    c = found.concepts.index(found.concept)
    base = float(found.shares[0, c])
    figure = Figure(figsize=(5.4, 2.9), facecolor="white")
    axis = figure.subplots()
    colours = iter(COLOURS)
    for name, dashes in zip(found.curves, DASHES * len(found.curves)):
        drawn = len(found.orders[name])
        control = name == "random"
        colour = CONTROL if control else next(colours)
        values = base + found.curves[name][:, c].numpy()
        ends = (base + found.curve_intervals[name][:, c].numpy()).clip(min=0)  # a share cannot be less
        steps = np.arange(len(values))
        label = f"{name}, mean of {drawn}" if drawn > 1 else name
        axis.fill_between(steps, ends[:, 0], ends[:, 1], color=colour, alpha=0.15, linewidth=0)
        style: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.7, "marker": "o", "markersize": 3}
        axis.plot(steps, values, label=label, **style)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylim(bottom=-0.02 * axis.get_ylim()[1])
    axis.legend(fontsize=8, frameon=False, title="order of units", title_fontsize=8, loc="best")
    _style(axis, "units off", f"share of pixels: {found.concept}")
    _finish(figure, title)
    return figure


def alpha_figure(found: Intervention, *, title: str = "") -> Figure:
    """Draw alpha, largest first, the set's units marked, and the search for it."""
    assert found.alpha is not None
    alpha, chosen = found.alpha.tolist(), set(found.chosen.tolist())
    order = sorted(range(len(alpha)), key=lambda unit: (-alpha[unit], unit not in chosen, unit))[:MOST]
    figure = Figure(figsize=(6.8, 2.5), facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    colours = [COLOURS[0] if unit in chosen else FRAME for unit in order]
    left.bar(range(len(order)), found.alpha[order].numpy(), color=colours)
    left.set_xticks(range(len(order)), [str(u) for u in order], rotation=90, fontsize=7, color=INK)
    left.set_ylim(0, 1.02)
    left.legend(handles=[Patch(color=COLOURS[0], label="in the set")], fontsize=7.5, frameon=False, loc="upper right")
    of = "" if len(order) == len(found.alpha) else f", {len(order)} of {len(found.alpha)}"
    _style(left, f"unit{of}", "alpha")
    if found.history is not None:
        right.plot(np.arange(1, len(found.history) + 1), found.history.numpy(), color=COLOURS[0], linewidth=1.2)
    _style(right, "step", "effect / share unedited")
    _finish(figure, title)
    return figure


def pairs_figure(found: Intervention, *, title: str = "") -> Figure:
    """Draw the drop with either unit of a pair off, the two added up, and with both off; the largest excess first."""
    assert found.pairs is not None
    assert found.drops is not None
    assert found.excess_intervals is not None
    shown = min(12, len(found.pairs))
    drops, at = found.drops[:shown].numpy(), np.arange(shown)
    added = drops[:, :2].sum(1)
    left_out = more(len(found.pairs) - shown, "pairs")
    figure = Figure(figsize=(5.6, 0.85 + 0.27 * shown + (0.2 if left_out else 0)), facecolor="white")
    axis = figure.subplots()
    axis.barh(at - 0.18, drops[:, 0], 0.32, color=COLOURS[5], label="the first off")
    axis.barh(at - 0.18, drops[:, 1], 0.32, left=drops[:, 0], color=COLOURS[4], label="the second off, added")
    ends = added[:, None] + found.excess_intervals[:shown].numpy()
    spread = np.abs(ends - drops[:, 2:]).T
    axis.barh(at + 0.18, drops[:, 2], 0.32, xerr=spread, color=COLOURS[0], ecolor=INK, label="both off")
    names = [f"{u} + {v}" for u, v in found.pairs[:shown].tolist()]
    axis.set_yticks(at, names, fontsize=8, color=INK)
    axis.set_ylim(shown - 0.5, -0.5)
    axis.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _style(axis, f"drop of the share of pixels: {found.concept}", "")
    _finish(figure, title, left_out)
    return figure


def _bars(
    axis: Axes, values: np.ndarray, ends: np.ndarray, at: np.ndarray, colour: str, marker: str, label: str
) -> None:
    spread = np.abs(ends - values[:, None]).T
    axis.errorbar(
        values, at, xerr=spread, fmt=marker, color=colour, markersize=4, elinewidth=1.2, capsize=2, label=label
    )


def _style(axis: Axes, across: str, up: str) -> None:
    axis.set_xlabel(across, fontsize=8, color=INK, parse_math=False)
    axis.set_ylabel(up, fontsize=8, color=INK, parse_math=False)
    axis.tick_params(labelsize=8, colors=INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axis.spines[side].set_color(FRAME)
    axis.set_axisbelow(True)
    axis.grid(alpha=0.25, linewidth=0.5)


def _finish(figure: Figure, title: str, left_out: str = "") -> None:
    if title:
        figure.suptitle(title, fontsize=9.5, color=INK, parse_math=False)
    if left_out:
        figure.text(0.5, 0.01, left_out, ha="center", va="bottom", fontsize=8, color=INK)
    figure.tight_layout(rect=(0, 0.2 / figure.get_figheight() if left_out else 0, 1, 1))
