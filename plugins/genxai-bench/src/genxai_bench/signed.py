"""Figures of signed maps against a region and what it is known to contribute."""

from __future__ import annotations

import torch
from torch import Tensor

from genxai_core import Attribution, Samples
from genxai_core.errors import InputError

from .maps import energy, plane


def finite(answer: Attribution, inputs: Samples) -> Tensor:
    """Return an answer's maps as ``[N, H, W]``, where the inputs are.

    Raises
    ------
    InputError
        If they are maps of other images, or not finite.
    """
    maps = plane(answer, inputs).to(inputs.images.device)
    if not bool(maps.isfinite().all()):
        raise InputError("the answer's maps are not finite (NaN or infinity), so they cannot be judged")
    return maps


def excess(maps: Tensor, region: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return by how much the share of magnitude in a region exceeds its share of area, ``[N]``.

    (energy − area) / (1 − area): 1 if all magnitude is inside, 0 as by chance, so that regions of any size compare.

    Parameters
    ----------
    maps
        ``[N, H, W]``.
    region
        bool ``[N, H, W]``.
    counted
        bool ``[N, H, W]``: the pixels that count; default: all.
    """
    counted = torch.ones_like(region) if counted is None else counted
    region = region & counted
    area = region.double().flatten(1).sum(1) / counted.double().flatten(1).sum(1)
    return (energy(maps * counted, region) - area) / (1 - area)


def inside(maps: Tensor, region: Tensor) -> Tensor:
    """Return the sum of a map in a region, ``[N]``."""
    return (maps * region).flatten(1).sum(1)


def agreement(found: Tensor, true: Tensor) -> float:
    """Return the share of numbers that have the right sign. A zero has none."""
    return float((found.sign() == true.sign()).double().mean())


def correlation(found: Tensor, true: Tensor) -> float:
    """Return Pearson's correlation of two vectors; 0 where one of them does not vary."""
    x, y = (_unit(v) for v in (found, true))
    still = x.norm() <= 1e-9 * found.numel() ** 0.5 or y.norm() <= 1e-9 * true.numel() ** 0.5
    return 0.0 if still else float(x @ y / (x.norm() * y.norm()))


def _unit(values: Tensor) -> Tensor:
    """Return a vector on the scale of 1, less its mean: squares of the whole range of double precision hold."""
    values = values.double()
    largest = values.abs().max()
    values = torch.where(largest > 0, values / largest, 0.0)
    return values - values.mean()


def pointing(maps: Tensor, region: Tensor) -> Tensor:
    """Return the share ``[N]`` of the pixels of largest magnitude that lie in the region: 0 or 1 but for ties."""
    mass = maps.abs().flatten(1)
    largest = mass == mass.amax(1, keepdim=True)
    return (largest & region.flatten(1)).double().sum(1) / largest.double().sum(1)


def auc(maps: Tensor, region: Tensor, counted: Tensor) -> Tensor:
    """Return the probability ``[N]`` that a pixel of the region has more magnitude than one outside; ties are half.

    Parameters
    ----------
    maps
        ``[N, H, W]``.
    region
        bool ``[N, H, W]``, neither empty nor everything that counts.
    counted
        bool ``[N, H, W]``: the pixels that count.
    """
    rows = []
    for mass, within, of in zip(maps.abs(), region, counted, strict=True):
        values, ins = mass[of], within[of]
        _, where, counts = torch.unique(values, return_inverse=True, return_counts=True)
        ends = counts.cumsum(0).double()
        ranks = (ends - (counts - 1) / 2)[where]  # the mean rank of what is tied
        n, m = int(ins.sum()), int((~ins).sum())
        rows.append((ranks[ins].sum() - n * (n + 1) / 2) / (n * m))
    return torch.stack(rows)
