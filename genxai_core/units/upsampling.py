"""Bilinear upsampling, and the same only where it can matter.

An upsampled pixel is a mean of at most four neighbouring cells, so it exceeds a level only if one of them does, but for
rounding. Where none does, nothing need be upsampled, compared or counted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
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


@dataclass(frozen=True, eq=False)
class Quads:
    """Quads of maps ``[A, B, h, w]``: of which map, a · B + b, and which one of its (h + 1)(w + 1); both ``[K]``."""

    of: Tensor
    at: Tensor

    def take(self, rows: Tensor) -> Quads:
        """Return some of them."""
        return Quads(self.of.index_select(0, rows), self.at.index_select(0, rows))

    def split(self, most: int) -> Iterator[Quads]:
        """Yield them in parts."""
        return map(Quads, torch.split(self.of, most), torch.split(self.at, most))

    def __len__(self) -> int:
        return len(self.of)


class Grid:
    """How maps of h × w cells become H × W pixels, quad by quad: what lies between four neighbouring cells.

    Parameters
    ----------
    cells, size
        ``(h, w)`` and ``(H, W)``.

    Attributes
    ----------
    corner
        ``[4, quads]``: its cells, y · w + x: above left, below left, above right, below right.
    down, across
        ``[rows, quads]`` and ``[columns, quads]``: weights as in `Axis`.
    ends
        The same of the outermost rows and columns.
    first
        ``[quads]``: its first pixel, y · W + x.
    offset
        ``[rows · columns]``: how far after that its pixels are.
    """

    def __init__(self, cells: tuple[int, int], size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.cells, self.size = cells, size
        rows, columns = (Axis.of(n, to, dtype) for n, to in zip(cells, size))
        y = torch.arange(cells[0] + 1).repeat_interleave(cells[1] + 1)
        x = torch.arange(cells[1] + 1).repeat(cells[0] + 1)
        corner = [v[y] * cells[1] + u[x] for u in (columns.low, columns.high) for v in (rows.low, rows.high)]
        self.corner = torch.stack(corner).to(device)
        self.down, self.across = rows.weight[:, y].to(device), columns.weight[:, x].to(device)
        self.ends = rows.ends[:, y].to(device), columns.ends[:, x].to(device)
        self.first = (rows.first[y] * size[1] + columns.first[x]).to(device)
        pixels = torch.arange(len(self.down))[:, None] * size[1] + torch.arange(len(self.across))
        self.offset = pixels.flatten().to(device)

    def above(self, maps: Tensor, level: Tensor) -> Iterator[tuple[Quads, Tensor, Tensor, Tensor]]:
        """Yield the quads of which a pixel may exceed its map's level, with their pixels, and how far these may be off.

        A bilinear function on a rectangle is largest at one of its corners: a quad's four outermost pixels decide.

        Parameters
        ----------
        maps
            ``[A, B, h, w]``, each map contiguous.
        level
            ``[A, B]``.

        Yields
        ------
        tuple
            K quads, in order; their pixels ``[rows · columns, K]``, NaN where a quad has fewer; their levels ``[K]``;
            and ``[K]``.
        """
        slack = ROUNDING * torch.finfo(maps.dtype).eps
        flags, levels = exceeding(maps, level - slack * level.abs()), level.flatten()
        for some in self.quads(flags).split(AT_ONCE // 4):
            corners, edge = self.corners(maps, some), levels.index_select(0, some.of)
            doubt = slack * torch.maximum(edge.abs(), corners.abs().amax(0))
            ends = mixed(corners, *(weight.index_select(1, some.at) for weight in self.ends))
            kept = nonzero(ends.amax((0, 1)) > edge - doubt)
            for rows in torch.split(kept, max(1, AT_ONCE // len(self.offset))):
                part = some.take(rows)
                values = self.values(corners.index_select(1, rows), part)
                yield part, values, edge.index_select(0, rows), doubt.index_select(0, rows)

    def quads(self, flags: Tensor) -> Quads:
        """Return the quads that touch a flagged cell, of bool ``[A, B, h, w]``, in order."""
        height, width = self.cells
        cell, each = nonzero(flags), len(self.first)
        above = cell + quotient(cell, width) + quotient(cell, height * width) * (width + 1)  # its quad above and left
        touched = torch.zeros(flags.shape[:2].numel() * each, dtype=torch.bool, device=flags.device)
        for step in (0, 1, width + 1, width + 2):
            touched[step:].index_fill_(0, above, True)
        quad = nonzero(touched)
        of = quotient(quad, each)
        return Quads(of, quad - of * each)

    def corners(self, maps: Tensor, quads: Quads) -> Tensor:
        """Return each quad's cells ``[4, K]``."""
        outer = quotient(quads.of, maps.shape[1])
        base = outer * maps.stride(0) + (quads.of - outer * maps.shape[1]) * maps.stride(1)
        found, flat = maps.new_empty(4, len(quads)), straight(maps)
        for one, cell in zip(found, self.corner):
            torch.index_select(flat, 0, base + cell.index_select(0, quads.at), out=one)
        return found

    def values(self, corners: Tensor, quads: Quads) -> Tensor:
        """Return the pixels of quads ``[rows · columns, K]``, NaN where a quad has fewer."""
        down, across = self.down.index_select(1, quads.at), self.across.index_select(1, quads.at)
        return mixed(corners, down, across).flatten(0, 1)


def straight(maps: Tensor) -> Tensor:
    """Return the memory in which maps lie, from their first cell to their last."""
    return maps.as_strided((1 + sum((n - 1) * by for n, by in zip(maps.shape, maps.stride())),), (1,))


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


def exceeding(maps: Tensor, level: Tensor) -> Tensor:
    """Return which cells of maps ``[A, B, h, w]`` exceed levels ``[A, B]``, bool and contiguous."""
    found = torch.empty(maps.shape, dtype=torch.bool, device=maps.device)
    if maps.device.type == "cpu":
        np.greater(maps.flatten(2).numpy(), level.numpy()[..., None], out=found.flatten(2).numpy())  # as below
    else:
        torch.gt(maps, level[..., None, None], out=found)
    return found


def nonzero(flags: Tensor) -> Tensor:
    """Return where flags are, in order, as indices of the flattened tensor."""
    if flags.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(flags.numpy()))  # several times as fast as torch's
    return flags.reshape(-1).nonzero()[:, 0]


def quotient(index: Tensor, by: int) -> Tensor:
    """Return indices divided by a number, rounded down."""
    if index.device.type == "cpu":
        return torch.from_numpy(index.numpy() // by)  # several times as fast as torch's
    return index.div(by, rounding_mode="floor")
