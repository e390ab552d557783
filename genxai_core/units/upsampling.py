"""Bilinear upsampling, and the same only where it can matter.

An upsampled pixel is a mean of at most four neighbouring cells, so it exceeds a level only if one of them does, but for
rounding. Where none does, nothing need be upsampled, compared or counted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
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
    ends
        ``[2, cells + 1]``: the same of its first and its last pixel; NaN where it has none.
    """

    low: Tensor
    high: Tensor
    first: Tensor
    weight: Tensor
    ends: Tensor

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
        ends = torch.stack([weight[0], weight[(count - 1).clamp(min=0), at]])
        return Axis((at - 1).clamp(min=0), at.clamp(max=cells - 1), first, weight, ends)

    def to(self, device: torch.device) -> Axis:
        """Return it on a device."""
        return Axis(*(t.to(device) for t in (self.low, self.high, self.first, self.weight, self.ends)))


@dataclass(frozen=True, eq=False)
class Quads:
    """Quads of maps ``[M, h, w]``: of which map, and where on both axes; all ``[K]``."""

    of: Tensor
    y: Tensor
    x: Tensor

    def take(self, rows: Tensor) -> Quads:
        """Return some of them."""
        return Quads(*(at.index_select(0, rows) for at in (self.of, self.y, self.x)))

    def split(self, most: int) -> Iterator[Quads]:
        """Yield them in parts."""
        return map(Quads, *(torch.split(at, most) for at in (self.of, self.y, self.x)))

    def __len__(self) -> int:
        return len(self.of)


class Grid:
    """How maps of h × w cells become H × W pixels, quad by quad: what lies between four neighbouring cells."""

    def __init__(self, cells: tuple[int, int], size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.cells, self.size, self.device = cells, size, device
        self.rows, self.columns = (Axis.of(n, to, dtype).to(device) for n, to in zip(cells, size))
        self.each = len(self.rows.weight) * len(self.columns.weight)

    def above(self, maps: Tensor, level: Tensor) -> Iterator[tuple[Quads, Tensor, Tensor]]:
        """Yield the quads of which a pixel may exceed its map's level, with their pixels, and how far these may be off.

        A bilinear function on a rectangle is largest at one of its corners: a quad's four outermost pixels decide.

        Parameters
        ----------
        maps
            ``[M, h, w]``.
        level
            ``[M]``.

        Yields
        ------
        tuple
            K quads; their pixels ``[rows, columns, K]``, NaN where a quad has fewer; and ``[K]``.
        """
        slack = ROUNDING * torch.finfo(maps.dtype).eps
        for some in self.quads(maps > (level - slack * level.abs())[:, None, None]).split(AT_ONCE // 4):
            corners, edge = self.corners(maps, some), level.index_select(0, some.of)
            doubt = slack * torch.maximum(edge.abs(), corners.abs().amax(0))
            largest = mixed(
                corners, self.rows.ends.index_select(1, some.y), self.columns.ends.index_select(1, some.x)
            ).amax((0, 1))
            kept = nonzero(largest > edge - doubt)
            for rows in torch.split(kept, max(1, AT_ONCE // self.each)):
                part = some.take(rows)
                yield part, self.values(corners.index_select(1, rows), part), doubt.index_select(0, rows)

    def quads(self, flags: Tensor) -> Quads:
        """Return the quads that touch a flagged cell, of bool ``[M, h, w]``, in order."""
        height, width = self.cells
        cell = nonzero(flags)
        of, row = quotient(cell, height * width), quotient(cell, width)  # rows are counted over all maps
        high, wide = height + 1, width + 1
        at = (row + of) * wide + (cell - row * width)  # the quad above and left of the cell
        touched = torch.zeros(len(flags) * high * wide, dtype=torch.bool, device=self.device)
        for step in (0, 1, wide, wide + 1):
            touched[at + step] = True
        quad = nonzero(touched)
        line = quotient(quad, wide)
        of = quotient(line, high)
        return Quads(of, line - of * high, quad - line * wide)

    def corners(self, maps: Tensor, quads: Quads) -> Tensor:
        """Return each quad's cells ``[4, K]``: above left, below left, above right, below right."""
        flat, base = maps.reshape(-1), quads.of * (self.cells[0] * self.cells[1])
        above = base + self.rows.low.index_select(0, quads.y) * self.cells[1]
        below = base + self.rows.high.index_select(0, quads.y) * self.cells[1]
        left, right = (at.index_select(0, quads.x) for at in (self.columns.low, self.columns.high))
        return torch.stack([flat.index_select(0, y + x) for x in (left, right) for y in (above, below)])

    def values(self, corners: Tensor, quads: Quads) -> Tensor:
        """Return the pixels of quads ``[rows, columns, K]``, NaN where a quad has fewer."""
        down = self.rows.weight.index_select(1, quads.y)
        return mixed(corners, down, self.columns.weight.index_select(1, quads.x))

    def pixels(self, quads: Quads, row: Tensor, column: Tensor) -> Tensor:
        """Return where pixels ``(row, column)`` of quads, one each, lie in a map: y · W + x."""
        top, left = self.rows.first.index_select(0, quads.y), self.columns.first.index_select(0, quads.x)
        return (top + row) * self.size[1] + left + column


def mixed(corners: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Return ``[rows, columns, K]``: cells ``[4, K]`` mixed with weights ``[rows, K]`` and ``[columns, K]``.

    Multiplications and additions are separate, so that no pixel depends on what it is computed with.
    """
    left = (corners[1] - corners[0]) * down + corners[0]
    change = (corners[3] - corners[2]) * down + corners[2] - left
    found = change[:, None] * across[None]
    found += left[:, None]
    return found


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


def quotient(index: Tensor, by: int) -> Tensor:
    """Return indices divided by a number, rounded down."""
    if index.device.type == "cpu":
        return torch.from_numpy(index.numpy() // by)  # several times as fast as torch's
    return index.div(by, rounding_mode="floor")
