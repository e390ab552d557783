"""The threshold above which a unit counts as active: an exact quantile of all its cells."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..samples import integer
from .extremes import neighbours
from .layers import watching
from .upsampling import ROUNDING, finite, spatial


class Thresholds:
    """What `threshold` yields: every map seen so far, at the layer's own resolution, in main memory.

    Upsampled maps are never kept: of them only those pixels are computed that can be among the largest.

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
        self._maps: dict[str, list[Tensor]] = {layer: [] for layer in layers}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(self._maps)

    def see(self, activations: Mapping[str, Tensor]) -> None:
        """Take in activations that are at hand, such as those that `record` keeps: of all the layers.

        They are not copied if they are in main memory, so do not change them afterwards.

        Raises
        ------
        InputError
            If an activation is not finite, or of another shape than before.
        """
        for layer in self.layers:
            self._see(layer, activations[layer], copy=False)

    def _see(self, layer: str, activation: Tensor, copy: bool = True) -> None:
        activation = activation.detach()
        if not finite(activation):
            raise InputError(f"layer {layer!r} returns NaN or infinity; check the model's weights and its inputs")
        maps, parts = spatial(activation), self._maps[layer]
        if parts and len(parts[0]) != maps.shape[1]:
            raise InputError(f"layer {layer!r} returned {len(parts[0])} units before and {maps.shape[1]} now")
        if parts and parts[0].shape[2:] != maps.shape[2:]:
            found = f"{list(parts[0].shape[2:])} cells before and {list(maps.shape[2:])} now"
            raise InputError(f"layer {layer!r} returned {found}; use images of one size")
        parts.append(maps.transpose(0, 1).to("cpu", copy=copy))

    def cells(self, layer: str) -> int:
        """Return how many cells of each unit of a layer were seen, after upsampling."""
        height, width = self.size or (self._maps[layer][0].shape[2:] if self._maps[layer] else (0, 0))
        return sum(part.shape[1] for part in self._maps[layer]) * height * width

    def values(self, quantile: float | None = None) -> dict[str, Tensor]:
        """Return the thresholds ``[U]`` of each layer.

        Of a unit's n cells, the k = (1 − quantile)·n largest (rounded to the nearest integer) exceed its threshold: it
        lies midway between the k-th and the next largest, so that rounding moves no cell across. Where these two are
        equal but for rounding, as in a unit that is constant, it lies just above them, and fewer exceed it. In a unit
        that is mostly 0 it is 0.

        Parameters
        ----------
        quantile
            Another one than that given at the start.

        Raises
        ------
        InputError
            If a layer did not run, or there are too few cells for the quantile.
        """
        return {layer: levels[0] for layer, levels in self.levels([quantile or self.quantile]).items()}

    def levels(self, quantiles: Sequence[float]) -> dict[str, Tensor]:
        """Return the thresholds ``[quantiles, U]`` of each layer, all from one pass; see `values`."""
        return {layer: self._of(layer, parts, quantiles) for layer, parts in self._maps.items()}

    def _of(self, layer: str, parts: list[Tensor], quantiles: Sequence[float]) -> Tensor:
        if not parts:
            raise InputError(f"layer {layer!r} did not run, so it has no thresholds")
        n = self.cells(layer)
        ranks = [math.floor(round((1 - quantile) * n, 6) + 0.5) for quantile in quantiles]
        for quantile, k in zip(quantiles, ranks):
            if not 0 < k < n:
                needed = math.ceil(round(0.5 / min(quantile, 1 - quantile), 6))
                raise InputError(
                    f"layer {layer!r}: {n} cells per unit are too few for the quantile {quantile}, which needs "
                    f"{needed}; run more samples, or choose another"
                )
        above, below = neighbours(parts, self.size, ranks)
        middle = below + (above - below) / 2
        middle = torch.where(middle < above, middle, below)  # between neighbouring floats there is nothing
        rounding = ROUNDING * torch.finfo(above.dtype).eps * above.abs()
        as_they_are = self.size in (None, tuple(parts[0].shape[2:]))
        apart = above > below if as_they_are else above - below > rounding
        # twice: a pixel of this value, in whichever way it is computed, does not exceed it and is not in doubt
        return torch.where(apart, middle, above + 2 * rounding)

    def merge(self, other: Self) -> None:
        """Take in what another one has seen, as if this one had seen it; the values are equal bit for bit.

        Raises
        ------
        InputError
            If the other is of other layers, another quantile or another size.
        """
        if (self.quantile, self.size, self._maps.keys()) != (other.quantile, other.size, other._maps.keys()):
            raise InputError("thresholds of other layers, another quantile or another size cannot be merged")
        for layer, parts in other._maps.items():
            shapes = [[len(p[0]), *p[0].shape[2:]] for p in (self._maps[layer], parts) if p]
            if len(shapes) == 2 and shapes[0] != shapes[1]:
                raise InputError(f"layer {layer!r}: {shapes[0][0]} and {shapes[1][0]} units, maps {shapes}")
        for layer, parts in other._maps.items():
            self._maps[layer].extend(parts)


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
