"""The pixels in which units are active, and which concepts are there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .upsampling import AT_ONCE, CELLS, ROUNDING, Grid, Quads, grid, nonzero, upsampled

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
    area = concepts.size[0] * concepts.size[1]
    step = max(1, CELLS // (units * cells[0] * cells[1]))
    for start in range(0, n, step):
        part = maps[start : start + step].contiguous()
        for of, pixel in _active(part.flatten(0, 1), level, mesh):
            sample = of.div(units, rounding_mode="floor")
            unit = (of - sample * units) * 256
            at = (sample + start) * area + pixel
            for total, byte in zip(found, concepts.bytes):
                total += (unit + byte.take(at)).bincount(minlength=units * 256)
    return found.reshape(-1, units, 256)


def _active(maps: Tensor, level: Tensor, mesh: Grid) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield which map and which pixel of it, of maps ``[N · U, h, w]`` with levels ``[U]``; each active pixel once."""
    units, level = len(level), level.repeat(len(maps) // len(level))
    if mesh.cells == mesh.size:  # upsampling changes nothing
        cell = nonzero(maps > level[:, None, None])
        of = cell.div(maps[0].numel(), rounding_mode="floor")
        yield of, cell - of * maps[0].numel()
        return
    slack = ROUNDING * torch.finfo(maps.dtype).eps
    quads = mesh.quads(maps > (level - slack * level.abs())[:, None, None])
    step = max(1, AT_ONCE // mesh.each)
    for start in range(0, len(quads), step):
        some = quads[start : start + step]
        values = mesh.values(maps, some)
        edge = level.take(some.of)
        doubt = slack * torch.maximum(edge.abs(), values.abs().nan_to_num_().amax((0, 1)))
        flat = nonzero(values > edge - doubt)
        line = flat.div(len(some), rounding_mode="floor")
        k = flat - line * len(some)
        row = line.div(values.shape[1], rounding_mode="floor")
        kept = Quads(some.of.take(k), some.y.take(k), some.x.take(k))
        pixel = mesh.pixels(kept, row, line - row * values.shape[1])
        near = nonzero(values.take(flat) <= (edge + doubt).take(k))
        if len(near):  # so near the threshold that only the very same computation decides
            which, back = torch.unique(kept.of[near], return_inverse=True)
            exact = _as_among_all(maps[which], which % units, units, mesh)
            wrong = near[exact[back, pixel[near]] <= level[kept.of[near]]]
            right = torch.ones_like(pixel, dtype=torch.bool)
            right[wrong] = False
            yield kept.of[right], pixel[right]
        else:
            yield kept.of, pixel


def _as_among_all(maps: Tensor, unit: Tensor, units: int, mesh: Grid) -> Tensor:
    """Return maps ``[M, h, w]`` upsampled, each in its unit's place: how torch rounds depends on the channels."""
    order = unit.argsort(stable=True)
    count = unit.bincount(minlength=units)
    row = torch.empty_like(unit)
    row[order] = torch.arange(len(unit), device=unit.device) - (count.cumsum(0) - count)[unit[order]]
    placed = maps.new_zeros(int(count.max()), units, *mesh.cells)
    placed[row, unit] = maps
    return upsampled(placed, mesh.size)[row, unit].flatten(1)
