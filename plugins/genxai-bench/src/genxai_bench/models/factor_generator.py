"""A generator whose latents are a known mixture of the factors that one sees in its pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genxai_core import Generator, Samples, draws
from genxai_core.errors import InputError

FACTORS = ("x", "y", "size", "warmth", "lightness", "background")
"""What one sees: where the disc is, how large, how red, how light, and how light the background is."""

MIDDLE = (0.5, 0.5, 0.17, 0.0, 0.25, -0.1)
REACH = (0.22, 0.22, 0.07, 0.35, 0.3, 0.4)
"""Each factor as it is seen: ``middle + reach * tanh(f / 1.5)``, lengths in image widths, the rest in pixel values."""

TEXTURE = 0.15
EDGE = 0.02
"""How far, in image widths, the disc's edge fades."""

LARGEST = len(FACTORS) + 143
"""The largest latent: there are 143 textures, the cosines of up to 11 half waves either way."""


class FactorGenerator(Generator):
    """Draws a soft disc before a textured background; differentiable, and every latent direction is accounted for.

    The factors are f = M z, with M ``[6, d]`` of unit rows whose mutual cosines are ``cosine``. What is left of the
    latent space, the null space of M, moves a texture and nothing else: t = Q z, the rows of Q an orthonormal basis of
    it. So z -> (f, t) is one to one, and M⁺ e_k is the only direction, up to length, that changes factor k and
    leaves everything else in the picture as it is: the other factors and the texture.

    Parameters
    ----------
    dimensions
        Length d of the latent, 6 to 149.
    size
        Height and width in pixels.
    cosine
        Between each two rows of M, above -0.2 and below 1; 0 makes them orthonormal. With z ~ N(0, I) this is the
        factors' correlation.
    seed
        Of the rotation of the latent space.

    Raises
    ------
    InputError
        If one of them is out of bounds.
    """

    value_range = (-1.0, 1.0)
    mixing: Tensor
    rest: Tensor
    textures: Tensor
    places: Tensor

    def __init__(self, dimensions: int = 16, size: int = 32, cosine: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        k = len(FACTORS)
        if not k <= dimensions <= LARGEST:
            raise InputError(f"dimensions {dimensions} must be {k} to {LARGEST}")
        if size < 16:
            raise InputError(f"size {size} must be at least 16")
        if not -1 / (k - 1) < cosine < 1:
            raise InputError(
                f"cosine {cosine} must be above {-1 / (k - 1)} and below 1: else rows coincide or add up to 0"
            )
        self.latent_shape = (dimensions,)
        normal = draws.normal(seed, [0], (dimensions, dimensions), "rotation")[0].double()
        rotation = torch.linalg.qr(normal).Q.T
        gram = torch.full((k, k), cosine, dtype=torch.float64).fill_diagonal_(1.0)
        values, vectors = torch.linalg.eigh(gram)
        root = vectors @ values.sqrt().diag() @ vectors.T
        self.exact_mixing = root @ rotation[:k]
        self.register_buffer("mixing", self.exact_mixing.float())
        self.register_buffer("rest", rotation[k:].float())
        self.register_buffer("textures", _cosines(dimensions - k, size))
        self.register_buffer("places", (torch.arange(size) + 0.5) / size)

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        """Draw standard normal latents ``[n, d]``."""
        return draws.normal(seed, range(start, start + n), self.latent_shape)

    def factors(self, latents: Tensor) -> Tensor:
        """Return what is seen ``[N, 6]``, columns as in `FACTORS`: lengths in image widths, tones in pixel values."""
        middle, reach = latents.new_tensor(MIDDLE), latents.new_tensor(REACH)
        return middle + reach * torch.tanh(latents @ self.mixing.T / 1.5)

    def forward(self, latents: Tensor) -> Tensor:
        """Return images ``[N, 3, size, size]``."""
        return self.render(self.factors(latents), latents @ self.rest.T)

    def render(self, factors: Tensor, texture: Tensor) -> Tensor:
        """Draw pictures of given factors ``[N, 6]``, as they are seen, and texture ``[N, d - 6]``."""
        x, y, radius, warmth, lightness, tone = (column[:, None, None] for column in factors.T)
        across, down = self.places - x, (self.places[:, None] - y)
        distance = (across.square() + down.square() + 1e-8).sqrt()
        disc = torch.sigmoid((radius - distance) / EDGE)[:, None]
        colour = torch.cat([lightness + warmth, lightness, lightness - warmth], 1)[:, :, None]
        pattern = torch.tanh(texture @ self.textures).view(-1, *distance.shape[1:])
        images: Tensor = disc * colour + (1 - disc) * (tone + TEXTURE * pattern)[:, None]
        return images

    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw n images with their latents and factors. There are no classes to choose from: labels are refused."""
        if labels is not None:
            raise InputError("this generator has no classes; sample it without labels")
        return self.samples(self.sample_latents(n, seed, start))

    def samples(self, latents: Tensor) -> Samples:
        """Return the samples of given latents."""
        with torch.no_grad():
            images, factors = self(latents), self.factors(latents)
        return Samples(images, latents, factors=factors, value_range=self.value_range, factor_names=FACTORS)


def _cosines(count: int, size: int) -> Tensor:
    """Return textures ``[count, size * size]``, the lowest waves first; of unit variance where their amplitudes are."""
    waves = sorted(((u, v) for u in range(12) for v in range(12) if u + v), key=lambda w: (w[0] ** 2 + w[1] ** 2, w))
    place = math.pi * (torch.arange(size, dtype=torch.float64) + 0.5) / size
    made = [torch.outer(torch.cos(v * place), torch.cos(u * place)).flatten() for u, v in waves[:count]]
    if not made:
        return torch.zeros(0, size * size)
    textures = torch.stack(made)
    return (textures / textures.square().sum(0).mean().sqrt()).float()
