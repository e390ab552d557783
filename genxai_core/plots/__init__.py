"""The figures: images, maps, changes, units, curves. One style, readable by the colour-blind."""

from __future__ import annotations

from .attributions import MEANING, attribution_figure, attribution_rows, meaning_of
from .canvas import COLOURS, DIVERGING, FRAME, INK, NOT_FINITE, html, more, png, some, to_pixels
from .changes import before_after, image_rows
from .curves import DASHES, curves, curves_compared, search_curves, series_of
from .edits import edit_figure
from .heat import square_map
from .images import image_grid
from .units import unit_figure

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
    "before_after",
    "curves",
    "curves_compared",
    "edit_figure",
    "html",
    "image_grid",
    "image_rows",
    "meaning_of",
    "more",
    "png",
    "search_curves",
    "series_of",
    "some",
    "square_map",
    "to_pixels",
    "unit_figure",
]
