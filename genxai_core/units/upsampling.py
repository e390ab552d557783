"""Bilinear upsampling, and the same only where it can matter.

An upsampled pixel is a mean of at most four neighbouring cells, so it exceeds a level only if one of them does, but for
rounding. Where none does, nothing need be upsampled, compared or counted.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDING = 16
"""Two ways of computing a pixel differ by less than so many units in the last place of its largest cell."""

CELLS = 1 << 20
"""Cells that are looked through at once."""

AT_ONCE = 1 << 18
"""Pixels that are computed at once: bounds memory, and keeps them in the processor's cache."""


def spatial(activation: Tensor) -> Tensor:
    """Return ``[N, U, h, w]`` in at least float32, with one cell where the layer is flat."""
    maps = activation if activation.ndim == 4 else activation[:, :, None, None]
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


def finite(activation: Tensor) -> bool:
    """Return whether there is neither NaN nor infinity: both would stay in a sum, which is read once."""
    return bool(activation.sum().isfinite()) or bool(activation.isfinite().all())


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ``[N, U, H, W]``, bilinear with ``align_corners=False``."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


@dataclass(frozen=True, eq=False)
class Axis:
    """Quads along one axis: quad q lies between the cells q − 1 and q, repeated at the edges.

    Parameters
    ----------
    low, high
        ``[cells + 1]``: its two cells.
    first
        ``[cells + 1]``: the first of its pixels, which follow each other.
    weight
        ``[most, cells + 1]``: of the higher cell in its pixels; NaN beyond the last one.
    """

    low: Tensor
    high: Tensor
    first: Tensor
    weight: Tensor

    @staticmethod
    def of(cells: int, pixels: int, dtype: torch.dtype) -> Axis:
        """Read off what `upsampled` does to each cell alone."""
        given = upsampled(torch.eye(cells, dtype=dtype)[:, None, :, None], (pixels, 1))[:, 0, :, 0]  # [cells, pixels]
        lower = (given != 0).to(torch.uint8).argmax(0)  # the first one
        beyond = given.gather(0, (lower + 1).clamp(max=cells - 1)[None])[0]
        alone = (lower == cells - 1) | (beyond == 0)
        quad = torch.where(alone & (lower == 0), 0, lower + 1)
        count = quad.bincount(minlength=cells + 1)
        weight = torch.full((int(count.max()), cells + 1), torch.nan, dtype=dtype)
        first = count.cumsum(0) - count
        weight[torch.arange(pixels) - first[quad], quad] = torch.where(alone, 0, beyond)
        at = torch.arange(cells + 1)
        return Axis((at - 1).clamp(min=0), at.clamp(max=cells - 1), first, weight)

    def to(self, device: torch.device) -> Axis:
        """Return it on a device."""
        return Axis(*(t.to(device) for t in (self.low, self.high, self.first, self.weight)))


@dataclass(frozen=True, eq=False)
class Quads:
    """Quads of maps ``[M, h, w]``: of which map, and where on both axes; all ``[K]``."""

    of: Tensor
    y: Tensor
    x: Tensor

    def __getitem__(self, rows: slice) -> Quads:
        return Quads(self.of[rows], self.y[rows], self.x[rows])

    def __len__(self) -> int:
        return len(self.of)


class Grid:
    """How maps of h × w cells become H × W pixels, quad by quad: what lies between four neighbouring cells."""

    def __init__(self, cells: tuple[int, int], size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.cells, self.size, self.device = cells, size, device
        self.rows, self.columns = (Axis.of(n, to, dtype).to(device) for n, to in zip(cells, size))
        self.each = len(self.rows.weight) * len(self.columns.weight)

    def quads(self, flags: Tensor) -> Quads:
        """Return the quads that touch a flagged cell, of bool ``[M, h, w]``, in order."""
        height, width = self.cells
        cell = nonzero(flags)
        of = cell.div(height * width, rounding_mode="floor")
        row = cell.div(width, rounding_mode="floor")  # over all maps
        high, wide = height + 1, width + 1
        at = (row + of) * wide + (cell - row * width)  # the quad above and left of the cell
        touched = torch.zeros(len(flags) * high * wide, dtype=torch.bool, device=self.device)
        for step in (0, 1, wide, wide + 1):
            touched[at + step] = True
        quad = nonzero(touched)
        line = quad.div(wide, rounding_mode="floor")
        of = line.div(high, rounding_mode="floor")
        return Quads(of, line - of * high, quad - line * wide)

    def values(self, maps: Tensor, quads: Quads) -> Tensor:
        """Return the pixels of quads ``[rows, columns, K]``, NaN where a quad has fewer.

        Multiplications and additions are separate, so that no pixel depends on what it is computed with.
        """
        height, width = self.cells
        flat, base = maps.reshape(-1), quads.of * (height * width)
        above, below = (base + axis.take(quads.y) * width for axis in (self.rows.low, self.rows.high))
        left, right = self.columns.low.take(quads.x), self.columns.high.take(quads.x)
        down, across = self.rows.weight.index_select(1, quads.y), self.columns.weight.index_select(1, quads.x)

        def column(at: Tensor) -> Tensor:
            start = flat.take(above + at)
            return (flat.take(below + at) - start) * down + start

        start, change = column(left), column(right)
        change -= start
        found = change[:, None] * across[None]
        found += start[:, None]
        return found

    def pixels(self, quads: Quads, row: Tensor, column: Tensor) -> Tensor:
        """Return where pixels ``(row, column)`` of quads, one each, lie in a map: y · W + x."""
        return (self.rows.first.take(quads.y) + row) * self.size[1] + self.columns.first.take(quads.x) + column


@functools.lru_cache(maxsize=64)
def grid(cells: tuple[int, int], size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Grid:
    """Return the grid of a layer, made once."""
    return Grid(cells, size, dtype, device)


def nonzero(flags: Tensor) -> Tensor:
    """Return where flags are, in order, as indices of the flattened tensor."""
    if flags.device.type == "cpu":
        import numpy as np

        return torch.from_numpy(np.flatnonzero(flags.numpy()))  # several times as fast as torch's
    return flags.reshape(-1).nonzero()[:, 0]
