"""What all figures share: colours, tiles and text on a drawing surface in inches, and the way out as PNG or HTML."""

from __future__ import annotations

import base64
import html as html_text
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

if TYPE_CHECKING:
    from torch import Tensor

DIVERGING = "RdBu_r"
"""ColorBrewer's red-white-blue: safe for the common forms of colour blindness, white at zero. Red speaks for."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette."""

INK = "#333333"
FRAME = "#BBBBBB"
NOT_FINITE = "#777777"

TILE = 1.05
GAP = 0.07
LINE = 0.19
"""Inches: a map's side, the space between two, and the height of a line of text."""


def to_pixels(images: Tensor, value_range: tuple[float, float]) -> np.ndarray:
    """Convert images ``[N, C, H, W]`` to ``[N, H, W, 3]`` in [0, 1]; gray is repeated, further channels dropped.

    What is not a number gets a middle gray.
    """
    low, high = value_range
    scaled = (
        ((images.detach().cpu().float() - low) / (high - low)).clamp(0, 1).nan_to_num(int(NOT_FINITE[1:3], 16) / 255)
    )
    if scaled.shape[1] < 3:
        scaled = scaled[:, :1].repeat(1, 3, 1, 1)
    return np.asarray(scaled[:, :3].permute(0, 2, 3, 1).numpy())


def surface(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Return a figure with one set of axes whose unit is the inch, y downwards: one artist per tile, no subplots."""
    figure = Figure(figsize=(width, height), facecolor="white")
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set_axis_off()
    canvas.set_xlim(0, width)
    canvas.set_ylim(height, 0)
    if title:
        write(canvas, title, width / 2, 0.05, size=9.5)
    return figure, canvas


def tile(canvas: Axes, values: np.ndarray, x: float, y: float, wide: float, high: float, **colours: Any) -> None:
    """Draw an image or a plane of values at a place, with a frame round it."""
    # Few pixels are shown as the squares that they are; many are averaged down, since "nearest" would drop some.
    interpolation = "nearest" if max(values.shape[:2]) <= 64 else "antialiased"
    extent = (x, x + wide, y + high, y)
    canvas.imshow(values, extent=extent, aspect="auto", interpolation=interpolation, **colours)
    frame = mpl.patches.Rectangle((x, y), wide, high, fill=False, edgecolor=FRAME, linewidth=0.5)
    canvas.add_patch(frame)


def write(
    canvas: Axes,
    text: str,
    x: float,
    y: float,
    *,
    size: float = 7.5,
    across: str = "center",
    down: str = "top",
    colour: str = INK,
) -> None:
    """Write a text at a place, literally."""
    canvas.text(x, y, text, ha=across, va=down, fontsize=size, color=colour, parse_math=False)


def shorten(text: str, length: int) -> str:
    """Cut a text that is longer, and show that."""
    return text if len(text) <= length else text[: max(1, length - 1)] + "…"


def more(hidden: int, what: str = "") -> str:
    """Say how many are not drawn; nothing if all are."""
    return f"… and {hidden} more {what}".strip() if hidden > 0 else ""


def some(names: Sequence[str], most: int = 8) -> str:
    """Return the first names, and how many more there are."""
    return " ".join(filter(None, (", ".join(names[:most]), more(len(names) - most))))


def wrap(name: str, length: int) -> str:
    """Break a name after ``_``, ``-`` or a blank, else where it is full; at most three lines."""
    lines = [""]
    for part in name.replace("_", "_\0").replace("-", "-\0").replace(" ", " \0").split("\0"):
        if len(lines[-1]) + len(part) > length and lines[-1]:
            lines.append("")
        lines[-1] += part
    if len(lines) > 3:
        lines[2] = f"{lines[2].strip()[: length - 1]}…"
    return "\n".join(shorten(line.strip(), length) for line in lines[:3])


def width_of(text: str, size: float = 7.5) -> float:
    """Return how wide a text is, in inches."""
    if not text.strip():
        return 0.0
    return float(TextPath((0, 0), literal(text), size=size).get_extents().width) / 72


def number(value: float) -> str:
    """Write two digits, without an exponent where the number is of everyday size."""
    if 1e-4 <= value < 1e5:
        return np.format_float_positional(value, 2, unique=False, fractional=False, trim="-").removesuffix(".")
    return f"{value:.1e}"


def diverging() -> Any:
    """Return the map of signed values, with a gray of its own for what is not finite."""
    return mpl.colormaps[DIVERGING].with_extremes(bad=NOT_FINITE)


def colour_bar(figure: Figure, x: float, y: float, high: float, meaning: tuple[str, str]) -> None:
    """Draw the scale of signed values, with words for its ends."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((x / width, 1 - (y + high) / height, 0.1 / width, high / height))
    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), diverging()), cax=axes, ticks=[-1, 0, 1])
    low, top = meaning
    bar.ax.set_yticklabels([low, "0", top], fontsize=8, color=INK, parse_math=False)
    bar.ax.tick_params(length=2, color=FRAME)
    bar.outline.set_edgecolor(FRAME)
    bar.outline.set_linewidth(0.6)


def literal(text: str) -> str:
    """Keep matplotlib from reading ``$…$`` in a name as mathematics."""
    return text.replace("$", r"\$")


# -- out --------------------------------------------------------------------------------------------------------


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Render a figure. Metadata that would change with the library's version are left out."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def html(figure: Figure | None, caption: str) -> str:
    """Return a figure and a caption as HTML for a notebook."""
    text = html_text.escape(caption)
    if figure is None:
        return f"<p>{text}</p>"
    source = base64.b64encode(png(figure)).decode()
    return f'<img alt="{text}" src="data:image/png;base64,{source}"/><p>{text}</p>'
