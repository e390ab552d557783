"""Figures of a correction: all candidates, and images before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from genxai_core.plots import COLOURS, FRAME, INK, before_after

if TYPE_CHECKING:
    from torch import Tensor

    from .correction import Correction


def candidates_figure(found: Correction, *, title: str = "") -> Figure:
    """Draw the artifact rate of every candidate against its collateral, both in percent, with intervals."""
    figure = Figure(figsize=(5.8, 3.2), facecolor="white", layout="constrained")
    axis = figure.subplots()
    x, y = found.collaterals.double().numpy(), found.rates.double().numpy()
    across = np.abs(found.collateral_intervals.double().numpy() - x[:, None]).T
    up = np.abs(found.rate_intervals.double().numpy() - y[:, None]).T
    allowed = found.allowed.numpy()
    for chosen, face, label in ((allowed, COLOURS[0], "within the bound"), (~allowed, "white", "beyond it")):
        if chosen.any():
            axis.errorbar(
                x[chosen],
                y[chosen],
                xerr=across[:, chosen],
                yerr=up[:, chosen],
                fmt="o",
                label=label,
                color=COLOURS[0],
                markerfacecolor=face,
                markersize=4,
                elinewidth=0.5,
                ecolor=FRAME,
            )
    if found.chosen is not None:
        i = found.chosen
        axis.plot(x[i], y[i], "D", color=COLOURS[1], markersize=8, label="chosen", zorder=3)
    axis.axhline(found.unedited, color=INK, linewidth=0.9, linestyle="--", label="without edits")
    axis.axvline(found.bound, color=INK, linewidth=0.9, linestyle=":", label="bound")
    axis.set_xlim(left=-0.03 * max(float(x.max()), found.bound))
    axis.set_ylim(bottom=-0.02)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_xlabel("mean change of samples that were fine, of the value range", fontsize=8.5, color=INK)
    axis.set_ylabel("held-out samples called broken", fontsize=8.5, color=INK)
    axis.tick_params(labelsize=8, colors=INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    if title:
        axis.set_title(title, fontsize=9.5, color=INK, parse_math=False)
    return figure


def pairs_figure(before: Tensor | None, after: Tensor | None, value_range: tuple[float, float]) -> Figure | None:
    """Draw images above what became of them, and the change; None if none were kept."""
    if before is None or after is None or not len(before):
        return None
    return before_after(before, after, value_range, names=("before", "corrected"))
