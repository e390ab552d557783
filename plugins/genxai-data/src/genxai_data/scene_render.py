"""Paint a scene from its factors: colours and concepts at sub-pixel samples, then pixels from those."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .scene_factors import BACKGROUNDS, CONCEPTS, SHAPES, object_columns

SUPERSAMPLES = 4
"""Samples per pixel along each axis."""

Plane = np.ndarray[Any, Any]


def render(row: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Render one scene.

    Parameters
    ----------
    row
        Its factors, ``[F]``, in the order of `FACTORS`.
    size
        Height and width in pixels.

    Returns
    -------
    image : numpy.ndarray
        uint8 ``[3, size, size]``, the mean of 4x4 samples per pixel.
    concept : numpy.ndarray
        uint8 ``[size, size]``, the index into `CONCEPTS` that most of a pixel's samples show; in a tie, the lower one
        (shapes come before backgrounds).
    """
    colours, concepts = paint(row, size)
    image = np.rint(_pooled(colours) * (255 / SUPERSAMPLES**2)).clip(0, 255).astype(np.uint8)
    most = np.zeros((size, size), np.uint8)
    winner = np.zeros((size, size), np.uint8)
    for k in np.flatnonzero(np.bincount(concepts.ravel())):
        votes = _pooled((concepts == k).view(np.uint8)[None])[0]
        better = votes > most
        winner[better] = k
        most = np.maximum(most, votes)
    return image, winner


def _pooled(samples: np.ndarray) -> np.ndarray:
    """Sum the samples of each pixel: ``[C, H·S, W·S]`` to ``[C, H, W]``."""
    s = SUPERSAMPLES
    columns = functools.reduce(np.add, [samples[:, :, i::s] for i in range(s)])
    return functools.reduce(np.add, [columns[:, i::s] for i in range(s)])


def paint(row: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Paint the samples of a scene, background first, then objects from the largest to the smallest.

    Sample i along an axis lies at ``(i + 0.5) / (4 · size)`` image widths, x to the right and y down.

    Returns
    -------
    colours : numpy.ndarray
        float32 ``[3, 4·size, 4·size]`` in [0, 1].
    concepts : numpy.ndarray
        uint8 ``[4·size, 4·size]``, indices into `CONCEPTS`. Shadows and shading change colours only.
    """
    n = size * SUPERSAMPLES
    at = ((np.arange(n) + 0.5) / n).astype(np.float32)
    x, y = at[None, :], at[:, None]
    colours, concepts = _background(row, x, y)
    for j in range(int(row[0])):
        _object(row[object_columns(j)], at, colours, concepts)
    return colours, concepts


# -- backgrounds ------------------------------------------------------------------------------------------------


def _rgb(*codes: str) -> np.ndarray:
    return np.array([[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in codes], np.float32)


_PAPER = _rgb("F6EFE0", "DFEAF2", "E1ECDA", "F7E4DD", "E8E2F3", "4A5A72")
_INK = _rgb("E9D9B8", "BBD2E4", "BDD4B0", "EABFB2", "CDBFE6", "36445A")
"""Cream, mist, sage, blush, lavender, slate: two colours of each scheme."""

_ZENITH = _rgb("8CC5EA", "F2A987", "26325A", "A9D6E5", "A8C0DC", "7FB7D9")
_HAZE = _rgb("E2F2FA", "FCE8CF", "6B74A6", "F6EFD9", "E9EFF6", "F7E7CE")
_NEAR = _rgb("86B56B", "6E5A7E", "2C4A4B", "E0BC82", "F3F6FA", "C98B52")
_FAR = _rgb("A9CC8C", "97779A", "44696A", "EED7A8", "DCE5EF", "DDB06F")
"""Meadow, dusk, night, desert, snow, autumn: the sky above and at the horizon, the ground near and far."""


def _background(row: np.ndarray, x: Plane, y: Plane) -> tuple[np.ndarray, np.ndarray]:
    """Paint one of the backgrounds. Plain ones and patterns darken a little towards the bottom, as paper in light."""
    kind, tone = BACKGROUNDS[int(row[1])], int(row[2])
    horizon, period, direction, phase = (float(value) for value in row[3:7])
    if kind == "landscape":
        return _landscape(tone, horizon, phase, x, y)
    # across, a linear coordinate along the direction; zero in the middle
    across = (x - 0.5) * math.cos(math.radians(direction)) + (y - 0.5) * math.sin(math.radians(direction))
    if kind == "plain":
        amount = np.zeros_like(x + y)
    elif kind == "gradient":
        amount = across * 0.8 + 0.5
    elif kind == "stripes":
        amount = np.floor(2 * (across / period + phase)) % 2
    else:
        amount = _dots(x, y, period, phase)
    colours = _mix(_PAPER[tone], _INK[tone], amount)
    colours *= 1.015 - 0.05 * y
    return colours, np.full(colours.shape[1:], CONCEPTS.index(kind), np.uint8)


def _dots(x: Plane, y: Plane, period: float, phase: float) -> Plane:
    """Return 1 in discs on a lattice whose every other row is shifted by half a period."""
    line = np.floor(y / period + phase)
    u = (x / period + phase + 0.5 * (line % 2)) % 1 - 0.5
    v = (y / period + phase) % 1 - 0.5
    return np.asarray(u * u + v * v < 0.27**2, np.float32)


def _landscape(tone: int, horizon: float, phase: float, x: Plane, y: Plane) -> tuple[np.ndarray, np.ndarray]:
    hills = horizon + 0.035 * np.sin(2 * np.pi * (x + phase)) + 0.015 * np.sin(2 * np.pi * (2.3 * x - phase))
    ground = y > hills.astype(np.float32)
    sky = _mix(_ZENITH[tone], _HAZE[tone], np.minimum(y / np.float32(horizon), 1) + 0 * x)
    land = _mix(_FAR[tone], _NEAR[tone], np.clip((y - hills.astype(np.float32)) / np.float32(0.35), 0, 1))
    colours = np.where(ground, land, sky)
    return colours, np.where(ground, CONCEPTS.index("ground"), CONCEPTS.index("sky")).astype(np.uint8)


def _mix(a: np.ndarray, b: np.ndarray, amount: Plane) -> np.ndarray:
    """Blend two colours: ``[3, H, W]``, a where the amount is 0 and b where it is 1."""
    return np.asarray(a[:, None, None] + (b - a)[:, None, None] * amount.astype(np.float32))


# -- objects ----------------------------------------------------------------------------------------------------

_PALETTE = _rgb("DB4A3F", "F08C3E", "F5C538", "4DA667", "37B3AE", "3B75CC", "8A5CC0", "EF86B0")

Outline = Callable[[Plane, Plane], Plane]
"""Below 0 inside, about the distance to the edge near it, in units of the object's radius."""


def _along_normals(x: Plane, y: Plane, count: int, first: float) -> list[Plane]:
    """Return the coordinates along the normals of a regular polygon's edges, from the one at angle ``first`` on."""
    turns = [first + 2 * math.pi * k / count for k in range(count)]
    return [x * np.float32(math.cos(t)) + y * np.float32(math.sin(t)) for t in turns]


def _triangle(x: Plane, y: Plane) -> Plane:
    a, b, c = _along_normals(x, y, 3, math.pi / 2)
    return np.maximum(np.maximum(a, b), c) - np.float32(0.55)


def _star(x: Plane, y: Plane) -> Plane:
    """Pentagram: the points that lie beyond at most one of the five edges of the pentagon inside it."""
    edges = _along_normals(x, y, 5, -math.pi / 2)
    highest, second = np.maximum(edges[0], edges[1]), np.minimum(edges[0], edges[1])
    for edge in edges[2:]:
        second = np.maximum(second, np.minimum(highest, edge))
        highest = np.maximum(highest, edge)
    return second - np.float32(0.35)


def _cross(x: Plane, y: Plane) -> Plane:
    a, b = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(a, b) - np.float32(0.95), np.minimum(a, b) - np.float32(0.34))


_OUTLINES: dict[str, Outline] = {
    "circle": lambda x, y: np.sqrt(x * x + y * y) - np.float32(0.92),
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - np.float32(0.8),
    "triangle": _triangle,
    "star": _star,
    "ring": lambda x, y: np.abs(np.sqrt(x * x + y * y) - np.float32(0.72)) - np.float32(0.25),
    "cross": _cross,
}

_SHADOW, _SHADOW_X, _SHADOW_Y, _BLUR = 0.30, 0.07, 0.14, 0.14
"""How dark the shadow is; where it falls and how soft it is, in radii."""

_REACH = 1.5
"""How far an object and its shadow reach from its centre, in radii."""


def _object(factors: np.ndarray, at: np.ndarray, colours: np.ndarray, concepts: np.ndarray) -> None:
    """Paint an object, its shadow first, over what is there; light comes from the upper left."""
    shape, colour, radius, cx, cy, angle = (float(value) for value in factors)
    rows = slice(*np.searchsorted(at, (cy - _REACH * radius, cy + _REACH * radius)))
    columns = slice(*np.searchsorted(at, (cx - _REACH * radius, cx + _REACH * radius)))
    x = ((at[columns] - np.float32(cx)) / np.float32(radius))[None, :]
    y = ((at[rows] - np.float32(cy)) / np.float32(radius))[:, None]
    name = SHAPES[int(shape)]
    cos, sin = np.float32(math.cos(math.radians(angle))), np.float32(math.sin(math.radians(angle)))

    def outline(u: Plane, v: Plane) -> Plane:
        return _OUTLINES[name](u * cos + v * sin, v * cos - u * sin)

    canvas, labels = colours[:, rows, columns], concepts[rows, columns]
    u, v = x - np.float32(_SHADOW_X), y - np.float32(_SHADOW_Y)
    # the circle around the object cuts the spikes that the outlines of sharp corners have far outside
    distance = np.maximum(outline(u, v), np.sqrt(u * u + v * v) - np.float32(1.15))
    shadow = np.clip(0.5 - distance / (2 * _BLUR), 0, 1)
    canvas *= 1 - np.float32(_SHADOW) * shadow
    depth = outline(x, y)
    inside = depth <= 0
    light = 1.05 - 0.09 * (x + y) - 0.14 * np.clip(1 + depth / 0.12, 0, 1)
    np.copyto(canvas, np.clip(_PALETTE[int(colour)][:, None, None] * light, 0, 1), where=inside)
    labels[inside] = SHAPES.index(name)
