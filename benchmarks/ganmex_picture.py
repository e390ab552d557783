"""The picture of the page on GANMEX: digits that no training saw, and what the shipped generator makes of each.

    python benchmarks/ganmex_picture.py            # writes docs/images/ganmex-digits.png

Nothing in it is chosen: the first held-out digit of each class, and all ten targets.
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import genxai_core as gx
from genxai_core import draws
from genxai_core.plots.canvas import surface, tile, to_pixels, write

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "ganmex-digits.png"
SIDE, GAP, LEFT, TOP = 0.5, 0.05, 0.66, 0.3


def figure() -> Figure:
    """Draw a row per digit: the image, a gap, and what it becomes, the image's own class framed."""
    data = gx.create("dataset/digits", size=16)
    held = data[draws.permutation(0, 0, len(data), stream="holdout").tolist()[: round(0.2 * len(data))]]
    assert held.labels is not None
    first = held[[int((held.labels == k).nonzero()[0]) for k in range(10)]]
    generator = gx.create("generator/stargan", pretrained="digits")
    with torch.no_grad():
        made = generator.translate(first.images.repeat_interleave(10, 0), torch.arange(10).repeat(10))
    images, changed = to_pixels(first.images, (-1.0, 1.0)), to_pixels(made, (-1.0, 1.0))
    pitch = SIDE + GAP
    drawn, canvas = surface(LEFT + 10 * pitch, TOP + 10 * pitch, "")
    write(canvas, "image", SIDE / 2, TOP / 2)
    for row in range(10):
        y = TOP + row * pitch
        write(canvas, f"→ {row}", LEFT + row * pitch + SIDE / 2, TOP / 2)
        tile(canvas, images[row], 0.0, y, SIDE, SIDE)
        for column in range(10):
            tile(canvas, changed[10 * row + column], LEFT + column * pitch, y, SIDE, SIDE)
        canvas.add_patch(Rectangle((LEFT + row * pitch, y), SIDE, SIDE, fill=False, edgecolor="#E69F00", linewidth=1.6))
    return drawn


if __name__ == "__main__":
    figure().savefig(PICTURE, dpi=130, bbox_inches="tight")
    print(PICTURE)
