"""Order statistics of upsampled maps, from the few pixels that can be among the largest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .upsampling import CELLS, Grid, Quads, grid, nonzero

PILOT = 2048
"""Quads, or a sixteenth of all, by which the level is guessed below which no pixel need be known."""

MARGINS = (1.5, 4.0)
"""A guess leaves so many times as many pixels as are needed. Where it leaves too few the next is taken, then all."""


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
    plain = size is None or size == before
    mesh = None if plain else grid(before, size or before, parts[0].dtype, torch.device("cpu"))
    samples = sum(part.shape[1] for part in parts)
    found: list[np.ndarray] = []
    step = max(1, 4 * CELLS // (samples * cells[0] * cells[1]))
    for start in range(0, units, step):
        some = [part[start : start + step] for part in parts]
        maps = torch.cat(some, 1) if len(some) > 1 else some[0].contiguous()
        bounds = _bounds(maps, mesh, max(ranks))
        found += [_of_one(one, mesh, ranks, guesses) for one, guesses in zip(maps, bounds)]
    above, below = torch.from_numpy(np.stack(found, 2)).to(parts[0].dtype).unbind(0)
    return above, below


def _of_one(maps: Tensor, mesh: Grid | None, ranks: Sequence[int], bounds: Sequence[float]) -> np.ndarray:
    """Return both ``[2, ranks]`` for one unit, ``[N, h, w]``."""
    k = max(ranks)
    for bound in (*bounds, -math.inf):
        values = _beyond(maps, mesh, k, bound)
        if len(values) > k:
            break
        if bound == 0 and float(maps.min()) == 0:
            # of a rectified unit that is mostly off, all other pixels are 0
            values = np.concatenate([np.zeros(k + 1 - len(values), values.dtype), values])
            break
    at = len(values) - np.array([ranks, [k + 1 for k in ranks]])
    both: np.ndarray = np.partition(values, np.unique(at))[at]
    return both


def _beyond(maps: Tensor, mesh: Grid | None, k: int, bound: float) -> np.ndarray:
    """Return the pixels of one unit that exceed a bound; of very many only the largest, more than k."""
    if mesh is None:
        return maps.reshape(-1).index_select(0, nonzero(maps > bound)).numpy()
    found: list[np.ndarray] = []
    held = 0
    for _, values, _ in mesh.above(maps, maps.new_full((len(maps),), bound)):
        found.append(values.reshape(-1).index_select(0, nonzero(values > bound)).numpy())
        held += len(found[-1])
        if held > 2 * k + CELLS:
            joined = np.concatenate(found)
            found, held = [np.partition(joined, held - k - 1)[held - k - 1 :]], k + 1
    return np.concatenate(found) if found else np.empty(0)


def _bounds(maps: Tensor, mesh: Grid | None, k: int) -> list[list[float]]:
    """Guess, for each unit of ``[U, N, h, w]``, levels that more than k of its pixels exceed, but not many more."""
    units, samples = maps.shape[:2]
    chance = torch.Generator().manual_seed(0)  # of the work to be done, not of any value
    if mesh is None:
        all_of_them = maps[0].numel()
        chosen = torch.randint(all_of_them, (PILOT * 4,), generator=chance)
        seen = maps.reshape(units, -1).index_select(1, chosen)
    else:
        all_of_them = samples * mesh.size[0] * mesh.size[1]
        height, width = (n + 1 for n in mesh.cells)
        most = samples * height * width
        chosen = torch.randint(most, (min(PILOT, -(-most // 16)),), generator=chance)
        line = chosen // width
        quads = Quads(line // height, line % height, chosen % width)
        each = torch.arange(units)[:, None] * samples
        everywhere = Quads(
            (each + quads.of).flatten(), *(at.expand(units, -1).reshape(-1) for at in (quads.y, quads.x))
        )
        values = mesh.values(mesh.corners(maps, everywhere), everywhere).reshape(-1, units, len(chosen))
        seen = values.transpose(0, 1).flatten(1)
    there = int((~seen[0].isnan()).sum())
    seen.nan_to_num_(nan=-math.inf)
    ranks = [math.ceil(margin * k / all_of_them * there) + 8 for margin in MARGINS]
    ranks = [rank for rank in ranks if rank < there <= all_of_them / 4]
    if not ranks:
        return [[]] * units
    return seen.topk(ranks[-1], 1).values[:, [rank - 1 for rank in ranks]].tolist()
