"""Intervals over seeds, and what may be said of two contestants that met the same instances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Of the intervals; a difference counts where its corrected p is below 1 - LEVEL."""

SAME = 1e-9
"""Two scores closer than that are one score: arithmetic, not a difference."""

FEWEST = 5
"""Instances below which there is no verdict: two that happen to differ alike would make any test sure."""

LEAST = 1e-4
"""The share of the way from random to perfect below which two means are one, and two scores have one spread."""

Verdict = Literal["better", "same", "worse"]


class Interval(NamedTuple):
    """A mean with its interval."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2


def interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Return the mean and its 95 % interval by Student's t; NaN ends for a single value."""
    found = np.asarray(values, dtype=float)
    mean = float(found.mean())
    if len(found) < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found)))
    return Interval(mean, mean - half, mean + half)


def paired(differences: Sequence[float] | np.ndarray, least: float = SAME) -> float:
    """Return the two-sided p of Student's paired t test: how surprising the differences are, were their mean zero.

    Parameters
    ----------
    differences
        One for each instance.
    least
        Their spread is taken for this where it is less: the test does not know differences that are all the same, and
        no score is known any finer.
    """
    found = np.asarray(differences, dtype=float)
    found = np.where(np.abs(found) < SAME, 0.0, found)
    if len(found) < 2:
        return 1.0
    spread = max(float(found.std(ddof=1)), least, SAME)
    return float(2 * stats.t.sf(abs(float(found.mean())) / (spread / math.sqrt(len(found))), len(found) - 1))


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected for their number, step by step from the smallest on.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics, 1979: the
    k-th smallest of m is multiplied by m - k + 1, and none becomes smaller than the one before it.
    """
    corrected = [0.0] * len(ps)
    reached = 0.0
    for place, at in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        reached = max(reached, min(1.0, ps[at] * (len(ps) - place)))
        corrected[at] = reached
    return corrected


def verdict(difference: float, p: float, instances: int, least: float = 0.0) -> Verdict:
    """Say which of two is better; ``same`` where it cannot be told.

    Parameters
    ----------
    difference
        Their mean difference, positive where the first is better.
    p
        As `paired` and `holm` make it.
    instances
        How many they met; fewer than `FEWEST` tell nothing.
    least
        A smaller difference is none that matters.
    """
    if p >= 1 - LEVEL or instances < FEWEST or abs(difference) < least:
        return "same"
    return "better" if difference > 0 else "worse"
