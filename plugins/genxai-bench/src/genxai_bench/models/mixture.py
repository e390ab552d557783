"""A Gaussian mixture over images under diffusion: the score, the noise and the posterior in closed form at every t."""

from __future__ import annotations

import torch
from torch import Tensor

from genxai_core import Discriminator, Generator, Samples, draws

STEPS = 1000
"""Of the linear schedule of Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020."""


def schedule() -> Tensor:
    """Return ᾱ of every step, float64 ``[STEPS]``: the product of ``1 − β``, β from 1e-4 to 0.02."""
    betas = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
    return torch.cumprod(1 - betas, 0)


class Mixture(Generator):
    """``x₀ ~ (1/K) Σ N(μ_k, σ² I)``, and ``x_t = √ᾱ x₀ + √(1−ᾱ) ε`` with ε standard normal.

    At step t component k is ``N(√ᾱ μ_k, v I)`` with ``v = ᾱσ² + 1 − ᾱ``. Its share in x is
    ``r_k ∝ exp(−‖x − √ᾱ μ_k‖²/2v)``, and with ``μ̄ = Σ r_k μ_k``

    - the score: ``∇ log p_t(x) = (√ᾱ μ̄ − x)/v``;
    - the noise that is to be expected: ``E[ε | x] = √(1−ᾱ) (x − √ᾱ μ̄)/v``, since ``ε = −√(1−ᾱ) ∇ log p_t``;
    - the image: ``E[x₀ | x] = μ̄ + (√ᾱσ²/v)(x − √ᾱ μ̄)``;
    - what speaks for component k: ``∇ log r_k = (√ᾱ/v)(μ_k − μ̄)``.

    It predicts the noise (``prediction_type`` as in diffusers) and is computed in double precision.

    Parameters
    ----------
    means
        ``[K, C, H, W]``.
    sigma
        Standard deviation of each pixel about its component's mean.
    """

    value_range = (-1.0, 1.0)
    prediction_type = "epsilon"
    means: Tensor
    alphas_cumprod: Tensor

    def __init__(self, means: Tensor, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma
        self.register_buffer("means", means.double())
        self.register_buffer("alphas_cumprod", schedule())

    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw x₀; the label is its component."""
        means = self.means
        rows = range(start, start + n)
        drawn = draws.integers(seed, rows, len(means), stream="component") if labels is None else labels
        noise = draws.normal(seed, rows, means.shape[1:], stream="mixture").double()
        images = means[drawn] + self.sigma * noise
        names = tuple(f"component {k}" for k in range(len(means)))
        return Samples(images.float(), labels=drawn, value_range=self.value_range, class_names=names)

    def noised(self, images: Tensor, t: Tensor, seed: int) -> Tensor:
        """Return x_t of images ``[N, C, H, W]`` at steps ``[N]``."""
        level = self._level(t)
        noise = draws.normal(seed, range(len(images)), images.shape[1:], stream="diffusion").double()
        return (level.sqrt() * images.double() + (1 - level).sqrt() * noise).to(images.dtype)

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return ``E[ε | x_t]`` at steps t ``[N]``."""
        x, level = x_t.double(), self._level(t)
        mean = self._mean(x, level)
        return ((1 - level).sqrt() * (x - level.sqrt() * mean) / self._variance(level)).to(x_t.dtype)

    def denoised(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return ``E[x₀ | x_t]``."""
        x, level = x_t.double(), self._level(t)
        mean = self._mean(x, level)
        gain = level.sqrt() * self.sigma**2 / self._variance(level)
        return (mean + gain * (x - level.sqrt() * mean)).to(x_t.dtype)

    def log_shares(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return ``log r_k`` ``[N, K]``."""
        return self._log_shares(x_t.double(), self._level(t)).to(x_t.dtype)

    def evidence(self, x_t: Tensor, t: Tensor, component: int) -> Tensor:
        """Return ``∇ log r_k``, the exact saliency of a component at x_t."""
        x, level = x_t.double(), self._level(t)
        difference = self.means[component] - self._mean(x, level)
        return (level.sqrt() / self._variance(level) * difference).to(x_t.dtype)

    def log_prob(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return log p_t(x), in nats, ``[N]``."""
        x, level = x_t.double(), self._level(t)
        dimension = x[0].numel()
        variance = self._variance(level).flatten()
        joint = self._exponents(x, level) - torch.log(2 * torch.pi * variance)[:, None] * dimension / 2
        return torch.logsumexp(joint, 1) - torch.log(torch.tensor(float(joint.shape[1]), dtype=torch.float64))

    def _level(self, t: Tensor) -> Tensor:
        return self.alphas_cumprod[t].view(-1, 1, 1, 1)

    def _variance(self, level: Tensor) -> Tensor:
        return level * self.sigma**2 + 1 - level

    def _exponents(self, x: Tensor, level: Tensor) -> Tensor:
        gaps = x[:, None] - level.sqrt()[:, None] * self.means[None]
        return -gaps.square().flatten(2).sum(2) / (2 * self._variance(level).flatten(1))

    def _log_shares(self, x: Tensor, level: Tensor) -> Tensor:
        return torch.log_softmax(self._exponents(x, level), 1)

    def _mean(self, x: Tensor, level: Tensor) -> Tensor:
        return torch.einsum("nk,kchw->nchw", self._log_shares(x, level).exp(), self.means)


class NoisyClassifier(Discriminator):
    """Which component a noised image belongs to: logits ``log r_k(x_t)`` at one step, the exact posterior.

    Parameters
    ----------
    mixture
        The mixture, which it also predicts the noise of (`predict`).
    t
        The step.
    """

    value_range = (-6.0, 6.0)

    def __init__(self, mixture: Mixture, t: int) -> None:
        super().__init__()
        self.mixture, self.t = mixture, t
        means = mixture.means
        self.class_names = tuple(f"component {k}" for k in range(len(means)))
        self.image_shape = (int(means.shape[1]), int(means.shape[2]), int(means.shape[3]))
        self.alphas_cumprod = mixture.alphas_cumprod
        self.prediction_type = mixture.prediction_type

    def given(self, t: int) -> NoisyClassifier:
        """Return the classifier of another step."""
        return NoisyClassifier(self.mixture, t)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``[N, K]`` log posteriors of noised images ``[N, C, H, W]``."""
        return self.mixture.log_shares(images, torch.full((len(images),), self.t, device=images.device))

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return ``E[ε | x_t]``, so that it can be explained as a diffusion model too."""
        return self.mixture.predict(x_t, t)
