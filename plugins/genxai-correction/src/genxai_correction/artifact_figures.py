"""Pictures of scores of artifact units: score against effect, and where broken samples are broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from genxai_core.plots.canvas import COLOURS, FRAME, INK, shorten, surface, tile, to_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .artifact_units import ArtifactUnitScores

NAMED = 6
"""Units per layer that are named: those of the largest effects, and of the best scores."""

ACROSS, MOST = 3, 9
"""Layers side by side, and layers that are drawn."""

SIDE, GAP = 1.0, 0.06
"""Inches: an image's width, and the space between two."""


def effect_figure(found: ArtifactUnitScores, *, title: str = "") -> Figure:
    """Draw, per layer, each checked unit's score against its effect; of more than nine layers, the first nine."""
    layers = [layer for layer in found.layers if layer in found.effects][:MOST]
    wide = min(ACROSS, len(layers))
    high = -(-len(layers) // wide)
    figure = Figure(figsize=(0.6 + 3.1 * wide, 0.4 + 2.5 * high), facecolor="white", layout="constrained")
    panels = figure.subplots(high, wide, squeeze=False, sharey=True, sharex=True)
    causing = set(found.causes())
    for at, axes in enumerate(panels.flat):
        if at < len(layers):
            _panel(axes, found, layers[at], {unit for layer, unit in causing if layer == layers[at]})
            if at % wide == 0:
                axes.set_ylabel("change of P(artifact) when off", fontsize=8, color=INK)
            if at + wide >= len(layers):
                axes.set_xlabel(found.measure, fontsize=8, color=INK)
        else:
            axes.set_axis_off()
    panels[0, 0].legend(fontsize=7, frameon=False, loc="lower left")
    if title:
        figure.suptitle(title, fontsize=9.5, color=INK, parse_math=False)
    return figure


def _panel(axes: Axes, found: ArtifactUnitScores, layer: str, causing: set[int]) -> None:
    effect, ends = found.effects[layer].double().numpy(), found.effect_intervals[layer].double().numpy()
    score = found.scores[layer][:, 0].double().numpy()
    checked = found.checked[layer].numpy()
    causes = np.array([unit in causing for unit in range(len(score))], dtype=bool)
    axes.axhline(0, color=FRAME, linewidth=0.8)
    for chosen, colour, name in ((~causes, COLOURS[0], "no effect alone"), (causes, COLOURS[1], "causes")):
        rows = checked & chosen
        axes.vlines(score[rows], ends[rows, 0], ends[rows, 1], color=colour, linewidth=0.7, alpha=0.6)
        axes.scatter(score[rows], effect[rows], s=11, color=colour, label=name, zorder=3)
    units = np.flatnonzero(checked)
    named = {*units[effect[units].argsort(kind="stable")][:NAMED].tolist()} & causing
    best = units[(-score[units]).argsort(kind="stable")][:NAMED]
    named |= {int(unit) for unit in best if score[unit] > score.max() / 2}
    places: dict[tuple[float, float], list[int]] = {}
    for unit in sorted(named):
        places.setdefault((round(float(score[unit]), 2), round(float(effect[unit]), 3)), []).append(unit)
    for at, here in places.items():
        axes.annotate(", ".join(map(str, here)), at, (3, 2), textcoords="offset points", fontsize=6, color=INK)
    axes.set_title(shorten(layer, 28), fontsize=8.5, color=INK, parse_math=False)
    axes.tick_params(labelsize=7, colors=INK)
    axes.margins(0.08)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def examples_figure(found: ArtifactUnitScores, *, columns: int = 8, title: str = "") -> Figure | None:
    """Draw the broken samples that were kept, their masks outlined; None if none were."""
    if found.images is None or found.masks is None or not len(found.images):
        return None
    pixels = to_pixels(found.images, found.value_range)
    tall = SIDE * pixels.shape[1] / pixels.shape[2]
    wide = min(columns, len(pixels))
    lines = -(-len(pixels) // wide)
    top = 0.3 if title else 0.05
    figure, canvas = surface(wide * (SIDE + GAP) + GAP, top + lines * (tall + GAP), title)
    for i, image in enumerate(pixels):
        x, y = GAP + i % wide * (SIDE + GAP), top + i // wide * (tall + GAP)
        tile(canvas, image, x, y, SIDE, tall)
        _outline(canvas, found.masks[i, 0].numpy(), x, y, SIDE, tall)
    return figure


def _outline(canvas: Axes, region: np.ndarray, x: float, y: float, wide: float, high: float) -> None:
    """Draw the border of a region ``[H, W]`` along the edges of its pixels, dark below bright."""
    rows, columns = region.shape
    across, down = wide / columns, high / rows
    padded = np.pad(region, 1)
    lines = [
        [(x + j * across, y + i * down), (x + (j + 1) * across, y + i * down)]
        for i, j in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])
    ]
    lines += [
        [(x + j * across, y + i * down), (x + j * across, y + (i + 1) * down)]
        for i, j in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    ]
    for width, colour in ((2.0, "black"), (1.0, COLOURS[4])):
        canvas.add_collection(LineCollection(lines, colors=colour, linewidths=width, capstyle="projecting"))
