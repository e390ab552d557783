"""Edits of units: how much is left of each, what is added, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .canvas import COLOURS, FRAME, INK, more

if TYPE_CHECKING:
    from ..results import UnitEdits

_LAYERS = 8

_LABELS = 32
"""Units whose numbers have room below a panel; of more, every so many is labelled."""


def edit_figure(edits: UnitEdits, *, title: str = "") -> Figure:
    """Draw, per layer, the edited units' factors, inserted values, and where they act; of many layers the first eight.

    Parameters
    ----------
    edits
        At least one.
    title
        Above everything.
    """
    layers = dict(list(edits.by_layer().items())[:_LAYERS])
    widths = [4.0] + ([4.0] if edits.values is not None else []) + ([1.4] if edits.locations is not None else [])
    figure = Figure(figsize=(sum(widths) + 0.8, 1.8 * len(layers) + 0.4), facecolor="white", layout="constrained")
    panels = figure.subplots(len(layers), len(widths), squeeze=False, width_ratios=widths)
    for row, (layer, rows) in zip(panels, layers.items()):
        units = [int(edits.units[i]) for i in rows]
        _bars(row[0], units, [float(edits.factors[i]) for i in rows], 1.0, COLOURS[0])
        row[0].set_title(f"{layer}: factor (1 is unchanged)", fontsize=8.5, color=INK, parse_math=False)
        if edits.values is not None:
            _bars(row[1], units, [float(edits.values[i]) for i in rows], 0.0, COLOURS[1])
            row[1].set_title("value added", fontsize=8.5, color=INK)
        if edits.locations is not None:
            share = edits.locations[rows].float().mean(0).cpu().numpy()
            row[-1].imshow(share, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
            row[-1].set_title(f"where: {share.mean():.0%}", fontsize=8.5, color=INK)
            row[-1].set_xticks([])
            row[-1].set_yticks([])
    if left_out := more(len(edits.by_layer()) - len(layers), "layers"):
        figure.supxlabel(left_out, fontsize=8.5, color=INK)
    if title:
        figure.suptitle(title, fontsize=9.5, color=INK, parse_math=False)
    return figure


def _bars(axis: Axes, units: list[int], heights: list[float], base: float, colour: str) -> None:
    """Draw each unit's number as a bar that starts where nothing would be changed."""
    places = range(len(units))
    axis.bar(places, [height - base for height in heights], bottom=base, color=colour, width=0.7)
    axis.plot(places, heights, "o", color=colour, markersize=3)  # a bar of no height is seen too
    axis.axhline(base, color=INK, linewidth=0.7)
    axis.axhline(0, color=FRAME, linewidth=0.7, zorder=0)  # so that half is seen as half
    step = -(-len(units) // _LABELS)
    axis.set_xticks(list(places)[::step], [str(unit) for unit in units[::step]], rotation=90 if len(units) > 12 else 0)
    axis.set_xlabel("unit", fontsize=8, color=INK)
    axis.set_xlim(-0.6, max(len(units), 6) - 0.4)
    axis.tick_params(labelsize=7.5, colors=INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axis.spines[side].set_color(FRAME)
