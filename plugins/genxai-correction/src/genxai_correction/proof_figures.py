"""Figures of a proof: the arms side by side, a panel for each measure, and pairs of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure

from genxai_core.plots import COLOURS, FRAME, INK, image_grid

from .proof import CORRECTED, MORE_IS_BETTER, MOST_ACTIVE, UNCORRECTED

if TYPE_CHECKING:
    from .proof import Proof

COLUMNS = 4
"""Panels in a row."""

ACROSS = 10
"""Pairs in a row."""

RANDOM = "#777777"
ARMS = {UNCORRECTED: (INK, "o"), CORRECTED: (COLOURS[0], "D"), MOST_ACTIVE: (COLOURS[1], "s")}
"""Colour and marker of each arm; those of the random controls are gray."""


def arms_figure(found: Proof, *, title: str = "") -> Figure:
    """Draw a panel for each measure, in which every arm has a row: its value with its interval."""
    columns = min(COLUMNS, len(found.measures))
    lines = -(-len(found.measures) // columns)
    figure = Figure(figsize=(1.2 + 2.0 * columns, 0.3 + (0.75 + 0.2 * len(found.arms)) * lines), facecolor="white")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    at = np.arange(len(found.arms))
    for number, panel in enumerate(panels.flat):
        if number >= len(found.measures):
            panel.set_visible(False)
            continue
        name = found.measures[number]
        for row, arm in enumerate(found.arms):
            colour, marker = ARMS.get(arm, (RANDOM, "^"))
            value, low, high = found.value(name, arm)
            panel.plot((low, high), (row, row), color=colour, linewidth=1.4, solid_capstyle="butt")
            panel.plot(value, row, marker, color=colour, markersize=4.5)
        panel.set_title(f"{name} {'↑' if MORE_IS_BETTER.get(name, False) else '↓'}", fontsize=8.5, color=INK)
        panel.axvline(found.value(name, UNCORRECTED)[0], color=FRAME, linewidth=0.8, linestyle="--", zorder=0)
        panel.set_yticks(at, found.arms, fontsize=8, color=INK, parse_math=False)
        panel.set_ylim(len(found.arms) - 0.5, -0.5)
        panel.locator_params(axis="x", nbins=4)
        panel.tick_params(labelsize=7, colors=INK)
        panel.set_axisbelow(True)
        panel.grid(axis="x", alpha=0.25, linewidth=0.5)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
        for side in ("bottom", "left"):
            panel.spines[side].set_color(FRAME)
    if title:
        figure.suptitle(title, fontsize=9.5, color=INK, parse_math=False)
    figure.tight_layout()
    return figure


def pairs_figure(found: Proof, *, title: str = "") -> Figure:
    """Draw pairs in rows of ten, each image uncorrected and below it corrected, with P(artifact) under both."""
    assert found.numbers is not None
    assert found.before is not None
    assert found.after is not None
    n = len(found.numbers)
    across = -(-n // -(-n // ACROSS))  # rows as equal as can be
    broken = (found.probabilities[0] > found.above).nonzero()[:n, 0]
    chances = found.probabilities[:2, broken]
    pieces, labels = [], []
    for first in range(0, n, across):
        rows = slice(first, min(first + across, n))
        pad = across - len(found.before[rows])
        blank = found.before.new_full((pad, *found.before.shape[1:]), found.value_range[1])
        pieces += [found.before[rows], blank, found.after[rows], blank]
        labels += [f"{p:.2f}" for p in chances[0, rows].tolist()] + [""] * pad
        labels += [f"→ {p:.2f}" for p in chances[1, rows].tolist()] + [""] * pad
    return image_grid(torch.cat(pieces), found.value_range, labels=labels, columns=across, title=title)
