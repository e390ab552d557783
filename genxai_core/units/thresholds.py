"""The threshold above which a unit counts as active: an exact quantile of all its cells."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..samples import integer
from .layers import watching


class Thresholds:
    """What `threshold` yields: every cell seen so far, by layer and unit, in main memory.

    Parameters
    ----------
    layers
        Their names.
    quantile
        In (0, 1).
    size
        What maps are upsampled to first; None: they are taken as they are.
    """

    def __init__(self, layers: Iterable[str], quantile: float, size: tuple[int, int] | None = None) -> None:
        if not isinstance(quantile, int | float) or not 0 < quantile < 1:
            raise InputError(f"quantile={quantile!r} is not between 0 and 1, such as 0.995 for the top 0.5 %")
        self.quantile, self.size = quantile, None if size is None else _checked_size(size)
        self._cells: dict[str, list[Tensor]] = {layer: [] for layer in layers}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(self._cells)

    def _see(self, layer: str, activation: Tensor) -> None:
        activation = activation.detach()
        if not bool(torch.isfinite(activation).all()):
            raise InputError(f"layer {layer!r} returns NaN or infinity; check the model's weights and its inputs")
        maps = spatial(activation)
        if self.size is not None:
            maps = upsampled(maps, self.size)
        parts = self._cells[layer]
        if parts and len(parts[0]) != maps.shape[1]:
            raise InputError(f"layer {layer!r} returned {len(parts[0])} units before and {maps.shape[1]} now")
        parts.append(maps.transpose(0, 1).flatten(1).cpu().clone())

    def values(self) -> dict[str, Tensor]:
        """Return the thresholds ``[U]`` of each layer.

        Of a unit's n cells, the k = (1 − quantile)·n largest (rounded to the nearest integer) exceed its threshold: it
        lies midway between the k-th and the next largest, so that rounding moves no cell across. Where these two are
        equal, as in a unit that is mostly 0, it is their value, and fewer exceed it.

        Raises
        ------
        InputError
            If a layer did not run, or there are too few cells for the quantile.
        """
        return {layer: self._of(layer, parts) for layer, parts in self._cells.items()}

    def _of(self, layer: str, parts: list[Tensor]) -> Tensor:
        if not parts:
            raise InputError(f"layer {layer!r} did not run, so it has no thresholds")
        cells = torch.cat(parts, 1)
        n = cells.shape[1]
        k = math.floor(round((1 - self.quantile) * n, 6) + 0.5)
        if not 0 < k < n:
            needed = math.ceil(round(0.5 / min(self.quantile, 1 - self.quantile), 6))
            raise InputError(
                f"layer {layer!r}: {n} cells per unit are too few for the quantile {self.quantile}, which needs "
                f"{needed}; run more samples, or choose another"
            )
        above = cells.kthvalue(n - k + 1, 1).values
        below = cells.kthvalue(n - k, 1).values
        middle = below + (above - below) / 2
        return torch.where(middle < above, middle, below)  # between neighbouring floats there is nothing

    def merge(self, other: Self) -> None:
        """Take in what another one has seen, as if this one had seen it; the values are equal bit for bit.

        Raises
        ------
        InputError
            If the other is of other layers, another quantile or another size.
        """
        if (self.quantile, self.size, self._cells.keys()) != (other.quantile, other.size, other._cells.keys()):
            raise InputError("thresholds of other layers, another quantile or another size cannot be merged")
        for layer, parts in other._cells.items():
            if self._cells[layer] and parts and len(parts[0]) != len(self._cells[layer][0]):
                raise InputError(f"layer {layer!r}: {len(self._cells[layer][0])} and {len(parts[0])} units")
        for layer, parts in other._cells.items():
            self._cells[layer].extend(parts)


@contextlib.contextmanager
def threshold(
    model: nn.Module, layers: str | Iterable[str], quantile: float, *, size: tuple[int, int] | None = None
) -> Iterator[Thresholds]:
    """Collect the cells of every forward in the block; ``.values()`` are the thresholds.

    Parameters
    ----------
    model
        Any module.
    layers
        Names of layers, or one. Each call of a layer counts.
    quantile
        Share of a unit's cells, over all samples and positions, that stay below its threshold: 0.995 in GAN Dissection.
    size
        ``(H, W)``: count the cells of maps that are upsampled so (bilinear, ``align_corners=False``) first. None: the
        layer's own.

    Yields
    ------
    Thresholds
        Readable and mergeable during and after the block.

    Raises
    ------
    InputError
        If an argument has no meaning, or, in the forward, an activation is not finite.
    """
    collector = Thresholds((layers,) if isinstance(layers, str) else layers, quantile, size)
    with watching(model, collector.layers, collector._see):
        yield collector


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    try:
        height, width = map(integer, size)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise InputError(f"size={size!r} is not (H, W), two positive integers")
    return height, width


def spatial(activation: Tensor) -> Tensor:
    """Return ``[N, U, h, w]`` in at least float32, with one cell where the layer is flat."""
    maps = activation if activation.ndim == 4 else activation[:, :, None, None]
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ``[N, U, H, W]``, bilinear with ``align_corners=False``."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
