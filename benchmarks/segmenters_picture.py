"""The picture of the page on segmenters: digits by morphology; scenes as they were rendered and by the shipped U-Net.

    python benchmarks/segmenters_picture.py            # writes docs/images/segmenters.png

Nothing in it is chosen: two digits of each class, the first scenes that the U-Net never saw, and the first samples.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from genxai_dissection.figures import outline
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import genxai_core as gx
from genxai_core.plots.canvas import COLOURS, surface, tile, to_pixels, width_of, write

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "segmenters.png"
N, UNSEEN = 10, 4000
"""Images in a row; the U-Net was trained on the scenes before this one (recipes/scenes_segmenter.py)."""

SIDE, GAP, MARGIN, LEGEND = 0.82, 0.05, 1.25, 0.24
POINTS = {"hole": "#56B4E9", "endpoints": "#39D353", "junctions": "#FF4136"}
GROUNDS = ("#F0F0F0", "#CFCFCF", "#F8D9C0", "#DCEFD8", "#CFE8F7", "#DECDA5")
"""Of plain, gradient, stripes, dots, sky, ground; shapes have the colours of all figures."""


def coloured(samples: gx.Samples, palette: dict[str, str]) -> np.ndarray:
    """Return ``[N, H, W, 3]``: each pixel in the colour of its concept; of several the last, of none black."""
    assert samples.masks is not None
    found = np.zeros((len(samples), *samples.images.shape[2:], 3))
    for c, name in enumerate(samples.concepts):
        found[samples.masks[:, c].numpy()] = to_rgb(palette[name])
    return found


def legend(canvas: object, names: dict[str, str], y: float) -> None:
    """Write what the colours mean, in a line."""
    x = MARGIN
    for name, colour in names.items():
        canvas.add_patch(Rectangle((x, y - 0.06), 0.12, 0.12, facecolor=colour, edgecolor="#888888", linewidth=0.5))
        write(canvas, name, x + 0.17, y, across="left", down="center_baseline")
        x += 0.33 + width_of(name)


def figure() -> Figure:
    """Draw digits in two rows, and scenes in five."""
    digits = gx.create("dataset/digits", size=16)[:]
    rows = [[int(i) for i in (digits.labels == k).nonzero()[:2, 0]] for k in range(10)]
    digits = digits[[pair[line] for line in (0, 1) for pair in rows]]
    morphology = gx.create("segmenter/morphology")
    points = morphology.segment(digits).numpy()

    rendered = gx.create("dataset/scenes", n=N, size=32, seed=0, start=UNSEEN)[:]
    generated = gx.create("generator/dcgan", pretrained="scenes-32").eval().sample(N, 0)
    scenes = gx.create("segmenter/scenes")
    seen = [
        dataclasses.replace(s, masks=scenes.segment(dataclasses.replace(s, masks=None, concepts=())))
        for s in (rendered, dataclasses.replace(generated, masks=None, concepts=()))
    ]
    seen = [dataclasses.replace(s, concepts=tuple(scenes.concepts)) for s in seen]
    assert torch.equal(scenes.segment(rendered), rendered.masks)
    palette = dict(zip(scenes.concepts, (*COLOURS[:6], *GROUNDS), strict=True))

    lines = [
        ("digits", to_pixels(digits.images[:N], digits.value_range), points[:N]),
        ("", to_pixels(digits.images[N:], digits.value_range), points[N:]),
        None,
        ("rendered scenes", to_pixels(rendered.images, rendered.value_range), None),
        ("their exact masks", coloured(rendered, palette), None),
        ("by the U-Net", coloured(seen[0], palette), None),
        ("generated scenes", to_pixels(generated.images, generated.value_range), None),
        ("by the U-Net", coloured(seen[1], palette), None),
        None,
    ]
    high = sum(LEGEND if line is None else SIDE + GAP for line in lines)
    drawn, canvas = surface(MARGIN + N * (SIDE + GAP), high + 0.1, "")
    y, legends = 0.05, iter([POINTS, {**palette, "none of them": "#000000"}])
    for line in lines:
        if line is None:
            legend(canvas, next(legends), y + LEGEND / 2 - 0.02)
            y += LEGEND
            continue
        text, pixels, regions = line
        write(canvas, text, MARGIN - 0.08, y + SIDE / 2, across="right", down="center")
        for i in range(N):
            x = MARGIN + i * (SIDE + GAP)
            tile(canvas, pixels[i], x, y, SIDE, SIDE)
            for name, colour in POINTS.items() if regions is not None else ():
                outline(canvas, regions[i, morphology.concepts.index(name)], x, y, SIDE, SIDE, colour)
        y += SIDE + GAP
    return drawn


if __name__ == "__main__":
    figure().savefig(PICTURE, dpi=110)
