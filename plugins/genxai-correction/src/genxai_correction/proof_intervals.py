"""95 % intervals of a proof's figures: of a share, of the paired difference of two shares, of a mean."""

from __future__ import annotations

import math
from statistics import NormalDist

from torch import Tensor

Z = NormalDist().inv_cdf(0.975)
"""1.96: of every interval."""

Figure = tuple[float, float, float]
"""A value, and the lower and upper end of its interval."""


def of_share(hits: Tensor) -> Figure:
    """Return the share of hits with Wilson's interval (JASA 1927).

    With p = hits / n: (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n). It has a width where p is 0 or 1, too.

    Parameters
    ----------
    hits
        Bool ``[n]``, n ≥ 1.
    """
    n, p = len(hits), float(hits.double().mean())
    middle = p + Z**2 / (2 * n)
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    low, high = (middle - half) / scale, (middle + half) / scale
    return p, 0.0 if p == 0 else low, 1.0 if p == 1 else high  # where it is, but for rounding


def of_difference(first: Tensor, second: Tensor, comparisons: int = 1) -> Figure:
    """Return the share of hits in one run less that in another run of the same samples, with its interval.

    Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine
    2005: half a sample is added to each of the four cells. With b samples hit in the first run only, c in the second
    only, and n′ = n + 2, b′ = b + ½, c′ = c + ½:

        (b′ − c′)/n′ ± z √(b′ + c′ − (b′ − c′)²/n′) / n′.

    It has a width where the runs agree in all samples, too.

    Parameters
    ----------
    first, second
        Bool ``[n]``, n ≥ 1; row i of both is the same sample.
    comparisons
        Of how many such intervals all should hold in 95 % of cases (Bonferroni): z is that of 5 % / comparisons.
    """
    n, z = len(first), NormalDist().inv_cdf(1 - 0.025 / comparisons)
    b, c = float((first & ~second).sum()), float((second & ~first).sum())
    middle = (b - c) / (n + 2)
    half = z * math.sqrt(b + c + 1 - (b - c) ** 2 / (n + 2)) / (n + 2)
    return (b - c) / n, max(-1.0, middle - half), min(1.0, middle + half)


def of_mean(values: Tensor) -> Figure:
    """Return the mean of numbers that are not negative, ± z s / √n with s² = Σ(v − mean)² / (n − 1), at least 0.

    Parameters
    ----------
    values
        ``[n]`` float64, n ≥ 2.
    """
    mean = float(values.mean())
    half = Z * float(values.std()) / math.sqrt(len(values))
    return mean, max(0.0, mean - half), mean + half
