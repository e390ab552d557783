"""Standard errors and bootstrap intervals of figures, from what every image contributes to them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from genxai_core import draws

TAILS = (0.025, 0.975)
"""Of every interval: it is meant to cover 95 %."""

RESAMPLES = 2000
_AT_ONCE = 2**22
"""Drawn indices that are held at once."""


@dataclass(frozen=True)
class Estimate:
    """A figure, and the influence on it of every image: how far it moves when the image weighs more, to first order.

    Where the figure is a mean, an image's influence is its own value less the mean. Where it is not, it is found by
    leaving the image out of the n of its set (`left_out`), or in closed form, and the figure moves nearly as the mean
    of the influences does. **What is resampled are the influences**, not the images: an image that is drawn twice has
    no kernel with itself, no neighbour at distance 0, and costs no covariance of full rank; and the figures are
    computed once.

    Influences are sorted before they are drawn by position, with a seed of their own. So the interval depends on the
    order of the images no more than the figure does, and moves by no more than rounding when the influences do.

    Attributes
    ----------
    value
        The figure.
    influences
        One ``[n]`` per set of images that is drawn independently, each of mean 0 and at least two images.
    """

    value: float
    influences: tuple[Tensor, ...]

    @property
    def error(self) -> float:
        """The jackknife's standard error: √Σ Var(influences) / n, over the sets (Efron and Stein 1981)."""
        return math.sqrt(sum(float(h.var()) / len(h) for h in self.influences))

    def interval(self, low: float = -math.inf, high: float = math.inf) -> tuple[float, float]:
        """Return the 95 % interval of the figure's expectation *at these numbers of images*, kept to [low, high].

        BCa (Efron, "Better Bootstrap Confidence Intervals", JASA 1987) over 2,000 resamples: percentiles, moved by the
        skewness a of the mean of the influences. Its bias correction is a, too, as it is for a mean (Efron and
        Tibshirani, "An Introduction to the Bootstrap", 1993), which needs no drawing. The resampled means are given
        their mean, 0, and their variance, the jackknife's. A bias that falls with the number of images is not in it.
        """
        error = self.error
        if error == 0:  # no image moves it
            return min(max(self.value, low), high), min(max(self.value, low), high)
        moved = torch.stack([_resampled_means(h, f"bootstrap-{i}") for i, h in enumerate(self.influences)]).sum(0)
        moved = (moved - moved.mean()) * (error / moved.std())  # what is known of them need not be drawn
        skewness = sum(float(h.pow(3).sum()) / len(h) ** 3 for h in self.influences) / error**3 / 6
        quantiles = []
        for tail in TAILS:
            z = skewness + NormalDist().inv_cdf(tail)
            quantiles.append(NormalDist().cdf(skewness + z / (1 - skewness * z)))
        ends = self.value + torch.quantile(moved, torch.tensor(quantiles, dtype=torch.float64))
        return min(max(float(ends[0]), low), high), min(max(float(ends[1]), low), high)

    def named(self, name: str, low: float = -math.inf, high: float = math.inf) -> dict[str, float]:
        """Return ``{name, name_se, name_low, name_high}``."""
        ends = self.interval(low, high)
        return {name: self.value, f"{name}_se": self.error, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def left_out(values: Tensor) -> Tensor:
    """Return the influences of n images, given the figure ``[n]`` without each of them in turn.

    Their variance is on average no less than it should be, whatever the figure (Efron and Stein, "The Jackknife
    Estimate of Variance", Annals of Statistics 1981).
    """
    return (len(values) - 1) * (values.mean() - values)


def binomial_interval(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of Clopper and Pearson for the chance of a hit; (0, 1) of no trials.

    C. Clopper, E. Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial",
    Biometrika 1934. It covers at least 95 %, whatever the chance.
    """
    ways = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(n + 1)]

    def at_most(count: int, chance: float) -> float:
        logs = (math.log(chance), math.log1p(-chance))
        return math.fsum(math.exp(ways[i] + i * logs[0] + (n - i) * logs[1]) for i in range(count + 1))

    def solved(count: int, tail: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):  # at_most falls with the chance
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(count, middle) > tail else (low, middle)
        return middle

    return (solved(hits - 1, TAILS[1]) if hits else 0.0), (solved(hits, TAILS[0]) if hits < n else 1.0)


def _resampled_means(influences: Tensor, stream: str) -> Tensor:
    """Return the means ``[RESAMPLES]`` of as many influences, drawn with replacement, with their unbiased variance."""
    n = len(influences)
    ordered = influences.sort().values * math.sqrt(n / (n - 1))
    rows = max(1, _AT_ONCE // n)
    parts = []
    for start in range(0, RESAMPLES, rows):
        shape = (min(rows, RESAMPLES - start), n)
        drawn = draws.generator(0, start, stream).integers(n, size=shape, dtype="int32")
        parts.append(ordered[torch.from_numpy(drawn)].mean(1))
    return torch.cat(parts)
