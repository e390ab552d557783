"""Order statistics of upsampled maps, from the few pixels that can be among the largest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .upsampling import CELLS, Grid, grid, mixed, nonzero, quotient, straight

PILOT = 8192
"""Pixels, or a quarter of all, by which the level is guessed below which none need be known."""

DEVIATIONS = (2.5, 16.0)
"""So far below its estimate a guess is. Where it leaves too few pixels the next is taken, then all."""


def neighbours(parts: Sequence[Tensor], size: tuple[int, int] | None, ranks: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the k-th and the next largest pixel of each unit, exactly, for each rank k: both ``[ranks, U]``.

    Parameters
    ----------
    parts
        Maps ``[U, N, h, w]`` in main memory, of one or more samples each.
    size
        What they are upsampled to; None: as they are.
    ranks
        Each at least 1, and less than there are pixels of a unit.
    """
    units, _, *cells = parts[0].shape
    before = (cells[0], cells[1])
    height, width = size or before
    mesh = None if size in (None, before) else grid(before, (height, width), parts[0].dtype, torch.device("cpu"))
    found: list[list[np.ndarray]] = []
    step = max(1, 16 * CELLS // (sum(part.shape[1] for part in parts) * height * width))
    for start in range(0, units, step):
        some = [part[start : start + step] for part in parts]
        maps = torch.cat(some, 1) if len(some) > 1 else some[0]
        found += _of_some(maps if maps[0, 0].is_contiguous() else maps.contiguous(), mesh, ranks)
    both = torch.from_numpy(np.array(found)).reshape(units, 2, len(ranks))
    return both[:, 0].T, both[:, 1].T


def _of_some(maps: Tensor, mesh: Grid | None, ranks: Sequence[int]) -> list[list[np.ndarray]]:
    """Return, for each unit of ``[U, N, h, w]``, the largest for each rank, and then the next for each."""
    k, bounds = max(ranks), _bounds(maps, mesh, max(ranks))
    found = []
    for unit, values in enumerate(_beyond(maps, mesh, k, bounds[0])):
        for bound, lower in zip(bounds[:-1, unit].tolist(), bounds[1:, unit : unit + 1]):
            if len(values) > k:
                break
            if bound == 0 and float(maps[unit].min()) == 0:
                # of a rectified unit that is mostly off, all other pixels are 0
                values = np.concatenate([np.zeros(k + 1 - len(values), values.dtype), values])
                break
            values = _beyond(maps[unit : unit + 1], mesh, k, lower)[0]
        found.append(_largest(values, [*ranks, *(rank + 1 for rank in ranks)]))
    return found


def _largest(values: np.ndarray, ranks: Sequence[int]) -> list[np.ndarray]:
    """Return the k-th largest along the last axis for each rank k."""
    found = {}
    for k in sorted(set(ranks), reverse=True):  # one after the other: several times as fast as together
        values = np.partition(values, -k)[..., -k:]
        found[k] = values[..., 0]
    return [found[k] for k in ranks]


def _beyond(maps: Tensor, mesh: Grid | None, k: int, bound: Tensor) -> list[np.ndarray]:
    """Return the pixels of each unit that exceed its bound; of very many only the largest, more than k."""
    if mesh is None:
        return [one.reshape(-1).index_select(0, nonzero(one > least)).numpy() for one, least in zip(maps, bound)]
    found: list[list[np.ndarray]] = [[np.empty(0, maps.numpy().dtype)] for _ in maps]
    samples = maps.shape[1]
    for quads, values, _, _ in mesh.above(maps, bound[:, None].expand(-1, samples)):
        there, count = torch.unique_consecutive(quotient(quads.of, samples), return_counts=True)
        for unit, pixels in zip(there.tolist(), torch.split(values, count.tolist(), 1)):
            part = pixels.reshape(-1)
            found[unit].append(part.index_select(0, nonzero(part > bound[unit])).numpy())
            if sum(map(len, found[unit])) > 2 * k + CELLS:
                joined = np.concatenate(found[unit])
                found[unit] = [np.partition(joined, -k - 1)[-k - 1 :]]
    return [np.concatenate(parts) for parts in found]


def _bounds(maps: Tensor, mesh: Grid | None, k: int) -> Tensor:
    """Guess, for each unit of ``[U, N, h, w]``, levels that more than k of its pixels exceed, but not many more.

    Returned are ``[guesses, U]``, from the highest to −∞.
    """
    units, samples = maps.shape[:2]
    pixels = samples * (maps[0, 0].numel() if mesh is None else mesh.size[0] * mesh.size[1])
    chance = torch.Generator().manual_seed(0)  # of the work to be done, not of any value

    def drawn(below: int) -> Tensor:
        return torch.randint(below, (min(PILOT, pixels // 4),), generator=chance)

    flat = straight(maps)
    chosen = drawn(samples).sort().values * maps.stride(1)  # in the order in which they lie in memory

    def cells(at: Tensor) -> Tensor:
        where = torch.arange(units)[:, None] * maps.stride(0) + (chosen + at)
        return flat.index_select(0, where.flatten()).reshape(where.shape)

    if mesh is None:
        seen = cells(drawn(maps[0, 0].numel()))
    else:
        quad = drawn(len(mesh.first))
        corners = torch.stack([cells(cell[quad]) for cell in mesh.corner])
        down, across = (weight[drawn(len(weight)), quad] for weight in (mesh.down, mesh.across))
        seen = mixed(corners, down[None], across[None])[:, 0]
        seen = seen[:, ~(down + across).isnan()]  # where a quad has fewer pixels
    share = k / pixels * seen.shape[1]
    ranks = [math.ceil(share + apart * (math.sqrt(share) + 1)) for apart in DEVIATIONS]
    guesses = _largest(seen.numpy(), [rank for rank in ranks if rank < seen.shape[1]])
    return torch.stack([*map(torch.from_numpy, guesses), seen.new_full((units,), -math.inf)])
