"""Linear-Gaussian images: log density, posterior of the latents, and density ratio in closed form."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal

from genxai_core import Discriminator, Generator, Samples, draws


class LinearGaussian(Generator):
    """``x = b + W z + σ ε`` with z and ε standard normal: probabilistic PCA (Tipping and Bishop, JRSS B 1999).

    - ``log p(x)``: that of ``N(b, W Wᵀ + σ² I)``, in nats, in pixel space;
    - ``E[z | x] = (WᵀW + σ² I)⁻¹ Wᵀ (x − b)``.

    Computed in double precision.

    Parameters
    ----------
    weight
        ``[C·H·W, latents]``.
    mean
        ``[C, H, W]``.
    sigma
        Standard deviation of the noise of each pixel.
    """

    value_range = (-2.5, 2.5)  # of scenes in (-1, 1), as far as a Gaussian of them reaches
    weight: Tensor
    mean: Tensor

    def __init__(self, weight: Tensor, mean: Tensor, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma
        self.image_shape = tuple(mean.shape)
        self.latent_shape = (weight.shape[1],)
        self.register_buffer("weight", weight.double())
        self.register_buffer("mean", mean.double().flatten())

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        """Draw z."""
        return draws.normal(seed, range(start, start + n), self.latent_shape)

    def forward(self, latents: Tensor) -> Tensor:
        """Return ``b + W z``, without the noise."""
        images: Tensor = self.mean + latents.double() @ self.weight.T
        return images.view(-1, *self.image_shape).to(latents.dtype)

    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw images, with noise."""
        latents = self.sample_latents(n, seed, start)
        noise = draws.normal(seed, range(start, start + n), self.image_shape, stream="pixel-noise")
        return Samples(self(latents) + self.sigma * noise, latents, value_range=self.value_range)

    def log_prob(self, images: Tensor) -> Tensor:
        """Return ``[N]`` log densities, in nats, in pixel space."""
        variance = torch.full_like(self.mean, self.sigma**2)
        density = LowRankMultivariateNormal(self.mean, self.weight, variance, validate_args=False)
        found: Tensor = density.log_prob(images.double().flatten(1))  # type: ignore[no-untyped-call]
        return found

    def encode(self, images: Tensor) -> Tensor:
        """Return ``E[z | x]`` ``[N, latents]``."""
        weight = self.weight
        precision = weight.T @ weight + self.sigma**2 * torch.eye(weight.shape[1], dtype=torch.float64)
        centred = images.double().flatten(1) - self.mean
        codes: Tensor = torch.linalg.solve(precision, weight.T @ centred.T).T
        return codes.to(images.dtype)


class OptimalDiscriminator(Discriminator):
    """The discriminator that an adversarial loss has at its optimum, between two models with a density.

    Parameters
    ----------
    real, generated
        The two.
    loss
        ``non-saturating`` (the logit is log p/q), ``squared-hellinger`` (half of it) or ``pearson`` (``2(p/q − 1)``):
        see `genxai_core.adversarial`.
    """

    def __init__(self, real: LinearGaussian, generated: LinearGaussian, loss: str) -> None:
        super().__init__()
        self.real, self.generated, self.loss = real, generated, loss
        channels, height, width = real.image_shape
        self.image_shape = (channels, height, width)
        self.value_range = real.value_range

    def log_ratio(self, images: Tensor) -> Tensor:
        """Return ``log p(x)/q(x)`` ``[N]``, in nats."""
        return self.real.log_prob(images) - self.generated.log_prob(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, 1]``."""
        ratio = self.log_ratio(images)
        logits = {"non-saturating": ratio, "squared-hellinger": ratio / 2, "pearson": 2 * torch.expm1(ratio)}
        return logits[self.loss][:, None].to(images.dtype)


def smooth_weights(seed: int, latents: int, size: int, scale: float) -> Tensor:
    """Return ``[size², latents]`` orthogonal smooth patterns: what a latent draws looks like a shade, not like noise.

    Parameters
    ----------
    scale
        Standard deviation that each pattern gives to the pixels, on average.
    """
    coarse = draws.normal(seed, range(latents), [1, 4, 4], stream="patterns")
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    basis: Tensor = torch.linalg.qr(fine.flatten(1).T.double())[0]
    return basis * scale * size
