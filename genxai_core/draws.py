"""Random draws addressed by (seed, index): sample i is the same in any batch, process or resumed run.

Each index has its own counter range of the Philox generator (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011), as numpy implements it.
"""

from __future__ import annotations

import functools
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, index: int, stream: str) -> np.random.Generator:
    """Return the generator of one index.

    Parameters
    ----------
    seed
        Any integer; taken modulo 2**64.
    index
        Which sample, step or epoch; not negative.
    stream
        Names what is drawn, so that latents and data order never share numbers.

    Raises
    ------
    ValueError
        If the index is negative.
    """
    return np.random.Generator(np.random.Philox(key=_key(seed, stream), counter=[0, 0, _counter(index), 0]))


def _key(seed: int, stream: str) -> np.ndarray:
    return np.array([seed % 2**64, zlib.crc32(stream.encode())], dtype=np.uint64)


def _counter(index: int) -> int:
    if index < 0:  # numpy would wrap it round to the far end
        raise ValueError(f"index {index} is negative")
    return int(index)


@functools.lru_cache(maxsize=64)
def _source(seed: int, stream: str, thread: int) -> tuple[np.random.Philox, np.random.Generator, Any]:
    """Return what `_rows` sets to a counter before each draw: one for each thread, since its draws change it."""
    bits = np.random.Philox(key=_key(seed, stream))
    return bits, np.random.Generator(bits), bits.state


def _rows(
    draw: Callable[[np.random.Generator], np.ndarray], seed: int, indices: Sequence[int] | range, stream: str
) -> Tensor:
    """Draw a row for each index, by one generator that is set to its counter: a new one takes four times as long."""
    bits, drawn, state = _source(seed, stream, threading.get_ident())
    rows = []
    for index in indices:
        state["state"]["counter"][:] = (0, 0, _counter(index), 0)
        bits.state = state
        rows.append(draw(drawn))
    return torch.from_numpy(np.stack(rows))


def normal(seed: int, indices: Sequence[int] | range, shape: Sequence[int], stream: str = "latents") -> Tensor:
    """Draw standard normal float32 rows ``[len(indices), *shape]``; row i depends on ``(seed, indices[i])`` only."""
    if not len(indices):
        return torch.empty(0, *shape)
    return _rows(lambda g: g.standard_normal(tuple(shape), dtype=np.float32), seed, indices, stream)


def uniform(seed: int, indices: Sequence[int] | range, shape: Sequence[int], stream: str = "uniform") -> Tensor:
    """Draw float32 rows uniform on [0, 1)."""
    if not len(indices):
        return torch.empty(0, *shape)
    return _rows(lambda g: g.random(tuple(shape), dtype=np.float32), seed, indices, stream)


def integers(seed: int, indices: Sequence[int] | range, high: int, stream: str = "integers") -> Tensor:
    """Draw one int64 in [0, high) per index."""
    return torch.tensor([int(generator(seed, i, stream).integers(high)) for i in indices], dtype=torch.long)


def permutation(seed: int, epoch: int, n: int, stream: str = "order") -> np.ndarray:
    """Return the order in which n items are visited in an epoch, as an int64 array."""
    return generator(seed, epoch, stream).permutation(n)


_order = functools.lru_cache(maxsize=4)(permutation)
"""For `batch_indices`, which asks for the same order at each step of an epoch, and only reads it."""


def batch_indices(seed: int, step: int, batch: int, n: int) -> list[int]:
    """Return which of n items make up the batch of a step: shuffled epochs, one after another, without a remainder.

    Depends on ``(seed, step)`` only, so that a resumed training sees the same data in the same order.
    """
    chosen: list[int] = []
    position = step * batch
    while len(chosen) < batch:
        epoch, offset = divmod(position, n)
        take = _order(seed, epoch, n)[offset : offset + batch - len(chosen)]
        chosen.extend(take.tolist())
        position += len(take)
    return chosen
