"""Fidelity and diversity apart: precision and recall, density and coverage, by nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genxai_core import Spec

from .features import FeatureMetric, distances

_ROWS = 256
"""Rows of a distance matrix that are held at once: bounds memory at _ROWS × N numbers."""


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

    Balls are closed. Each ``…_se`` is the standard error of the mean over the images that are counted, the other set
    being given; it does not cover another draw of that set. Neighbours depend on the numbers of images: compare at
    equal numbers, and beside the figures of real against real. Time grows with (N + M)² times the number of features.

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
    }

    def __init__(self, extractor: Spec | nn.Module, neighbours: int = 5) -> None:
        if neighbours < 1:
            raise ValueError(f"neighbours {neighbours} must be at least 1")
        super().__init__(extractor, by="metric/precision-recall")
        self.neighbours = neighbours

    def compute(self) -> dict[str, float]:
        """Return the four figures and their standard errors.

        Raises
        ------
        InputError
            If there are no more images of either set than neighbours.
        """
        features = self._gathered(least=self.neighbours + 1)
        counts = neighbourhoods(features["real"], features["generated"], self.neighbours)
        means = {name: float(values.mean()) for name, values in counts.items()}
        errors = {f"{name}_se": float(v.std()) / len(v) ** 0.5 for name, v in counts.items()}
        return {**means, **errors}


def neighbourhoods(real: Tensor, generated: Tensor, k: int) -> dict[str, Tensor]:
    """Return what each image adds to each figure, by the figure's name: ``[N]`` or ``[M]``, of which it is the mean.

    Parameters
    ----------
    real, generated
        Features ``[N, F]`` and ``[M, F]``.
    k
        Number of neighbours.
    """
    radii, own = _radii(real, k), _radii(generated, k)
    hits = torch.zeros(len(generated), dtype=torch.float64)  # real balls around each generated image
    covered, recalled = [], []
    for start in range(0, len(real), _ROWS):
        apart = distances(real[start : start + _ROWS], generated)
        inside = apart <= radii[start : start + _ROWS, None]
        hits += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((apart <= own).any(1))
    return {
        "precision": (hits > 0).double(),
        "recall": torch.cat(recalled).double(),
        "density": hits / k,
        "coverage": torch.cat(covered).double(),
    }


def _radii(rows: Tensor, k: int) -> Tensor:
    """Return ``[N]``: the distance of each row to its k-th nearest other row."""
    parts = []
    for start in range(0, len(rows), _ROWS):
        apart = distances(rows[start : start + _ROWS], rows)
        apart[torch.arange(len(apart)), torch.arange(start, start + len(apart))] = torch.inf  # itself
        parts.append(apart.kthvalue(k, dim=1).values)
    return torch.cat(parts)
