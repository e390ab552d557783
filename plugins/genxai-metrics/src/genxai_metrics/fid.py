"""The Fréchet inception distance, with a standard error and an interval."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genxai_core import Spec
from genxai_core.errors import InputError

from .bootstrap import Estimate
from .features import FeatureMetric


class FID(FeatureMetric):
    """Fréchet distance between Gaussians fitted to the features of real and of generated images. Lower is better.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017.
    With the means μ and covariances Σ (divided by n−1) of the features,

        FID = |μ_x − μ_y|² + tr(Σ_x + Σ_y − 2 (Σ_x Σ_y)^½),

    the squared 2-Wasserstein distance of the two Gaussians. **It is biased**: for equal distributions it is above zero,
    and falls as more images are taken, about as 1/n. Compare at equal numbers of images only, or use ``metric/kid``.

    ``fid_se`` is the infinitesimal jackknife's standard error (Jaeckel 1972): √(Var h(x)/n + Var h(y)/m) with the
    influence of an image with features x (T the optimal transport map from the Gaussian of x to that of y),

        h(x) = 2 (μ_x − μ_y)·(x − μ_x) + (x − μ_x)ᵀ (1 − T) (x − μ_x),  T = Σ_y^½ (Σ_y^½ Σ_x Σ_y^½)^−½ Σ_y^½.

    It is the spread of FID at this number of images, and says nothing of the bias. In float64, over all images.

    ``fid_low`` and ``fid_high`` are the ends of the 95 % bootstrap interval (BCa) of **FID's expectation at these
    numbers of images**, bias and all: of FID in the limit it is none. Resampled are the influences; images drawn twice
    would cost the covariance rank, and add another bias to the bias.

    Parameters
    ----------
    extractor
        A model with ``features(images) -> [N, F]``, such as what ``trainer/classifier`` trains, or the Spec of one,
        such as ``discriminator/inception``.

    Raises
    ------
    MissingCapability
        If the extractor has no features.
    """

    higher_is_better = {"fid": False, "fid_se": None, "fid_low": None, "fid_high": None}

    def __init__(self, extractor: Spec | nn.Module) -> None:
        super().__init__(extractor, by="metric/fid")

    def compute(self) -> dict[str, float]:
        """Return ``fid``, ``fid_se``, ``fid_low`` and ``fid_high``.

        Raises
        ------
        InputError
            If there are not more images of either set than features: their covariance would lack directions, and the
            figure be mostly bias.
        """
        features = self._gathered(least=2)
        real, generated = features["real"], features["generated"]
        width = real.shape[1]
        if min(len(real), len(generated)) <= width:
            raise InputError(
                f"{self.by}: {len(real)} real and {len(generated)} generated images cannot fit a covariance of {width} "
                f"features; give at least {width + 1} of each, or use metric/kid, which has no such bound"
            )
        return frechet_distance(real, generated).named("fid", low=0.0)


def frechet_distance(x: Tensor, y: Tensor) -> Estimate:
    """Return the Fréchet distance of features ``[n, F]`` and ``[m, F]``.

    Neither a covariance nor its root is formed: with centred features X = QR, where RᵀR = Σ, the trace of the root is
    the sum of the singular values of R_x R_yᵀ. That keeps the digits that a root of eigenvalues near zero loses.
    """
    n, m = len(x), len(y)
    difference = x.mean(0) - y.mean(0)
    x, y = (x - x.mean(0)) / (n - 1) ** 0.5, (y - y.mean(0)) / (m - 1) ** 0.5
    rx, ry = (torch.linalg.qr(features, mode="r").R for features in (x, y))
    u, s, vh = torch.linalg.svd(rx @ ry.T, full_matrices=False)
    value = difference.square().sum() + x.square().sum() + y.square().sum() - 2 * s.sum()

    # xᵀTx = |S^−½ Vᵀ R_y x|²; directions in which a set does not vary carry no mass
    scale = torch.where(s > s.max() * max(rx.shape) * torch.finfo(s.dtype).eps, s.rsqrt(), 0.0)
    moved_x, moved_y = (x @ ry.T @ vh.T * scale).square().sum(1), (y @ rx.T @ u * scale).square().sum(1)
    h_x = (n - 1) ** 0.5 * 2 * (x @ difference) + (n - 1) * (x.square().sum(1) - moved_x)
    h_y = -((m - 1) ** 0.5) * 2 * (y @ difference) + (m - 1) * (y.square().sum(1) - moved_y)
    return Estimate(max(float(value), 0.0), (h_x - h_x.mean(), h_y - h_y.mean()))  # rounding may go below zero
