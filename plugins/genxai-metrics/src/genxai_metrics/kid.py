"""The kernel inception distance, over all samples, with a standard error and an interval."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genxai_core import Spec

from .bootstrap import Estimate, left_out
from .features import FeatureMetric

_ROWS = 1024
"""Rows of a kernel matrix that are held at once: bounds memory at _ROWS × N numbers."""


class KID(FeatureMetric):
    """Squared maximum mean discrepancy between the features of real and of generated images. Lower is better.

    Bińkowski et al., "Demystifying MMD GANs", ICLR 2018. With features x of n real and y of m generated images and the
    kernel k(a, b) = (a·b / F + 1)^degree,

        KID = Σ_{i≠j} k(x_i, x_j) / n(n−1) + Σ_{i≠j} k(y_i, y_j) / m(m−1) − 2 Σ_{i,j} k(x_i, y_j) / nm.

    It is unbiased: its expectation is 0 for equal distributions, so that it may come out negative. Every pair of
    samples is used, in float64, where the usual implementations average over random subsets.

    ``kid_se`` is the delete-one jackknife's standard error (Arvesen, "Jackknifing U-statistics", 1969): every image of
    both sets is left out in turn. With KID_{−i} the value without x_i, and their mean over i as centre, x contributes
    (n−1)/n Σ_i (KID_{−i} − mean)² to the variance, and y likewise. Where both distributions are equal it is too large,
    by about √2.

    ``kid_low`` and ``kid_high`` are the ends of the 95 % bootstrap interval (BCa) of the distance of the two sources.
    Resampled are the influences of the images, (n−1)(mean − KID_{−i}): images drawn twice would bring kernels with
    themselves. On Gaussian features it held the truth in 90 % to 96 % of draws of 30 or 100 images where the
    distributions differ, and in 98 % and more where they are equal or nearly so.

    Parameters
    ----------
    extractor
        A model with ``features(images) -> [N, F]``, such as what ``trainer/classifier`` trains, or the Spec of one,
        such as ``discriminator/inception``.
    degree
        Of the polynomial kernel; the paper's is 3.

    Raises
    ------
    MissingCapability
        If the extractor has no features.
    ValueError
        If the degree is not positive.
    """

    higher_is_better = {"kid": False, "kid_se": None, "kid_low": None, "kid_high": None}

    def __init__(self, extractor: Spec | nn.Module, degree: int = 3) -> None:
        if degree < 1:
            raise ValueError(f"degree {degree} must be at least 1")
        super().__init__(extractor, by="metric/kid")
        self.degree = degree

    def compute(self) -> dict[str, float]:
        """Return ``kid``, ``kid_se``, ``kid_low`` and ``kid_high``.

        Raises
        ------
        InputError
            If there are fewer than three images of either set.
        """
        features = self._gathered(least=3)
        return kernel_distance(features["real"], features["generated"], self.degree).named("kid")


def kernel_distance(x: Tensor, y: Tensor, degree: int = 3) -> Estimate:
    """Return the unbiased squared MMD of features ``[n, F]`` and ``[m, F]``.

    Memory grows with n + m, time with (n + m)².
    """
    n, m = len(x), len(y)
    xx, yy, xy = (_sums(a, b, degree) for a, b in ((x, x), (y, y), (x, y)))
    xx, yy, yx = xx - _self(x, degree), yy - _self(y, degree), _sums(y, x, degree)
    within_x, within_y, across = xx.sum() / (n * (n - 1)), yy.sum() / (m * (m - 1)), xy.sum() / (n * m)
    without_x = (xx.sum() - 2 * xx) / ((n - 1) * (n - 2)) + within_y - 2 * (xy.sum() - xy) / ((n - 1) * m)
    without_y = within_x + (yy.sum() - 2 * yy) / ((m - 1) * (m - 2)) - 2 * (yx.sum() - yx) / (n * (m - 1))
    return Estimate(float(within_x + within_y - 2 * across), (left_out(without_x), left_out(without_y)))


def _sums(a: Tensor, b: Tensor, degree: int) -> Tensor:
    """Return ``[len(a)]``: for each row of a the sum of its kernel with every row of b."""
    chunks = (a[start : start + _ROWS] for start in range(0, len(a), _ROWS))
    return torch.cat([(rows @ b.T / a.shape[1] + 1).pow(degree).sum(1) for rows in chunks])


def _self(a: Tensor, degree: int) -> Tensor:
    """Return ``[len(a)]``: the kernel of each row with itself."""
    return (a.square().sum(1) / a.shape[1] + 1).pow(degree)
