"""Variational autoencoder: Bernoulli or Gaussian pixels, an ELBO, and importance-weighted log p(x)."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
import zuko  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional as F

from genxai_core import Generator, Samples, draws
from genxai_core.errors import InputError

from .dcgan import DCGANGenerator, Upsampling, _widths

Likelihood = Literal["gaussian", "bernoulli"]
DECODED_AT_ONCE = 1024


class VAE(Generator):
    """Latents ``[N, latents]`` to images ``[N, channels, size, size]`` in ``value_range``, and back.

    Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014. ``p(z) = N(0, I)``, ``q(z|x) = N(μ(x), σ²(x))``
    with a diagonal; the image of a latent, which is what `sample` draws too, is the mean of ``p(x|z)``:

    - ``gaussian``: ``p(x|z) = N(x; mean, sigma²)``. Log p(x) is a density in pixel space, in nats;
    - ``bernoulli``: pixels are black or white, white with probability mean, where 0 and 1 are the ends of
      ``value_range``. Log p(x) is the log probability of a black and white image, in nats. For a gray one it bounds
      from below the mean log probability of what it becomes when each pixel is drawn white with its gray value.

    What the decoder is given, and what q is a Gaussian of, are codes. They are the latents themselves, or, with
    ``transforms``, what an invertible map T makes of them, z = T(u), u ~ N(0, I): then ``log p(z) = log N(u; 0, I) +
    log |det du/dz|`` is learnt with the rest (Chen et al., "Variational Lossy Autoencoder", ICLR 2017), and has no mass
    between clusters of codes, where the decoder was never trained. Latents are standard normal either way.

    The decoder has the layers of ``generator/dcgan``: ``layers.0`` is the 4×4 layer and every following one doubles it.

    Parameters
    ----------
    size
        Height and width of the images: 8, 16, 32, 64 or 128.
    channels
        1 for gray, 3 for colour.
    latents
        Numbers in a latent, each standard normal.
    width
        Units of the layers at size/2; each coarser layer has twice as many, up to eight times.
    likelihood
        ``gaussian`` or ``bernoulli``.
    sigma
        Gaussian noise of a pixel, in its units; None learns it, one number for all pixels (Rybkin et al., "Simple and
        Effective VAE Training with Calibrated Decoders", ICML 2021).
    transforms
        How many spline transformations of coupled halves (Durkan et al., "Neural Spline Flows", NeurIPS 2019; library
        zuko) lie between latents and codes, which are then at least 2 numbers; 0 for none.
    samples
        How many latents `log_prob` draws for each image.
    upsampling
        How a layer of the decoder doubles: ``transposed`` or ``nearest``, as in ``generator/dcgan``.
    value_range
        Smallest and largest pixel value.
    pretrained
        Name of weights that come with this package; the other parameters are then theirs.

    Raises
    ------
    ValueError
        If a parameter is out of its bounds.
    """

    pretrained_folder: ClassVar[Path] = Path(__file__).parent / "pretrained" / "vae"
    pretrained_free: ClassVar[tuple[str, ...]] = ("samples",)

    def __init__(
        self,
        size: int,
        channels: int = 1,
        latents: int = 32,
        width: int = 32,
        likelihood: Likelihood = "gaussian",
        sigma: float | None = None,
        transforms: int = 0,
        samples: int = 64,
        upsampling: Upsampling = "transposed",
        value_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        if likelihood not in get_args(Likelihood):
            raise ValueError(f"likelihood {likelihood!r} is not one of {', '.join(get_args(Likelihood))}")
        if samples < 1 or (sigma is not None and not sigma > 0):
            raise ValueError(f"samples ({samples}) and sigma ({sigma}) must be positive")
        if transforms < 0 or (transforms and latents < 2):
            raise ValueError(f"transforms ({transforms}) must be at least 0, and 0 if latents ({latents}) are not 2")
        low, high = value_range
        if not low < high:
            raise ValueError(f"value_range {value_range} is empty; give (smallest, largest)")
        decoder = DCGANGenerator(size, channels, latents, width, upsampling)
        self.latent_shape, self.image_shape = decoder.latent_shape, decoder.image_shape
        self.value_range = (float(low), float(high))
        self.likelihood, self.samples = likelihood, samples
        widths = _widths(size, channels, width)
        self.encoder = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), nn.ReLU()) for a, b in pairwise([channels, *widths])),
            nn.Flatten(),
            nn.Linear(widths[-1] * 16, 2 * latents),
        )
        self.layers, self.to_image, self.squash = decoder.layers, decoder.to_image, nn.Tanh()
        if transforms:
            self.prior = zuko.flows.NSF(latents, transforms=transforms, hidden_features=(64, 64), passes=2)
        self.transforms = transforms
        start = torch.tensor(math.log(sigma or (high - low) / 4))
        self.log_sigma = nn.Parameter(start, requires_grad=likelihood == "gaussian" and sigma is None)

    # -- the model ------------------------------------------------------------------------------------------------

    def codes(self, latents: Tensor) -> Tensor:
        """Return the codes ``[N, latents]`` of latents.

        Raises
        ------
        InputError
            If the latents have another shape.
        """
        if latents.shape[1:] != self.latent_shape:
            raise InputError(f"generator/vae takes latents {['N', *self.latent_shape]}, not {list(latents.shape)}")
        made: Tensor = self._splines().inv(latents) if self.transforms else latents
        return made

    def _splines(self) -> Any:
        """Return the map from codes to latents."""
        return self.prior().transform

    def _logits(self, codes: Tensor) -> Tensor:
        """Return ``[N, C, H, W]``, of which tanh makes images, and the sigmoid of its double probabilities."""
        made: Tensor = self.to_image(self.layers(codes[:, :, None, None]))
        return made

    def _means(self, codes: Tensor) -> Tensor:
        """Return the means of ``p(x|z)``, ``[N, C, H, W]``."""
        low, high = self.value_range
        images: Tensor = (low + high) / 2 + (high - low) / 2 * self.squash(self._logits(codes))
        return images

    def forward(self, latents: Tensor) -> Tensor:
        """Return the means of ``p(x|z)``, ``[N, C, H, W]``, differentiably.

        Raises
        ------
        InputError
            If the latents have another shape.
        """
        return self._means(self.codes(latents))

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of the codes' ``q(z|x)``, each ``[N, latents]``.

        Raises
        ------
        InputError
            If the images have another shape.
        """
        if images.shape[1:] != self.image_shape:
            raise InputError(f"generator/vae takes images {['N', *self.image_shape]}, not {list(images.shape)}")
        low, high = self.value_range
        mean, log_variance = self.encoder((2 * images - low - high) / (high - low)).chunk(2, 1)
        return mean, log_variance

    def log_likelihood(self, images: Tensor, latents: Tensor) -> Tensor:
        """Return ``log p(x|z)`` ``[N]``, in nats.

        Raises
        ------
        InputError
            If pixels of a Bernoulli model are outside ``value_range``.
        """
        return self.log_likelihood_of(images, self.codes(latents))

    def log_likelihood_of(self, images: Tensor, codes: Tensor) -> Tensor:
        """Return what `log_likelihood` does, given codes."""
        if self.likelihood == "gaussian":
            residual = (images - self._means(codes)) * torch.exp(-self.log_sigma)
            each = -0.5 * residual.square() - self.log_sigma - 0.5 * math.log(2 * math.pi)
            total: Tensor = each.flatten(1).sum(1)
            return total
        low, high = self.value_range
        white = (images - low) / (high - low)
        if bool(((white < -1e-4) | (white > 1 + 1e-4)).any()):
            raise InputError(
                f"generator/vae: a Bernoulli pixel must be in {self.value_range}; clip or rescale the images"
            )
        crossed = F.binary_cross_entropy_with_logits(2 * self._logits(codes), white.clamp(0, 1), reduction="none")
        return -crossed.flatten(1).sum(1)

    # -- capabilities ---------------------------------------------------------------------------------------------

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        """Draw ``[n, latents]`` on the model's device; latent i depends on ``(seed, start + i)`` only."""
        return draws.normal(seed, range(start, start + n), self.latent_shape).to(self.log_sigma.device)

    @torch.no_grad()
    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw n means of ``p(x|z)`` with their latents; image i depends on ``(seed, start + i)`` only.

        Raises
        ------
        InputError
            If labels are given: this generator is unconditional.
        """
        if labels is not None:
            raise InputError("generator/vae is unconditional, so it cannot draw given labels; leave labels out")
        latents = self.sample_latents(n, seed, start)
        return Samples(self(latents), latents=latents, value_range=self.value_range)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents ``[N, latents]`` whose codes are the means of ``q(z|x)``."""
        mean: Tensor = self.posterior(images)[0]
        return self._splines()(mean) if self.transforms else mean

    def elbo(self, images: Tensor, samples: int | None = None, seed: int = 0) -> Tensor:
        """Return ``E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))`` ``[N]``, in nats: at most log p(x).

        The expectation is the mean over ``samples`` codes (the model's number unless given). The divergence is exact,
        or, with ``transforms``, a mean over the same codes.
        """
        mean, log_variance = self.posterior(images)
        likelihoods, ratios = self._weighed(images, mean, log_variance, samples, seed)
        apart = -ratios.mean(0) if self.transforms else divergence(mean, log_variance)
        return likelihoods.mean(0) - apart

    def log_ratio(self, codes: Tensor, noise: Tensor, log_variance: Tensor) -> Tensor:
        """Return ``log p(z) − log q(z|x)`` ``[...]`` for z = mean + exp(log_variance / 2) · noise, ``[..., latents]``.

        Minus its mean over q is the divergence from the prior.
        """
        latents, slope = self._splines().call_and_ladj(codes) if self.transforms else (codes, 0.0)
        ratio: Tensor = 0.5 * (noise.square() + log_variance - latents.square()).sum(-1) + slope
        return ratio

    def log_prob(self, images: Tensor, samples: int | None = None, seed: int = 0) -> Tensor:
        """Return ``log (1/K) Σ_k p(x, z_k) / q(z_k|x)`` ``[N]``, ``z_k ~ q(z|x)``, in nats.

        Burda, Grosse, Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016: in expectation at most log p(x), at
        least the ELBO, and the tighter the more samples (the model's number unless given). Every image meets the same
        K draws of noise, so that its value depends on the image, K and the seed only.
        """
        mean, log_variance = self.posterior(images)
        likelihoods, ratios = self._weighed(images, mean, log_variance, samples, seed)
        return torch.logsumexp(likelihoods + ratios, 0) - math.log(len(likelihoods))

    def _weighed(
        self, images: Tensor, mean: Tensor, log_variance: Tensor, samples: int | None, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return ``log p(x|z_k)`` and ``log p(z_k) − log q(z_k|x)``, each ``[samples, N]``."""
        samples = self.samples if samples is None else samples
        if samples < 1:
            raise InputError(f"samples {samples} must be at least 1")
        noise = draws.normal(seed, range(samples), self.latent_shape, stream="importance").to(mean)
        codes = mean + torch.exp(log_variance / 2) * noise[:, None]
        ratios = self.log_ratio(codes, noise[:, None], log_variance)
        each = max(1, DECODED_AT_ONCE // max(1, len(images)))
        likelihoods = [
            self.log_likelihood_of(images.repeat(len(z), 1, 1, 1), z.flatten(0, 1)).view(len(z), -1)
            for z in torch.split(codes, each)
        ]
        return torch.cat(likelihoods), ratios


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return ``KL(N(mean, exp(log_variance)) ‖ N(0, I))`` ``[N]``, in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
