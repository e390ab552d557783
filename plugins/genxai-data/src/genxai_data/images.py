"""What the datasets share: checks of sizes and ranges, scaling, resizing, and a bounded store of decoded images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

STORE_BYTES = 256 * 2**20
"""How much a dataset keeps of what it has rendered or decoded: training visits each image many times."""


def check_range(value_range: tuple[float, float]) -> tuple[float, float]:
    """Return the range as a tuple of floats; raise ValueError if it is empty."""
    low, high = (float(v) for v in value_range)
    if not low < high:
        raise ValueError(f"value_range ({low}, {high}) is empty; give (smallest, largest), such as (-1.0, 1.0)")
    return low, high


def check_size(size: int, low: int, high: int) -> int:
    """Return the size; raise ValueError if it is out of bounds."""
    if not low <= size <= high:
        raise ValueError(f"size {size} is not between {low} and {high}")
    return size


def scaled(images: Tensor, top: int, value_range: tuple[float, float]) -> Tensor:
    """Map levels 0…top linearly to ``value_range``, as float32; the ends are met exactly."""
    low, high = value_range
    share = images.float() / top
    return low * (1 - share) + high * share


def resized(images: Tensor, size: int) -> Tensor:
    """Resize float images ``[N, C, H, W]`` bilinearly (``align_corners=False``), antialiased where they shrink."""
    if images.shape[2:] == (size, size):
        return images
    return interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


class Store:
    """Arrays made on demand, kept until `STORE_BYTES` are full.

    Parameters
    ----------
    make
        Makes the array of one row. All arrays have one shape, and the same row always gives the same array.
    """

    def __init__(self, make: Callable[[int], np.ndarray]) -> None:
        self._make = make
        self._kept: dict[int, np.ndarray] = {}
        self._bytes = 0

    def stack(self, rows: list[int]) -> Tensor:
        """Return ``[len(rows), …]``."""
        if not rows:
            return torch.from_numpy(self._one(0)[None])[:0]
        return torch.from_numpy(np.stack([self._one(row) for row in rows]))

    def _one(self, row: int) -> np.ndarray:
        kept = self._kept.get(row)
        if kept is not None:
            return kept
        array = self._make(row)
        if self._bytes + array.nbytes <= STORE_BYTES:
            self._kept[row] = array
            self._bytes += array.nbytes
        return array
