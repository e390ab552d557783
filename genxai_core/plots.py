"""The figures: image grids, attribution maps, training curves. One style, readable by the colour-blind."""

from __future__ import annotations

import base64
import html as html_text
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from torch import Tensor

    from .explanation import Attribution

DIVERGING = "RdBu_r"
"""ColorBrewer's red-white-blue: safe for the common forms of colour blindness, white at zero. Red speaks for."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette."""

INK = "#333333"


def to_pixels(images: Tensor, value_range: tuple[float, float]) -> np.ndarray:
    """Convert images ``[N, C, H, W]`` to ``[N, H, W, 3]`` in [0, 1]; gray is repeated, further channels dropped."""
    low, high = value_range
    scaled = ((images.detach().cpu().float() - low) / (high - low)).clamp(0, 1)
    if scaled.shape[1] < 3:
        scaled = scaled[:, :1].repeat(1, 3, 1, 1)
    return np.asarray(scaled[:, :3].permute(0, 2, 3, 1).numpy())


def image_grid(
    images: Tensor,
    value_range: tuple[float, float],
    *,
    labels: Sequence[str] | None = None,
    title: str = "",
    columns: int = 0,
) -> Figure:
    """Draw images in a grid as one picture, with their labels where there are few enough to be read.

    Parameters
    ----------
    images
        ``[N, C, H, W]`` in ``value_range``.
    labels
        One text per image.
    title
        Above the grid.
    columns
        Images per row; 0 chooses up to 16.
    """
    pixels = to_pixels(images, value_range)
    n, height, width, _ = pixels.shape
    columns = columns or min(16, max(1, n))
    rows = -(-n // columns)
    labelled = labels is not None and n <= 64
    size = 0.62 if labelled else 0.55
    figure = Figure(figsize=(columns * size + 0.1, rows * (size * height / width + (0.22 if labelled else 0)) + 0.35))
    axes = np.atleast_2d(figure.subplots(rows, columns, squeeze=False))
    for i, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if i < n:
            axis.imshow(pixels[i], interpolation="nearest")
            if labelled and labels is not None:
                axis.set_title(labels[i], fontsize=6.5, pad=1.5, color=INK)
    top = 1 - 0.3 / figure.get_figheight() if title else 0.995
    figure.subplots_adjust(0.005, 0.005, 0.995, top, wspace=0.06, hspace=0.3 if labelled else 0.06)
    if title:
        figure.suptitle(title, fontsize=9, color=INK, y=0.995, va="top")
    return figure


def attribution_figure(attribution: Attribution, *, n: int = 8, title: str = "") -> Figure:
    """Draw images above their signed maps. Each map has its own scale, symmetric about zero and written below it."""
    n = min(n, len(attribution))
    maps = attribution.maps[:n].detach().float()
    maps = maps.sum(1) if maps.ndim == 4 else maps
    values = maps.numpy()
    with_images = attribution.images is not None
    rows = 2 if with_images else 1
    figure = Figure(figsize=(n * 1.05 + 0.75, rows * 1.05 + 0.75))
    axes = figure.subplots(rows, n, squeeze=False)
    if with_images and attribution.images is not None:
        pixels = to_pixels(attribution.images[:n], attribution.value_range)
        for i in range(n):
            axes[0, i].imshow(pixels[i], interpolation="nearest")
            if attribution.logits is not None:
                axes[0, i].set_title(f"logit {float(attribution.logits[i]):+.2f}", fontsize=7, pad=2, color=INK)
    drawn = None
    for i in range(n):
        limit = float(np.abs(values[i]).max()) or 1.0
        drawn = axes[-1, i].imshow(values[i] / limit, cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest")
        axes[-1, i].set_xlabel(f"±{limit:.2g}", fontsize=7, labelpad=2, color=INK)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_color("#BBBBBB")
    height = figure.get_figheight()
    figure.subplots_adjust(0.01, 0.24 / height, 1 - 0.72 / figure.get_figwidth(), 1 - 0.45 / height, wspace=0.08, hspace=0.06)
    if drawn is not None:
        box = axes[-1, -1].get_position()
        bar = figure.colorbar(drawn, cax=figure.add_axes((box.x1 + 0.012, box.y0, 0.012, box.height)), ticks=[-1, 0, 1])
        bar.ax.set_yticklabels(["against", "0", "for"], fontsize=7, color=INK)
        bar.outline.set_visible(False)
    figure.suptitle(title, fontsize=9, color=INK, y=0.99, va="top")
    return figure


def curves(history: Mapping[str, Sequence[float]], *, title: str = "") -> Figure:
    """Draw every series of a training history over its steps, thin as measured and bold as a running mean."""
    steps = np.asarray(history.get("step", range(len(next(iter(history.values()))))), dtype=float)
    figure = Figure(figsize=(6.4, 2.6))
    axis = figure.subplots()
    series = {k: np.asarray(v, dtype=float) for k, v in history.items() if k not in ("step", "seconds")}
    for colour, (name, values) in zip(COLOURS * 4, series.items()):
        window = max(1, len(values) // 25)
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.7)
        axis.plot(steps[window - 1 :], smooth, color=colour, linewidth=1.6, label=name.replace("_", " "))
    axis.set_xlabel("step", fontsize=8, color=INK)
    axis.tick_params(labelsize=7, colors=INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    if title:
        axis.set_title(title, fontsize=9, color=INK)
    figure.tight_layout()
    return figure


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Render a figure. Metadata that would change with the library's version are left out."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def html(figure: Any, caption: str) -> str:
    """Return a figure and a caption as HTML for a notebook."""
    text = f"<p>{html_text.escape(caption)}</p>"
    if figure is None:
        return text
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(png(figure)).decode()}"/>{text}'
