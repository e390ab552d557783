"""Grids of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import InputError
from .canvas import LINE, shorten, surface, tile, to_pixels, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


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
    pitch = high + (LINE if shown is not None else 0.04)
    top = 0.3 if title else 0.02
    figure, canvas = surface(columns * (wide + 0.04), top + -(-n // columns) * pitch, title)
    for i in range(n):
        x, y = (i % columns) * (wide + 0.04) + 0.02, top + (i // columns) * pitch
        tile(canvas, pixels[i], x, y, wide, high)
        if shown is not None:
            text = shorten(shown[i], int(wide * 13))
            write(canvas, text, x + wide / 2, y + high + 0.02)
    return figure
