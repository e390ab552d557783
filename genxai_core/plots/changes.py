"""Images beside what became of them: before and after with their difference, and rows of gradual change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from ..errors import InputError
from .canvas import (
    COLOURS,
    GAP,
    LINE,
    TILE,
    colour_bar,
    diverging,
    more,
    number,
    surface,
    tile,
    to_pixels,
    width_of,
    wrap,
    write,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

WRONG = COLOURS[1]
"""The colour of what failed."""

_LETTERS = 14
_TEXT = 0.145
"""Letters to an inch, and the height of a further line of small text."""


def before_after(
    before: Tensor,
    after: Tensor,
    value_range: tuple[float, float],
    *,
    names: tuple[str, str] = ("before", "after"),
    above: Sequence[str] | None = None,
    below: Sequence[str] | None = None,
    failures: Sequence[str] | None = None,
    note: str = "",
    n: int = 8,
    title: str = "",
) -> Figure:
    """Draw the first n images, below each what became of it, and below that the signed difference.

    The difference is a share of the value range (1 is from its lowest to its highest value), of the channel that
    changed most at each pixel. Each has its own scale, symmetric about zero, whose end is written below it.

    Parameters
    ----------
    before, after
        ``[N, C, H, W]`` in ``value_range``.
    names
        What the rows are.
    above, below
        A text for each image, above and below its column.
    failures
        A text for each image, ``""`` where it is as it should be; else it gets a mark and a frame.
    note
        Stands above everything, such as how many failed of all.
    n
        How many images.
    title
        Above the note.

    Raises
    ------
    InputError
        If there is nothing to draw.
    """
    n = min(n, len(before))
    if n < 1:
        raise InputError("there are no images to draw")
    left, high = (
        0.2 + max(width_of(name, 8) for name in (*names, "difference")),
        TILE * before.shape[-2] / before.shape[-1],
    )
    width = left + n * (TILE + GAP) + 0.8
    head = wrap(note, int(width * _LETTERS)) if note else ""
    heads, feet = (_texts(texts, n) for texts in (above, below))
    marks = _texts([f"✗ {text}" if text else "" for text in failures] if failures is not None else None, n)
    y = (0.32 if title else 0.05) + _lines([head]) * _TEXT
    tops = [y + _lines(heads) * _TEXT + row * (high + GAP) for row in range(3)]
    foot = tops[2] + high + 0.035
    figure, canvas = surface(width, foot + (_lines(feet) + _lines(marks) + 1) * _TEXT + 0.05, title)
    write(canvas, head, 0.06, (0.32 if title else 0.05) - 0.02, across="left")
    changes = _changes(before[:n], after[:n], value_range)
    for top, name in zip(tops, (*names, "difference")):
        write(canvas, name, left - 0.1, top + high / 2, size=8, across="right", down="center")
    rows = (to_pixels(before[:n], value_range), to_pixels(after[:n], value_range))
    for i in range(n):
        x = left + i * (TILE + GAP)
        middle = x + TILE / 2
        write(canvas, heads[i], middle, tops[0] - 0.03, down="bottom")
        for top, pixels in zip(tops, rows):
            tile(canvas, pixels[i], x, top, TILE, high)
        limit, said = _limit(changes[i])
        tile(canvas, changes[i] / (limit or 1.0), x, tops[2], TILE, high, cmap=diverging(), vmin=-1, vmax=1)
        write(canvas, said, middle, foot)
        write(canvas, feet[i], middle, foot + _TEXT)
        if marks[i]:
            write(canvas, marks[i], middle, foot + (1 + _lines(feet)) * _TEXT, colour=WRONG)
            frame = mpl.patches.Rectangle((x, tops[1]), TILE, high, fill=False, edgecolor=WRONG, linewidth=2)
            canvas.add_patch(frame)
    colour_bar(figure, left + n * (TILE + GAP) + 0.03, tops[2], min(high, 1.4), ("darker", "brighter"))
    return figure


def image_rows(
    images: Tensor,
    value_range: tuple[float, float],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    across: str = "",
    n: int = 12,
    title: str = "",
) -> Figure:
    """Draw rows of images, each with its name, such as what a generator draws along each of several directions.

    Parameters
    ----------
    images
        ``[R, S, C, H, W]`` in ``value_range``. Of more than 11 columns, 11 are drawn, evenly spaced.
    rows, columns
        R and S texts, at the left and at the top.
    across
        What the columns are, at the left of their texts.
    n
        How many rows; of more it is said how many.
    title
        Above everything.

    Raises
    ------
    InputError
        If there is nothing to draw.
    """
    if min(n, *images.shape[:2]) < 1:
        raise InputError("there are no images to draw")
    count, shown = min(n, len(images)), np.unique(np.linspace(0, images.shape[1] - 1, 11).round().astype(int))
    wide = min(TILE, max(0.62, 7.0 / len(shown)))
    high = wide * images.shape[-2] / images.shape[-1]
    left, top = 1.3, (0.32 if title else 0.04) + LINE
    left_out, bottom = more(len(images) - count), top + count * (high + GAP)
    figure, canvas = surface(left + len(shown) * (wide + GAP) + 0.05, bottom + (LINE if left_out else 0), title)
    write(canvas, across, left - 0.1, top - LINE + 0.025, across="right")
    for j, column in enumerate(shown):
        x = left + j * (wide + GAP)
        write(canvas, columns[column], x + wide / 2, top - LINE + 0.025)
        for i, pixels in enumerate(to_pixels(images[:count, column], value_range)):
            tile(canvas, pixels, x, top + i * (high + GAP), wide, high)
    for i in range(count):
        y = top + i * (high + GAP) + high / 2
        name = "\n".join(wrap(line, 17) for line in rows[i].split("\n"))
        write(canvas, name, left - 0.1, y, size=8, across="right", down="center")
    if left_out:
        write(canvas, left_out, left - 0.1, bottom - 0.02, size=8, across="right")
    return figure


def _texts(texts: Sequence[str] | None, n: int) -> list[str]:
    if texts is None:
        return [""] * n
    return ["\n".join(wrap(line, int(TILE * _LETTERS)) for line in text.split("\n")) for text in texts[:n]]


def _lines(texts: Sequence[str]) -> int:
    return max((text.count("\n") + 1 for text in texts if text), default=0)


def _changes(before: Tensor, after: Tensor, value_range: tuple[float, float]) -> np.ndarray:
    """Return the signed change ``[N, H, W]`` of the channel that changed most, as a share of the range."""
    low, high = value_range
    change = (after.detach().cpu().float() - before.detach().cpu().float()) / (high - low)
    most = change.abs().argmax(1, keepdim=True)
    return np.asarray(change.gather(1, most)[:, 0].numpy())


def _limit(values: np.ndarray) -> tuple[float, str]:
    """Return the largest finite magnitude, and what is written below."""
    finite = np.abs(values[np.isfinite(values)])
    limit = float(finite.max()) if finite.size else 0.0
    if finite.size != values.size:
        return limit, "not finite"
    return limit, f"±{number(limit)}" if limit else "no change"
