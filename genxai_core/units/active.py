"""The pixels in which units are active, and which concepts are there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .upsampling import CELLS, Grid, grid, nonzero, quotient, upsampled

BYTE = 8
"""Concepts that one byte says of a pixel."""


class Concepts:
    """Masks ``[N, C, H, W]`` with eight concepts in a byte, so that one look-up tells of all of them."""

    def __init__(self, masks: Tensor) -> None:
        n, self.count, *size = masks.shape
        self.size = (size[0], size[1])
        planes = masks.view(torch.uint8)
        self.bytes = []
        for first in range(0, self.count, BYTE):
            packed = torch.zeros(n, *size, dtype=torch.uint8, device=masks.device)
            for bit in range(min(BYTE, self.count - first)):
                packed |= planes[:, first + bit] << bit
            self.bytes.append(packed.reshape(-1))

    def counts(self, histograms: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``[U, C]`` and ``[U]``, int64: pixels with the concept, and all, of histograms ``[bytes, U, 256]``."""
        bits = torch.arange(256)[:, None] >> torch.arange(BYTE) & 1
        found = histograms.cpu()
        return (found @ bits).transpose(0, 1).flatten(1)[:, : self.count], found[0].sum(1)

    def area(self) -> Tensor:
        """Return ``[C]`` int64: pixels of each concept."""
        return self.counts(torch.stack([b.bincount(minlength=256) for b in self.bytes])[:, None])[0][0]


def histogram(maps: Tensor, thresholds: Tensor, concepts: Concepts) -> Tensor:
    """Return ``[bytes, U, 256]`` int64: of the pixels in which a unit is active, how many have each byte of concepts.

    Active is what is greater than the unit's threshold after `upsampled`, pixel by pixel, bit for bit.

    Parameters
    ----------
    maps
        ``[N, U, h, w]``.
    thresholds
        ``[U]``.
    concepts
        At the size that maps are upsampled to.
    """
    n, units, *cells = maps.shape
    level = thresholds.to(maps.device)
    found = torch.zeros(len(concepts.bytes), units * 256, dtype=torch.long, device=maps.device)
    mesh = grid((cells[0], cells[1]), concepts.size, maps.dtype, maps.device)
    each = maps.contiguous().flatten(0, 1)

    def add(of: Tensor, pixel: Tensor) -> None:
        sample = quotient(of, units)
        unit = (of - sample * units) * 256
        at = sample * (concepts.size[0] * concepts.size[1]) + pixel
        for total, byte in zip(found, concepts.bytes):
            total += (unit + byte.index_select(0, at)).bincount(minlength=units * 256)

    doubtful: list[tuple[Tensor, Tensor]] = []

    def decide() -> None:
        of, pixel = (torch.cat(parts) for parts in zip(*doubtful))
        doubtful.clear()
        right = _as_among_all(each, of, pixel, units, mesh) > level[of % units]
        add(of[right], pixel[right])

    step = max(1, CELLS // (units * cells[0] * cells[1]))
    for start in range(0, n, step):
        first, part = start * units, each[start * units : (start + step) * units]
        for of, pixel, near in _active(part, level.repeat(len(part) // units), mesh):
            if near is None:
                add(of + first, pixel)
            else:
                add(of[~near] + first, pixel[~near])
                # so near the threshold that only the very same computation decides
                doubtful.append((of[near] + first, pixel[near]))
                if sum(len(waiting) for waiting, _ in doubtful) > CELLS:
                    decide()
    if doubtful:
        decide()
    return found.reshape(-1, units, 256)


def _active(maps: Tensor, level: Tensor, mesh: Grid) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield which of maps ``[M, h, w]`` and which pixel of it exceeds the level ``[M]``, and where that is in doubt."""
    if mesh.cells == mesh.size:  # upsampling changes nothing
        cell = nonzero(maps > level[:, None, None])
        of = quotient(cell, maps[0].numel())
        yield of, cell - of * maps[0].numel(), None
        return
    for quads, values, doubt in mesh.above(maps, level):
        edge = level.index_select(0, quads.of)
        flat = nonzero(values > edge - doubt)
        line = quotient(flat, len(quads))
        k = flat - line * len(quads)
        row = quotient(line, values.shape[1])
        found = quads.take(k)
        near = values.reshape(-1).index_select(0, flat) <= (edge + doubt).index_select(0, k)
        yield found.of, mesh.pixels(found, row, line - row * values.shape[1]), near if bool(near.any()) else None


def _as_among_all(maps: Tensor, of: Tensor, pixel: Tensor, units: int, mesh: Grid) -> Tensor:
    """Return one pixel each of maps, upsampled in their units' places: how torch rounds depends on the channels."""
    which, back = torch.unique(of, return_inverse=True)
    unit = which % units
    order = unit.argsort(stable=True)
    count = unit.bincount(minlength=units)
    row = torch.empty_like(unit)
    row[order] = torch.arange(len(unit), device=unit.device) - (count.cumsum(0) - count)[unit[order]]
    line = row[back]
    found = maps.new_empty(len(of))
    step = max(1, CELLS // (units * mesh.size[0] * mesh.size[1]))  # rows at once: bounds memory
    for start in range(0, int(count.max()), step):
        some, wanted = (nonzero((start <= at) & (at < start + step)) for at in (row, line))
        placed = maps.new_zeros(int(row[some].max()) + 1 - start, units, *mesh.cells)
        placed[row[some] - start, unit[some]] = maps[which[some]]
        large = upsampled(placed, mesh.size).flatten(2)
        found[wanted] = large[line[wanted] - start, unit[back[wanted]], pixel[wanted]]
    return found
