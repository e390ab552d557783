"""The figures: image grids, attribution maps, training curves. One style, readable by the colour-blind."""

from __future__ import annotations

from .attributions import MEANING, attribution_figure, attribution_rows, meaning_of
from .canvas import COLOURS, DIVERGING, FRAME, INK, NOT_FINITE, html, png, to_pixels
from .curves import DASHES, curves, curves_compared, series_of
from .images import image_grid

__all__ = [
    "COLOURS",
    "DASHES",
    "DIVERGING",
    "FRAME",
    "INK",
    "MEANING",
    "NOT_FINITE",
    "attribution_figure",
    "attribution_rows",
    "curves",
    "curves_compared",
    "html",
    "image_grid",
    "meaning_of",
    "png",
    "series_of",
    "to_pixels",
]
