"""The figures: image grids, attribution maps, training curves. One style, readable by the colour-blind."""

from __future__ import annotations

import base64
import html as html_text
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from .errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from .explanation import Attribution

DIVERGING = "RdBu_r"
"""ColorBrewer's red-white-blue: safe for the common forms of colour blindness, white at zero. Red speaks for."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette."""

DASHES: tuple[Any, ...] = ("-", (0, (4, 3)), (0, (1.2, 2)), (0, (7, 2, 1.2, 2)))
"""Styles of lines that are compared: where several coincide, the lower ones show through the gaps of the upper."""

MEANING = ("against", "for")
"""What the ends of a map's scale mean, unless the attribution's notes say it under ``meaning``."""

INK = "#333333"
FRAME = "#BBBBBB"
NOT_FINITE = "#777777"

_NOT_SERIES = ("step", "seconds")
_TILE = 1.05
_GAP = 0.07
_LINE = 0.19
"""Inches: a map's side, the space between two, and the height of a line of text."""


def to_pixels(images: Tensor, value_range: tuple[float, float]) -> np.ndarray:
    """Convert images ``[N, C, H, W]`` to ``[N, H, W, 3]`` in [0, 1]; gray is repeated, further channels dropped."""
    low, high = value_range
    scaled = ((images.detach().cpu().float() - low) / (high - low)).clamp(0, 1)
    if scaled.shape[1] < 3:
        scaled = scaled[:, :1].repeat(1, 3, 1, 1)
    return np.asarray(scaled[:, :3].permute(0, 2, 3, 1).numpy())


# -- pictures of images -----------------------------------------------------------------------------------------


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
        One text per image; left out above 64 images.
    title
        Above the grid.
    columns
        Images per row; 0 chooses up to 8.

    Raises
    ------
    InputError
        If there are no images.
    """
    pixels = to_pixels(images, value_range)
    n, height, width, _ = pixels.shape
    if n == 0:
        raise InputError("there are no images to draw")
    columns = columns or min(8, n)
    shown = labels if labels is not None and n <= 64 else None
    wide = min(1.1, max(0.6, 5.0 / columns))
    high = wide * height / width
    pitch = high + (_LINE if shown is not None else 0.04)
    top = 0.3 if title else 0.02
    figure, canvas = _canvas(columns * (wide + 0.04), top + -(-n // columns) * pitch, title)
    for i in range(n):
        x, y = (i % columns) * (wide + 0.04) + 0.02, top + (i // columns) * pitch
        _tile(canvas, pixels[i], x, y, wide, high)
        if shown is not None:
            text = _shorten(shown[i], int(wide * 13))
            _write(canvas, text, x + wide / 2, y + high + 0.02)
    return figure


def attribution_figure(attribution: Attribution, *, n: int = 8, title: str = "") -> Figure:
    """Draw the first n images above their signed maps; see `attribution_rows`."""
    return attribution_rows({"": attribution}, n=n, title=title)


def attribution_rows(attributions: Mapping[str, Attribution], *, n: int = 8, title: str = "") -> Figure:
    """Draw images once, and below them one row of signed maps per attribution of these images.

    Each map has its own scale, symmetric about zero, so white is zero and equal strength for and against have equal
    contrast; the largest magnitude is written below the map. Maps per channel are summed over the channels. A colour
    bar says what the ends of the scale mean, again where a row's meaning is another than that of the row above.

    Parameters
    ----------
    attributions
        By the name that stands at the left of their row, all for the same images. One without a name has no margin.
        For a map that does not speak for or against a target, ``notes["meaning"]`` names the lower and the upper end
        of its scale, such as ``("less active", "more active")``.
    n
        How many images.
    title
        Above everything.

    Raises
    ------
    InputError
        If there is nothing to draw, or a ``meaning`` is not two texts.
    """
    first = next(iter(attributions.values()), None)
    if first is None or len(first) == 0 or n < 1:
        raise InputError("there are no maps to draw")
    n = min(n, *(len(a) for a in attributions.values()))
    high = _TILE * first.maps.shape[-2] / first.maps.shape[-1]
    left = 1.3 if any(attributions) else 0.03
    logits = [_logits(a, n) for a in attributions.values()]
    shared = first.images is not None and all(row == logits[0] for row in logits)
    lines = 1 if shared or not any(logits) else 2
    pitch = high + lines * 0.15 + (0.1 if len(attributions) > 1 else 0.04)
    meanings = [meaning_of(a) for a in attributions.values()]
    width = left + n * (_TILE + _GAP) + 0.25 + 0.07 * max(len(text) for ends in meanings for text in ends)
    top = (0.32 if title else 0.04) + (_LINE if shared and logits[0] else 0)
    maps_top = top + (high + _GAP if first.images is not None else 0)
    figure, canvas = _canvas(width, maps_top + len(attributions) * pitch, title)

    def at(i: int) -> float:
        return left + i * (_TILE + _GAP)

    if first.images is not None:
        pixels = to_pixels(first.images[:n], first.value_range)
        for i in range(n):
            _tile(canvas, pixels[i], at(i), top, _TILE, high)
            if shared and logits[0]:
                _write(canvas, f"logit {logits[0][i]}", at(i) + _TILE / 2, top - _LINE + 0.025)
    for row, (name, attribution) in enumerate(attributions.items()):
        y = maps_top + row * pitch
        if name:
            text = _wrap(name, 17)
            _write(canvas, text, left - 0.1, y + high / 2, size=8, across="right", down="center")
        for i, values in enumerate(_planes(attribution, n)):
            finite = np.abs(values[np.isfinite(values)])
            limit = float(finite.max()) if finite.size else 0.0
            _tile(canvas, values / (limit or 1.0), at(i), y, _TILE, high, cmap=_diverging(), vmin=-1, vmax=1)
            scale = f"±{_number(limit)}" if limit else "all zero"
            scale = scale if finite.size == values.size else "not finite"
            text = scale if shared or not logits[row] else f"{scale}\nlogit {logits[row][i]}"
            _write(canvas, text, at(i) + _TILE / 2, y + high + 0.025)
        if row == 0 or meanings[row] != meanings[row - 1]:
            _colour_bar(figure, at(n) + 0.03, y, min(high, 1.4), meanings[row])
    return figure


def meaning_of(attribution: Attribution) -> tuple[str, str]:
    """Return what the lower and the upper end of an attribution's scale mean.

    Raises
    ------
    InputError
        If its notes hold a ``meaning`` that is not two texts.
    """
    meaning = attribution.notes.get("meaning", MEANING)
    match meaning:
        case [str(low), str(high)]:
            return _shorten(low, 24), _shorten(high, 24)
    raise InputError(f"notes['meaning'] is {meaning!r}; give the scale's ends, such as ('less active', 'more active')")


def _planes(attribution: Attribution, n: int) -> np.ndarray:
    maps = attribution.maps[:n].detach().cpu().float()
    return np.asarray((maps.sum(1) if maps.ndim == 4 else maps).numpy())


def _logits(attribution: Attribution, n: int) -> list[str]:
    return [] if attribution.logits is None else [f"{float(v):+.2f}".replace("-", "−") for v in attribution.logits[:n]]


def _number(value: float) -> str:
    """Write two digits, without an exponent where the number is of everyday size."""
    if 1e-4 <= value < 1e5:
        return np.format_float_positional(value, 2, unique=False, fractional=False, trim="-").removesuffix(".")
    return f"{value:.1e}"


def _diverging() -> Any:
    return mpl.colormaps[DIVERGING].with_extremes(bad=NOT_FINITE)


def _colour_bar(figure: Figure, x: float, y: float, high: float, meaning: tuple[str, str]) -> None:
    width, height = figure.get_size_inches()
    axes = figure.add_axes((x / width, 1 - (y + high) / height, 0.1 / width, high / height))
    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), _diverging()), cax=axes, ticks=[-1, 0, 1])
    low, top = meaning
    bar.ax.set_yticklabels([low, "0", top], fontsize=8, color=INK, parse_math=False)
    bar.ax.tick_params(length=2, color=FRAME)
    bar.outline.set_edgecolor(FRAME)
    bar.outline.set_linewidth(0.6)


# -- a drawing surface in inches --------------------------------------------------------------------------------


def _canvas(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Return a figure with one set of axes whose unit is the inch, y downwards: one artist per tile, no subplots."""
    figure = Figure(figsize=(width, height), facecolor="white")
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set_axis_off()
    canvas.set_xlim(0, width)
    canvas.set_ylim(height, 0)
    if title:
        _write(canvas, title, width / 2, 0.05, size=9.5)
    return figure, canvas


def _tile(canvas: Axes, values: np.ndarray, x: float, y: float, wide: float, high: float, **colours: Any) -> None:
    # Few pixels are shown as the squares that they are; many are averaged down, since "nearest" would drop some.
    interpolation = "nearest" if max(values.shape[:2]) <= 64 else "antialiased"
    extent = (x, x + wide, y + high, y)
    canvas.imshow(values, extent=extent, aspect="auto", interpolation=interpolation, **colours)
    frame = mpl.patches.Rectangle((x, y), wide, high, fill=False, edgecolor=FRAME, linewidth=0.5)
    canvas.add_patch(frame)


def _write(
    canvas: Axes, text: str, x: float, y: float, *, size: float = 7.5, across: str = "center", down: str = "top"
) -> None:
    canvas.text(x, y, text, ha=across, va=down, fontsize=size, color=INK, parse_math=False)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(1, length - 1)] + "…"


def _wrap(name: str, length: int) -> str:
    """Break a name after ``_``, ``-`` or a blank, else where it is full; at most three lines."""
    lines = [""]
    for part in name.replace("_", "_\0").replace("-", "-\0").replace(" ", " \0").split("\0"):
        if len(lines[-1]) + len(part) > length and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(_shorten(line.strip(), length) for line in lines[:3])


# -- training ---------------------------------------------------------------------------------------------------


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
        axis.set_title(_shorten(_words(name), 40), fontsize=9, color=INK)
    for axis in panels[len(names) :]:
        axis.remove()
    lines = [mpl.lines.Line2D([], [], color=c, linestyle=d, linewidth=2) for c, d, _ in styles]
    labels = [_shorten(_literal(label), 30) for label in histories]
    figure.legend(
        lines, labels, loc="lower center", ncols=min(4, len(labels)), fontsize=8.5, frameon=False, handlelength=3
    )
    figure.tight_layout(rect=(0, 0.3 / figure.get_figheight(), 1, 1))
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
    return _literal(name.replace("_", " "))


def _literal(text: str) -> str:
    """Keep matplotlib from reading ``$…$`` in a name as mathematics."""
    return text.replace("$", r"\$")


def _style(axis: Axes) -> None:
    axis.set_xlabel("step", fontsize=8, color=INK)
    axis.tick_params(labelsize=8, colors=INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axis.spines[side].set_color(FRAME)
    axis.grid(alpha=0.25, linewidth=0.5)


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
