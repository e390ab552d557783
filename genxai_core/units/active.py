"""The pixels in which units are active, and which concepts are there."""

from __future__ import annotations

import torch
from torch import Tensor

from .upsampling import CELLS, Grid, exceeding, grid, nonzero, quotient, upsampled

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
                packed.add_(planes[:, first + bit], alpha=1 << bit)
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
    level, maps = thresholds.to(maps.device), maps.detach().contiguous()
    found = torch.zeros(len(concepts.bytes), units * 256, dtype=torch.long, device=maps.device)
    mesh = grid((cells[0], cells[1]), concepts.size, maps.dtype, maps.device)
    place = concepts.size[0] * concepts.size[1]

    def add(line: Tensor, at: Tensor, sign: int = 1) -> None:
        for total, byte in zip(found, concepts.bytes):
            total.add_((line + byte.index_select(0, at)).bincount(minlength=units * 256), alpha=sign)

    doubtful: list[tuple[Tensor, Tensor]] = []

    def decide() -> None:
        of, at = (torch.cat(parts) for parts in zip(*doubtful))
        doubtful.clear()
        pixel = at - quotient(of, units) * place
        wrong = ~(_as_among_all(maps.flatten(0, 1), of, pixel, units, mesh) > level[of % units])
        add(of[wrong] % units * 256, at[wrong], -1)

    step = max(1, CELLS // maps[0].numel())
    for start in range(0, n, step):
        part = maps[start : start + step]
        levels = level.expand(len(part), units)
        if mesh.cells == mesh.size:  # upsampling changes nothing
            of, pixel = _divided(nonzero(exceeding(part, levels)), place)
            sample, unit = _divided(of, units)
            add(unit * 256, (sample + start) * place + pixel)
            continue
        for quads, values, edge, doubt in mesh.above(part, levels):
            sample, unit = _divided(quads.of, units)
            line, first = unit * 256, (sample + start) * place + mesh.first.index_select(0, quads.at)
            active = values > edge - doubt
            near = nonzero((values <= edge + doubt) & active)
            row, k = _divided(nonzero(active), len(quads))
            add(line.index_select(0, k), first.index_select(0, k) + mesh.offset.index_select(0, row))
            if len(near):  # so near the threshold that only the very same computation decides
                row, k = _divided(near, len(quads))
                doubtful.append((quads.of[k] + start * units, first[k] + mesh.offset[row]))
                if sum(len(waiting) for waiting, _ in doubtful) > CELLS:
                    decide()
    if doubtful:
        decide()
    return found.reshape(-1, units, 256)


def _divided(index: Tensor, by: int) -> tuple[Tensor, Tensor]:
    whole = quotient(index, by)
    return whole, index - whole * by


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
