"""DCGAN: a generator and a discriminator of strided convolutions, without batch statistics."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from genxai_core import Discriminator, Generator, Samples, draws
from genxai_core.errors import InputError

SIZES = (8, 16, 32, 64, 128)
"""Image sizes in pixels: every layer doubles or halves, from 4×4 to the image."""

Upsampling = Literal["transposed", "nearest"]


def _widths(size: int, channels: int, width: int) -> list[int]:
    """Channels of the layers at size/2, size/4, …, 4: doubling, but not beyond eight times the first."""
    if size not in SIZES:
        raise ValueError(f"size {size} is not one of {', '.join(map(str, SIZES))}")
    if channels < 1 or width < 1:
        raise ValueError(f"channels ({channels}) and width ({width}) must be at least 1")
    return [width * min(8, 2**i) for i in range(size.bit_length() - 3)]


def _doubled(inside: int, outside: int, upsampling: Upsampling) -> nn.Module:
    """Return a layer from ``[N, inside, H, W]`` to ``[N, outside, 2H, 2W]``."""
    if upsampling == "transposed":
        return nn.ConvTranspose2d(inside, outside, 4, stride=2, padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(inside, outside, 3, padding=1))


class PixelNorm(nn.Module):
    """Scale the channels at each pixel to unit mean square: y_c = x_c / √(mean_k x_k² + ε), ε = 1e-8.

    Karras et al., "Progressive Growing of GANs", ICLR 2018. It looks at one pixel of one sample only: an image does not
    depend on its neighbours in the batch, and editing a unit at one place rescales nothing at another.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, C, H, W]`` with mean square 1 over C."""
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class DCGANGenerator(Generator):
    """Latents ``[N, latents]`` to images ``[N, channels, size, size]`` in (-1, 1).

    Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional GANs", ICLR 2016, with
    `PixelNorm` in the place of batch normalisation. ``layers.0`` is the 4×4 layer and every following one doubles it,
    up to size/2; a layer's units are its rectified output channels. ``to_image`` doubles once more, to tanh.

    Parameters
    ----------
    size
        Height and width of the images: 8, 16, 32, 64 or 128.
    channels
        1 for gray, 3 for colour.
    latents
        Numbers in a latent, each standard normal.
    width
        Units of the layer at size/2; each coarser layer has twice as many, up to eight times.
    upsampling
        How a layer doubles: ``transposed`` convolution 4×4 of stride 2, as in the paper, or ``nearest`` and convolution
        3×3 (Odena et al., "Deconvolution and Checkerboard Artifacts", Distill 2016), which draws better digits and
        takes two to four times as long.
    pretrained
        Name of weights that come with this package; the other parameters are then theirs.

    Raises
    ------
    ValueError
        If the size or the upsampling is another one, or a number is not positive.
    """

    value_range = (-1.0, 1.0)
    pretrained_folder: ClassVar[Path] = Path(__file__).parent / "pretrained" / "dcgan-generator"

    def __init__(
        self, size: int, channels: int = 1, latents: int = 64, width: int = 32, upsampling: Upsampling = "transposed"
    ) -> None:
        super().__init__()
        if latents < 1:
            raise ValueError(f"latents ({latents}) must be at least 1")
        if upsampling not in get_args(Upsampling):
            raise ValueError(f"upsampling {upsampling!r} is not one of {', '.join(get_args(Upsampling))}")
        widths = _widths(size, channels, width)[::-1]
        self.latent_shape = (latents,)
        self.image_shape = (channels, size, size)
        first = nn.Sequential(nn.ConvTranspose2d(latents, widths[0], 4), PixelNorm(), nn.ReLU())
        doubled = [nn.Sequential(_doubled(a, b, upsampling), PixelNorm(), nn.ReLU()) for a, b in pairwise(widths)]
        self.layers = nn.Sequential(first, *doubled)
        self.to_image = _doubled(widths[-1], channels, upsampling)

    def forward(self, latents: Tensor) -> Tensor:
        """Return images for latents ``[N, latents]``, differentiably.

        Raises
        ------
        InputError
            If the latents have another shape.
        """
        if latents.shape[1:] != self.latent_shape:
            raise InputError(f"generator/dcgan takes latents {['N', *self.latent_shape]}, not {list(latents.shape)}")
        return torch.tanh(self.to_image(self.layers(latents[:, :, None, None])))

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        """Draw ``[n, latents]`` on the model's device; latent i depends on ``(seed, start + i)`` only."""
        drawn = draws.normal(seed, range(start, start + n), self.latent_shape)
        return drawn.to(next(self.parameters()).device)

    @torch.no_grad()
    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw n images with their latents, on the model's device; image i depends on ``(seed, start + i)`` only.

        Raises
        ------
        InputError
            If labels are given: this generator is unconditional.
        """
        if labels is not None:
            raise InputError("generator/dcgan is unconditional, so it cannot draw given labels; leave labels out")
        latents = self.sample_latents(n, seed, start)
        return Samples(self(latents), latents=latents, value_range=self.value_range)


class DCGANDiscriminator(Discriminator):
    """Images ``[N, channels, size, size]`` in (-1, 1) to one logit ``[N, 1]``; above zero means real.

    Radford et al. 2016 with spectral norm on every layer (Miyato et al., "Spectral Normalization for GANs", ICLR 2018:
    W / σ(W), σ by one power iteration per forward in training) instead of batch normalisation. Neither batch statistics
    nor dropout: in eval mode the logit of an image depends on nothing else. ``layers.0`` has size/2, the last 4×4.

    Parameters
    ----------
    size
        Height and width of the images: 8, 16, 32, 64 or 128.
    channels
        1 for gray, 3 for colour.
    width
        Units of the first layer; each following one has twice as many, up to eight times.
    pretrained
        Name of weights that come with this package; the other parameters are then theirs.

    Raises
    ------
    ValueError
        If the size is another one, or a number is not positive.
    """

    class_names = ("real",)
    value_range = (-1.0, 1.0)
    pretrained_folder: ClassVar[Path] = Path(__file__).parent / "pretrained" / "dcgan-discriminator"

    def __init__(self, size: int, channels: int = 1, width: int = 32) -> None:
        super().__init__()
        widths = _widths(size, channels, width)
        self.image_shape = (channels, size, size)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)), nn.LeakyReLU(0.2))
                for a, b in pairwise([channels, *widths])
            )
        )
        self.head = spectral_norm(nn.Linear(widths[-1] * 16, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, 1]``."""
        logits: Tensor = self.head(self.layers(images).flatten(1))
        return logits
