"""Fidelity and diversity apart: precision and recall, density and coverage, by nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genxai_core import Spec

from .bootstrap import Estimate, left_out
from .features import FeatureMetric, distances

_ROWS = 256
"""Rows of a distance matrix that are held at once: bounds memory at some k · _ROWS × N numbers."""

_ADDED = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
"""What Agresti and Coull add to a sample of hits and misses, at 95 %."""


class PrecisionRecall(FeatureMetric):
    """How many generated images look real, and how much of what is real is generated. Four figures, higher is better.

    Each real image x_i has a ball with the radius r_i of its k-th nearest neighbour among the other real images (in
    the extractor's features, Euclidean), each generated image y_j one of radius s_j among the generated. With
    1[…] the indicator, over N real and M generated images:

    - ``precision`` = (1/M) Σ_j 1[y_j lies in some real ball]: fidelity, in [0, 1];
    - ``recall`` = (1/N) Σ_i 1[x_i lies in some generated ball]: diversity, in [0, 1];
    - ``density`` = (1/kM) Σ_j (number of real balls that y_j lies in): fidelity, from 0, about 1 where the
      distributions are equal; an outlier among the real images counts for little in it;
    - ``coverage`` = (1/N) Σ_i 1[some y_j lies in x_i's ball]: diversity, in [0, 1]; outliers among the generated
      images do not raise it. For equal distributions it is expected at
      1 − Π_{l=1..k} (N − l)/(N + M − l), about 1 − 2^−k where N = M.

    Balls are closed. Neighbours depend on the numbers of images: compare at equal numbers, and beside the figures of
    real against real. Time grows with (N + M)² times the number of features.

    Each ``…_se`` is the delete-one jackknife's standard error: every image of *both* sets is left out in turn, and
    the balls that it helped to measure grow to the next neighbour. ``…_low`` and ``…_high`` are the ends of the 95 %
    bootstrap interval (BCa) of the figure's expectation at these numbers of images. Resampled are the influences that
    the jackknife finds: among images drawn twice, neighbours would be at distance 0. For the three shares two hits and
    two misses are added to the images that are counted (Agresti and Coull, The American Statistician 1998), without
    which the interval of a share of 1 had no width. Where hardly any image lies in a ball, density's covers less (in a
    simulation with 40 images, 3 % of them in a ball, 74 %; with 120, 89 %), and so does recall's where a single
    generated outlier decides (87 % to 90 %).

    Parameters
    ----------
    extractor
        A model with ``features(images) -> [N, F]``, such as what ``trainer/classifier`` trains, or the Spec of one,
        such as ``discriminator/inception``.
    neighbours
        k, at least 1; 5 as in Naeem et al.

    Raises
    ------
    MissingCapability
        If the extractor has no features.
    ValueError
        If the number of neighbours is not positive.

    References
    ----------
    T. Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS
    2019; M. Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020.
    """

    higher_is_better = {
        "precision": True,
        "recall": True,
        "density": True,
        "coverage": True,
        "precision_se": None,
        "recall_se": None,
        "density_se": None,
        "coverage_se": None,
        "precision_low": None,
        "recall_low": None,
        "density_low": None,
        "coverage_low": None,
        "precision_high": None,
        "recall_high": None,
        "density_high": None,
        "coverage_high": None,
    }

    def __init__(self, extractor: Spec | nn.Module, neighbours: int = 5) -> None:
        if neighbours < 1:
            raise ValueError(f"neighbours {neighbours} must be at least 1")
        super().__init__(extractor, by="metric/precision-recall")
        self.neighbours = neighbours

    def compute(self) -> dict[str, float]:
        """Return the four figures, their standard errors, and the ends of their intervals.

        Raises
        ------
        InputError
            If there are no more images of either set than neighbours.
        """
        features = self._gathered(least=self.neighbours + 1)
        found = neighbourhoods(features["real"], features["generated"], self.neighbours)
        ends = {name: f.interval() for name, f in found.items()}
        return {
            **{name: f.counted.mean().item() for name, f in found.items()},
            **{f"{name}_se": f.estimate().error for name, f in found.items()},
            **{f"{name}_low": low for name, (low, _) in ends.items()},
            **{f"{name}_high": high for name, (_, high) in ends.items()},
        }


@dataclass(frozen=True)
class Neighbourly:
    """One of the four figures.

    Attributes
    ----------
    counted
        What each image of the one set adds to it, of which it is the mean: 0 or 1 where it is a share, but for the
        effect that the image has on others.
    without
        The figure without each image of the other set.
    share
        Whether it is a share of images.
    """

    counted: Tensor
    without: Tensor
    share: bool = True

    def estimate(self, *more: Tensor) -> Estimate:
        """Return it with its influences, with more images counted."""
        counted = torch.cat([self.counted, *more])
        return Estimate(float(counted.mean()), (counted - counted.mean(), left_out(self.without)))

    def interval(self) -> tuple[float, float]:
        """Return its 95 % interval."""
        return self.estimate(_ADDED).interval(0.0, 1.0) if self.share else self.estimate().interval(0.0)


def neighbourhoods(real: Tensor, generated: Tensor, k: int) -> dict[str, Neighbourly]:
    """Return the figures by their names.

    Parameters
    ----------
    real, generated
        Features ``[N, F]`` and ``[M, F]``.
    k
        Number of neighbours.
    """
    fidelity, density, coverage = _balls_around(real, generated, k)
    recall, _, _ = _balls_around(generated, real, k)
    return {"precision": fidelity, "recall": recall, "density": density, "coverage": coverage}


def _balls_around(centres: Tensor, points: Tensor, k: int) -> tuple[Neighbourly, Neighbourly, Neighbourly]:
    """Return precision, density and coverage of points by the balls of centres, with the jackknife over both.

    Without centre i its own ball is gone, and the balls of which it is one of the k neighbours reach the next one.
    """
    n, m = len(centres), len(points)
    neighbours, radii, wider = _nearest(centres, k)
    hits = torch.zeros(m, dtype=torch.float64)  # balls around each point
    held, total = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)  # of hits, without centre i
    inside_of, reached = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.bool)  # points in each ball
    alone = torch.zeros(n, dtype=torch.long)  # sum of the points in each ball: the point, where it is one
    for start in range(0, m, _ROWS):
        stop = min(start + _ROWS, m)
        apart = distances(centres, points[start:stop])
        inside, within = apart <= radii[:, None], apart <= wider[:, None]
        hits[start:stop] = inside.sum(0).double()
        left = inside.sum(0, dtype=torch.int32) - inside.int()
        left.index_add_(0, neighbours.flatten(), (within & ~inside).int().repeat_interleave(k, 0))
        held += (left > 0).sum(1)
        total += left.sum(1)
        inside_of += inside.sum(1)
        reached |= within.any(1)
        alone += torch.where(inside, torch.arange(start, stop), 0).sum(1)
    covered = (inside_of > 0).double()
    gained = torch.zeros(n, dtype=torch.float64)  # other balls that hold a point only without centre i
    gained.index_add_(0, neighbours.flatten(), (reached.double() - covered).repeat_interleave(k))
    without_centre = (covered.sum() - covered + gained) / (n - 1)
    single = alone[inside_of == 1].bincount(minlength=m).double()  # balls that hold this point and no other
    return (
        Neighbourly((hits > 0).double(), held / m),
        Neighbourly(hits / k, total / (k * m), share=False),
        Neighbourly(covered.mean() + left_out(without_centre), covered.mean() - single / n),
    )


def _nearest(rows: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the k nearest other rows ``[N, k]`` of each, the distance ``[N]`` of the last, and of the one after it."""
    parts = []
    for start in range(0, len(rows), _ROWS):
        apart = distances(rows[start : start + _ROWS], rows)
        apart[torch.arange(len(apart)), torch.arange(start, start + len(apart))] = torch.inf  # itself
        parts.append(apart.topk(k + 1, dim=1, largest=False))  # of k + 1 rows the last is itself: no bound
    values, found = torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])
    return found[:, :k], values[:, k - 1], values[:, k]
