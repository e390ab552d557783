"""What a scene is made of: its factors of variation, how they are drawn, and how they are told in words."""

from __future__ import annotations

import math

import numpy as np

from genxai_core import draws

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
COLOURS = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink")
SIZES = {"small": (0.11, 0.15), "medium": (0.17, 0.21), "large": (0.24, 0.30)}
"""The radius of an object, in image widths."""

BACKGROUNDS = ("plain", "gradient", "stripes", "dots", "landscape")
SETTINGS = {
    "plain": (),
    "gradient": ("direction",),
    "stripes": ("period", "direction", "phase"),
    "dots": ("period", "phase"),
    "landscape": ("horizon", "phase"),
}
"""Which factors a background has besides its tone."""

TONES = 6
"""Colour schemes of each background."""

MAX_OBJECTS = 4
MAX_ANGLE = 30.0
CONCEPTS = (*SHAPES, "plain", "gradient", "stripes", "dots", "sky", "ground")
"""The mask planes: one per shape, then the parts of the backgrounds."""

_OBJECT = ("shape", "colour", "size", "x", "y", "angle")
FACTORS = (
    "count",
    "background",
    "tone",
    "horizon",
    "period",
    "direction",
    "phase",
    *(f"{name}_{j + 1}" for j in range(MAX_OBJECTS) for name in _OBJECT),
)
"""The columns of a factor row."""

ABSENT = -1.0
"""The value of a factor that does not apply: objects that are not there, the horizon of a plain background."""

_FIRST_OBJECT = FACTORS.index("shape_1")
_CANDIDATES = 40
_EXTENT = 1.14
"""How far the corners of a shape may lie from its centre, in radii: every object is wholly inside the image."""

_MARGIN = 0.02


def object_columns(j: int) -> slice:
    """Return where object j, from 0, has its shape, colour, size, x, y and angle in a factor row."""
    begin = _FIRST_OBJECT + j * len(_OBJECT)
    return slice(begin, begin + len(_OBJECT))


def draw(seed: int, index: int) -> np.ndarray:
    """Draw the factors of one scene.

    Returns
    -------
    numpy.ndarray
        float32 ``[F]``, in the order of `FACTORS`. It depends on ``(seed, index)`` only.
    """
    generator = draws.generator(seed, index, "dataset/scenes")
    head, colours = generator.random(8), generator.random(len(COLOURS))
    objects, places = generator.random((MAX_OBJECTS, 3)), generator.random((MAX_OBJECTS, _CANDIDATES, 2))
    row = np.full(len(FACTORS), ABSENT)
    count = 1 + _pick(head[0], MAX_OBJECTS)
    row[:3] = count, _pick(head[1], len(BACKGROUNDS)), _pick(head[2], TONES)
    kind = BACKGROUNDS[int(row[1])]
    values = {
        "horizon": 0.45 + 0.25 * head[3],
        "period": 0.14 + 0.12 * head[4],
        "direction": 180 * head[5],
        "phase": head[6],
    }
    for name in SETTINGS[kind]:
        row[FACTORS.index(name)] = values[name]
    palette = np.argsort(colours)  # no two objects of a scene have the same colour
    radii = sorted((_radius(objects[j, 1], first=j == 0) for j in range(count)), reverse=True)
    placed: list[tuple[float, float, float]] = []
    for j, radius in enumerate(radii):
        x, y = _place(places[j], radius, placed)
        placed.append((x, y, radius))
        shape = _pick(objects[j, 0], len(SHAPES))
        angle = 0.0 if SHAPES[shape] in ("circle", "ring") else MAX_ANGLE * objects[j, 2]
        row[object_columns(j)] = shape, palette[j], radius, x, y, angle
    return row.astype(np.float32)


def _pick(u: float, n: int) -> int:
    return int(u * n)


def _radius(u: float, *, first: bool) -> float:
    """Any size for one object; the others are small or medium, so that four find room."""
    bands = list(SIZES.values())[: 3 if first else 2]
    band = _pick(u, len(bands))
    low, high = bands[band]
    return low + (high - low) * (u * len(bands) - band)


def _place(candidates: np.ndarray, radius: float, placed: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Take the first candidate that touches no earlier object, else the one that overlaps least."""
    reach = _EXTENT * radius + _MARGIN
    spots = reach + (1 - 2 * reach) * candidates
    if not placed:
        return float(spots[0, 0]), float(spots[0, 1])
    others = np.array(placed)
    gaps = np.sqrt(((spots[:, None] - others[None, :, :2]) ** 2).sum(2)) - others[:, 2] - radius
    clearance = np.minimum(gaps.min(1), _MARGIN)
    best = int(clearance.argmax())
    return float(spots[best, 0]), float(spots[best, 1])


def caption(row: np.ndarray) -> str:
    """Say what a scene shows: "a large red circle and a small blue star on a striped background"."""
    things = []
    for j in range(int(row[0])):
        shape, colour, radius = row[object_columns(j)][:3]
        things.append(f"a {size_name(float(radius))} {COLOURS[int(colour)]} {SHAPES[int(shape)]}")
    listed = things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
    return f"{listed} {_SETTING[BACKGROUNDS[int(row[1])]]}"


_SETTING = {
    "plain": "on a plain background",
    "gradient": "on a gradient background",
    "stripes": "on a striped background",
    "dots": "on a dotted background",
    "landscape": "in a landscape",
}


def size_name(radius: float) -> str:
    """Return the word for a radius: the band that it lies in, or that is nearest."""
    return min(SIZES, key=lambda name: math.fabs(sum(SIZES[name]) / 2 - radius))


def problem(row: np.ndarray) -> str:
    """Say why a factor row cannot be rendered; empty if it can."""
    if not np.isfinite(row).all():
        return "values must be finite"
    named = dict(zip(FACTORS, row.tolist()))
    objects = range(1, min(int(named["count"]), MAX_OBJECTS) + 1)
    choices = {"count": range(1, MAX_OBJECTS + 1), "background": range(len(BACKGROUNDS)), "tone": range(TONES)}
    for j in objects:
        choices |= {f"shape_{j}": range(len(SHAPES)), f"colour_{j}": range(len(COLOURS))}
    for name, allowed in choices.items():
        if named[name] not in allowed:
            return f"{name} is {named[name]:g}; it must be a whole number from {allowed[0]} to {allowed[-1]}"
    for j in objects:
        if not 0 < named[f"size_{j}"] <= 1:
            return f"size_{j} is {named[f'size_{j}']:g}; a radius is above 0 and at most 1 image width"
    for name in SETTINGS[BACKGROUNDS[int(named["background"])]]:
        smallest = 0.01 if name == "period" else 0
        if named[name] < smallest:
            return f"{name} is {named[name]:g}; this background needs it to be at least {smallest:g}"
    return ""
