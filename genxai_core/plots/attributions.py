"""Signed maps below the images that they explain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .canvas import GAP, LINE, TILE, colour_bar, diverging, number, shorten, surface, tile, to_pixels, wrap, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..explanation import Attribution

MEANING = ("against", "for")
"""What the ends of a map's scale mean, unless the attribution's notes say it under ``meaning``."""


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
    high = TILE * first.maps.shape[-2] / first.maps.shape[-1]
    left = 1.3 if any(attributions) else 0.03
    logits = [_logits(a, n) for a in attributions.values()]
    shared = first.images is not None and all(row == logits[0] for row in logits)
    lines = 1 if shared or not any(logits) else 2
    pitch = high + lines * 0.15 + (0.1 if len(attributions) > 1 else 0.04)
    meanings = [meaning_of(a) for a in attributions.values()]
    width = left + n * (TILE + GAP) + 0.25 + 0.07 * max(len(text) for ends in meanings for text in ends)
    top = (0.32 if title else 0.04) + (LINE if shared and logits[0] else 0)
    maps_top = top + (high + GAP if first.images is not None else 0)
    figure, canvas = surface(width, maps_top + len(attributions) * pitch, title)

    def at(i: int) -> float:
        return left + i * (TILE + GAP)

    if first.images is not None:
        pixels = to_pixels(first.images[:n], first.value_range)
        for i in range(n):
            tile(canvas, pixels[i], at(i), top, TILE, high)
            if shared and logits[0]:
                write(canvas, f"logit {logits[0][i]}", at(i) + TILE / 2, top - LINE + 0.025)
    for row, (name, attribution) in enumerate(attributions.items()):
        y = maps_top + row * pitch
        if name:
            text = wrap(name, 17)
            write(canvas, text, left - 0.1, y + high / 2, size=8, across="right", down="center")
        for i, values in enumerate(_planes(attribution, n)):
            finite = np.abs(values[np.isfinite(values)])
            limit = float(finite.max()) if finite.size else 0.0
            tile(canvas, values / (limit or 1.0), at(i), y, TILE, high, cmap=diverging(), vmin=-1, vmax=1)
            scale = f"±{number(limit)}" if limit else "all zero"
            scale = scale if finite.size == values.size else "not finite"
            text = scale if shared or not logits[row] else f"{scale}\nlogit {logits[row][i]}"
            write(canvas, text, at(i) + TILE / 2, y + high + 0.025)
        if row == 0 or meanings[row] != meanings[row - 1]:
            colour_bar(figure, at(n) + 0.03, y, min(high, 1.4), meanings[row])
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
            return shorten(low, 24), shorten(high, 24)
    raise InputError(f"notes['meaning'] is {meaning!r}; give the scale's ends, such as ('less active', 'more active')")


def _planes(attribution: Attribution, n: int) -> np.ndarray:
    maps = attribution.maps[:n].detach().cpu().float()
    return np.asarray((maps.sum(1) if maps.ndim == 4 else maps).numpy())


def _logits(attribution: Attribution, n: int) -> list[str]:
    return [] if attribution.logits is None else [f"{float(v):+.2f}".replace("-", "−") for v in attribution.logits[:n]]
