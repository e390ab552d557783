"""A generator of coloured spots that draws within a known linear space, so that its nearest image is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genxai_core import Generator, Samples, draws
from genxai_core.errors import InputError

PER_SLOT = ("x", "y", "brightness", "warmth")
"""What the four latents of a spot mean."""

WAVES = 8
"""Cosines of 0 to 7 half waves either way span all that it draws: 64 dimensions per colour channel."""

BACKGROUND = -0.55
WIDTH = 0.12
"""Standard deviation of a spot, in image widths."""


class SlotGenerator(Generator):
    """Draws one soft spot for each slot of its latent: nonlinear, differentiable, one to one but for the slots' order.

    With z ``[N, slots, 4]`` and t = tanh(z / 2), spot s is a Gaussian around (½ + 0.3·t_x, ½ + 0.3·t_y) of amplitude
    a_s = 0.4 + 0.2·t_b (of three or four spots: 2/slots of that), times (1 + 0.25·t_w, 1, 1 − 0.25·t_w) in red, green
    and blue, and the image is the background with the sum of the spots, each cut to the `WAVES` lowest cosines:
    G(z) = b + D h(z), h the cosines' coefficients, linear in the amplitudes and nonlinear in the places.

    - **Symmetry**: a sum has no order, so G(z) = G(πz) for every permutation π of the slots. Nothing else gives the
      same image, unless two spots coincide: the difference of two such images would be a signed measure of at most
      2·slots atoms whose moments, in cos πx and cos πy, vanish up to degree 7, and a polynomial of degree 7 can take
      any values at 8 points.
    - **Range**: all images lie in b + span D. For u orthogonal to D, ‖G(z') − (G(z) + u)‖² = ‖G(z') − G(z)‖² + ‖u‖²:
      the nearest that G comes to x = G(z) + u is G(z), at exactly ‖u‖.

    Parameters
    ----------
    slots
        How many spots, 1 to 4.
    size
        Height and width in pixels, at least 16.

    Raises
    ------
    InputError
        If one of them is out of bounds.
    """

    value_range = (-1.0, 1.0)
    waves: Tensor

    def __init__(self, slots: int = 2, size: int = 32) -> None:
        super().__init__()
        if not 1 <= slots <= 4:
            raise InputError(f"slots {slots} must be 1 to 4")
        if size < 16:
            raise InputError(f"size {size} must be at least 16")
        self.latent_shape = (slots, len(PER_SLOT))
        self.register_buffer("waves", _waves(size).float())

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        """Draw standard normal latents ``[n, slots, 4]``."""
        return draws.normal(seed, range(start, start + n), self.latent_shape)

    def places(self, latents: Tensor) -> Tensor:
        """Return the spots' centres ``[N, slots, 2]``, x and y in image widths."""
        return 0.5 + 0.3 * torch.tanh(latents[..., :2] / 2)

    def forward(self, latents: Tensor) -> Tensor:
        """Return images ``[N, 3, size, size]``."""
        brightness, warmth = torch.tanh(latents[..., 2:] / 2).unbind(-1)
        tint = torch.stack([1 + 0.25 * warmth, torch.ones_like(warmth), 1 - 0.25 * warmth], 1)
        colours = (0.4 + 0.2 * brightness)[:, None] * tint * min(1.0, 2 / latents.shape[1])  # [N, 3, slots]
        number = torch.arange(WAVES, dtype=latents.dtype, device=latents.device)
        # the cosine series of a Gaussian of height 1 around each place, [N, slots, 2, WAVES]
        series = torch.exp(-0.5 * (math.pi * WIDTH * number) ** 2) * torch.cos(
            math.pi * number * self.places(latents)[..., None]
        )
        series = series * torch.where(number > 0, 2.0, 1.0) * (WIDTH * math.sqrt(2 * math.pi))
        across, down = (series @ self.waves.to(latents.dtype)).unbind(-2)  # [N, slots, size]
        spots: Tensor = torch.einsum("ncs,nsy,nsx->ncyx", colours, down, across)
        return BACKGROUND + spots

    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw n images with their latents. There are no classes to choose from: labels are refused."""
        if labels is not None:
            raise InputError("this generator has no classes; sample it without labels")
        latents = self.sample_latents(n, seed, start)
        with torch.no_grad():
            return Samples(self(latents), latents, value_range=self.value_range)


def outside(images: Tensor) -> Tensor:
    """Return what of square images ``[N, C, H, W]`` is orthogonal to the space in which `SlotGenerator` draws."""
    basis = _waves(images.shape[-1]).to(images)
    basis = basis / basis.norm(dim=1, keepdim=True)  # cosines at the pixels' centres are orthogonal (DCT-II)
    within: Tensor = basis.T @ (basis @ images @ basis.T) @ basis
    return images - within


def _waves(size: int) -> Tensor:
    """Return ``[WAVES, size]``: cos(π u (i + ½) / size)."""
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    return torch.cos(math.pi * torch.arange(WAVES, dtype=torch.float64)[:, None] * place)
