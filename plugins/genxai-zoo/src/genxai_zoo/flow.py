"""Normalising flow: images from base noise and back, with an exact log density."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import torch
import zuko  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional as F

from genxai_core import Generator, Samples, draws
from genxai_core.errors import InputError

ALPHA = 0.05
"""How far the logit keeps from the ends of the range (Dinh et al., "Density Estimation Using Real NVP", ICLR 2017)."""

MOST = 1024
"""Pixels and channels at native size: beyond it the covariance alone needs more images than anybody has at hand."""


class Flow(Generator):
    """Noise ``[N, D]`` to images ``[N, channels, size, size]`` and back, with exact log p(x): a neural spline flow.

    Durkan et al., "Neural Spline Flows", NeurIPS 2019, of the library zuko. ``D = channels · native²``. The density is
    one of ``v``, the image at its native size, ``log p(v) = log N(z; 0, I) + log |det dz/dv|``, in nats:

    - of images whose pixels have ``levels`` values, v is counted in levels (0 to levels − 1) and dequantised: the model
      is of ``v + u``, u uniform on ±1/2, so that the density averaged over ±1/2 is the probability of an image (Theis,
      van den Oord, Bethge, "A Note on the Evaluation of Generative Models", ICLR 2016);
    - of continuous images (``levels`` 0), v is pixel values.

    An image of ``size`` is the bilinear upsampling of v, and is brought to v by least squares: exactly if it is such an
    image, to the nearest one otherwise (where sharp edges overshoot, levels are clipped to their range). A density of
    the upsampled pixels themselves would be degenerate, since they fill no more than D dimensions. v becomes z by a
    logit (of levels), an affine map that the trainer takes from the images, and the splines.

    Parameters
    ----------
    size
        Height and width of the images, at least ``native``.
    channels
        1 for gray, 3 for colour.
    native
        Height and width that the images were made at, before they were upsampled; 0 if they were not.
    levels
        How many values a pixel has at native size; 0 if it is continuous.
    transforms
        How many spline transformations follow each other.
    hidden
        Width of the two hidden layers that set the splines of one.
    bins
        Pieces of a spline.
    coupling
        Whether one half of the numbers sets the splines of the other, by which drawing is as fast as the density; else
        each depends on all before it, which fits better and draws in D passes.
    value_range
        Smallest and largest pixel value.
    pretrained
        Name of weights that come with this package; the other parameters are then theirs.

    Raises
    ------
    ValueError
        If a parameter is out of its bounds, or D is above 1,024.
    """

    shift: Tensor
    factor: Tensor
    down: Tensor

    pretrained_folder: ClassVar[Path] = Path(__file__).parent / "pretrained" / "flow"

    def __init__(
        self,
        size: int,
        channels: int = 1,
        native: int = 8,
        levels: int = 17,
        transforms: int = 2,
        hidden: int = 256,
        bins: int = 8,
        coupling: bool = False,
        value_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        native = native or size
        if not 1 <= native <= size:
            raise ValueError(f"native {native} must be between 1 and size {size}, or 0")
        if min(channels, transforms, hidden) < 1 or bins < 2:
            raise ValueError(
                f"channels {channels}, transforms {transforms}, hidden {hidden} and bins {bins} must be at least 1, 1, "
                f"1 and 2"
            )
        if levels < 0 or levels == 1:
            raise ValueError(f"levels {levels} must be 0 (continuous) or at least 2")
        low, high = value_range
        if not low < high:
            raise ValueError(f"value_range {value_range} is empty; give (smallest, largest)")
        features = channels * native**2
        if features > MOST:
            raise ValueError(
                f"{channels} channels at {native} px are {features} numbers, more than {MOST}; lower native"
            )
        self.value_range = (float(low), float(high))
        self.image_shape, self.native_shape = (channels, size, size), (channels, native, native)
        self.latent_shape, self.levels = (features,), levels
        self.flow = zuko.flows.NSF(
            features, transforms=transforms, hidden_features=(hidden, hidden), bins=bins, passes=2 if coupling else None
        )
        up = F.interpolate(torch.eye(native)[None, None], (size, native), mode="bilinear", align_corners=False)[0, 0]
        self.register_buffer("down", torch.linalg.pinv(up.double()).to(torch.get_default_dtype()))
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("factor", torch.eye(features))

    # -- the image and its native size --------------------------------------------------------------------------------

    def to_native(self, images: Tensor) -> Tensor:
        """Return v ``[N, channels, native, native]``, in levels, or in pixel values if these are continuous.

        Raises
        ------
        InputError
            If the images have another shape.
        """
        if images.shape[1:] != self.image_shape:
            raise InputError(f"generator/flow takes images {['N', *self.image_shape]}, not {list(images.shape)}")
        small = self.down @ images @ self.down.T if self.image_shape != self.native_shape else images
        if not self.levels:
            return small
        low, high = self.value_range
        v, top = (small - low) * ((self.levels - 1) / (high - low)), self.levels - 0.5
        if self.image_shape == self.native_shape:
            return v
        half = 0.5 * (high - low) / (self.levels - 1)
        inside = ((images >= low - half) & (images <= high + half)).flatten(1).all(1)
        return torch.where(inside[:, None, None, None], v.clamp(-0.5, top), v)  # the others are refused later

    def from_native(self, v: Tensor) -> Tensor:
        """Return images ``[N, channels, size, size]`` for v: clipped to the range, and upsampled."""
        low, high = self.value_range
        small = (v * ((high - low) / (self.levels - 1)) + low if self.levels else v).clamp(low, high)
        return F.interpolate(small, self.image_shape[1:], mode="bilinear", align_corners=False).clamp(low, high)

    # -- the bijection between v and z --------------------------------------------------------------------------------

    def to_line(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return v as numbers of the whole line ``[N, D]``, before the affine map, and the log determinant ``[N]``."""
        flat = v.flatten(1)
        if not self.levels:
            return flat, flat.new_zeros(len(flat))
        p = ALPHA + (1 - 2 * ALPHA) * (flat + 0.5) / self.levels
        if bool(((p <= 0) | (p >= 1)).any()):
            raise InputError(f"generator/flow: pixels are outside {self.value_range}; clip or rescale the images")
        slope = math.log((1 - 2 * ALPHA) / self.levels) - p.log() - (1 - p).log()
        return torch.logit(p), slope.sum(1)

    def to_noise(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``z`` ``[N, D]`` and ``log |det dz/dv|`` ``[N]``."""
        line, first = self.to_line(v)
        white = torch.linalg.solve_triangular(self.factor, (line - self.shift).T, upper=False).T
        z, last = self._splines().call_and_ladj(white)
        return z, first - self.factor.diagonal().log().sum() + last

    def from_noise(self, latents: Tensor) -> Tensor:
        """Return v for z, the inverse of `to_noise`."""
        line = self._splines().inv(latents) @ self.factor.T + self.shift
        if self.levels:
            line = ((torch.sigmoid(line) - ALPHA) / (1 - 2 * ALPHA)) * self.levels - 0.5
        v: Tensor = line.view(-1, *self.native_shape)
        return v

    def _splines(self) -> Any:
        return self.flow().transform

    # -- capabilities -------------------------------------------------------------------------------------------------

    def forward(self, latents: Tensor) -> Tensor:
        """Return images for base noise ``[N, D]``, differentiably.

        Raises
        ------
        InputError
            If the latents have another shape.
        """
        if latents.shape[1:] != self.latent_shape:
            raise InputError(f"generator/flow takes latents {['N', *self.latent_shape]}, not {list(latents.shape)}")
        return self.from_native(self.from_noise(latents))

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        """Draw ``[n, D]`` on the model's device; latent i depends on ``(seed, start + i)`` only."""
        return draws.normal(seed, range(start, start + n), self.latent_shape).to(self.shift.device)

    @torch.no_grad()
    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw n images with their latents; image i depends on ``(seed, start + i)`` only.

        Raises
        ------
        InputError
            If labels are given: this generator is unconditional.
        """
        if labels is not None:
            raise InputError("generator/flow is unconditional, so it cannot draw given labels; leave labels out")
        latents = self.sample_latents(n, seed, start)
        return Samples(self(latents), latents=latents, value_range=self.value_range)

    def encode(self, images: Tensor) -> Tensor:
        """Return the noise ``[N, D]`` that an image is made of; a pixel is in the middle of its level."""
        return self.to_noise(self.to_native(images))[0]

    def log_prob(self, images: Tensor) -> Tensor:
        """Return ``log p(v)`` ``[N]``, in nats: exact, where each pixel is in the middle of its level."""
        return self.density(self.to_native(images))

    def density(self, v: Tensor) -> Tensor:
        """Return ``log p(v)`` ``[N]`` for v ``[N, channels, native, native]``."""
        z, slope = self.to_noise(v)
        density: Tensor = slope - 0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
        return density
