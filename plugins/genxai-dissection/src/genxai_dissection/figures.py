"""Pictures of a dissection: what the best units of a concept draw, and which layer has units for which concept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from genxai_core.plots.canvas import COLOURS, INK, shorten, surface, tile, to_pixels, width_of, write
from genxai_core.plots.heat import headline, heat, place, scale_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .dissection import Dissection

SIDE, GAP = 0.9, 0.05
"""Inches: an image's width, and the space between two."""

OUTLINE = COLOURS[4]


def concept_figure(found: Dissection, concept: str, *, most: int = 4, title: str = "") -> Figure | None:
    """Draw the best units of a concept, one row each: the images that excite it most, its region outlined."""
    rows = found.of_concept(concept, most)
    if not rows or found.images is None:
        return None
    pixels = to_pixels(found.images, found.value_range)
    at = found.concepts.index(concept)
    texts = []
    for layer, row in rows:
        unit = int(found.shown[layer][row])
        score = f"IoU {float(found.scores[layer][unit, at]):.3f}"
        if found.intervals is not None:
            low, high = found.intervals[layer][unit, at].tolist()
            score += f" [{low:.3f}, {high:.3f}]"
        texts.append((f"{shorten(layer, 24)}: unit {unit}", score))
    margin = 0.15 + max(width_of(line) for pair in texts for line in pair)
    columns = max(found.examples[layer].shape[1] for layer, _ in rows)
    high = SIDE * pixels.shape[1] / pixels.shape[2]
    top = 0.3 if title else 0.05
    figure, canvas = surface(margin + columns * (SIDE + GAP), top + len(rows) * (high + GAP), title)
    for line, ((layer, row), (name, score)) in enumerate(zip(rows, texts)):
        y = top + line * (high + GAP)
        write(canvas, name, margin - 0.08, y + high / 2 - 0.14, across="right")
        write(canvas, score, margin - 0.08, y + high / 2 + 0.02, across="right")
        for column, image in enumerate(found.examples[layer][row].tolist()):
            x = margin + column * (SIDE + GAP)
            tile(canvas, pixels[image], x, y, SIDE, high)
            outline(canvas, found.regions[layer][row, column].numpy(), x, y, SIDE, high)
    return figure


def outline(
    canvas: Axes, region: np.ndarray, x: float, y: float, wide: float, high: float, bright: str = OUTLINE
) -> None:
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
    for width, colour in ((2.2, "black"), (1.1, bright)):
        canvas.add_collection(LineCollection(lines, colors=colour, linewidths=width, capstyle="projecting"))


def layer_figure(found: Dissection, *, cut: float = 0.05, title: str = "") -> Figure:
    """Draw layers × concepts: how many units of the layer are best for the concept, with an IoU of at least a cut."""
    counts = np.zeros((len(found.layers), len(found.concepts)))
    for score in found.best():
        if score.score >= cut:
            counts[found.layers.index(score.layer), found.concepts.index(score.concept)] += 1
    rows = [f"{shorten(layer, 24)} ({len(found.scores[layer])})" for layer in found.layers]
    columns = [shorten(concept, 24) for concept in found.concepts]
    margin, top = 0.2 + max(map(width_of, rows)), 0.4 if title else 0.12
    wide, high = max(1.5, min(0.5 * len(columns), 9.0)), max(0.9, 0.32 * len(rows))
    below = 0.2 + max(map(width_of, columns))
    figure = Figure(figsize=(margin + wide + 0.95, top + high + below), facecolor="white")
    scale: Any = ScalarMappable(Normalize(0, max(1.0, float(counts.max()))), mpl.colormaps["Blues"])
    axes = place(figure, margin, top, wide, high)
    heat(axes, counts, scale, rows=rows, columns=columns, numbers=False)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if count > counts.max() / 2 else INK
        axes.text(column, row, f"{count:.0f}", ha="center", va="center", fontsize=7, color=colour)
    scale_bar(figure, scale, margin + wide + 0.12, top, high, "units")
    headline(figure, title)
    return figure
