"""DCGAN's generator: transposed convolutions, without batch statistics, of a label where there are classes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from genxai_core import Generator, Samples, draws
from genxai_core.errors import InputError

from .conditioning import Labelled, checked, fixed, view

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


class DCGANGenerator(Labelled, Generator):
    """Latents ``[N, latents]`` to images ``[N, channels, size, size]`` in (-1, 1).

    Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional GANs", ICLR 2016, with
    `PixelNorm` in the place of batch normalisation. ``layers.0`` is the 4×4 layer and every following one doubles it,
    up to size/2; a layer's units are its rectified output channels. ``to_image`` doubles once more, to tanh.

    With ``num_classes`` it is conditional on a label: ``layers.0`` takes the latent and, behind it, a learnt embedding
    of the label with as many numbers (Mirza and Osindero, "Conditional Generative Adversarial Nets", 2014). Then
    ``given(labels=3)`` is a generator of one class, on the same weights.

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
    num_classes
        Number of classes that it is conditional on; 0 for none.
    class_names
        What the classes are called; empty where they have no names.
    pretrained
        Name of weights that come with this package; the other parameters are then theirs.

    Raises
    ------
    ValueError
        If the size or the upsampling is another one, a number is not positive, or names and classes do not match.
    """

    value_range = (-1.0, 1.0)
    pretrained_folder: ClassVar[Path] = Path(__file__).parent / "pretrained" / "dcgan-generator"

    num_classes: int
    """Only of a conditional one: it is what says that it is one (`genxai_core.models.Conditional`)."""
    _label: int
    """Only of one that was given its label."""

    def __init__(
        self,
        size: int,
        channels: int = 1,
        latents: int = 64,
        width: int = 32,
        upsampling: Upsampling = "transposed",
        num_classes: int = 0,
        class_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        if latents < 1:
            raise ValueError(f"latents ({latents}) must be at least 1")
        if upsampling not in get_args(Upsampling):
            raise ValueError(f"upsampling {upsampling!r} is not one of {', '.join(get_args(Upsampling))}")
        if num_classes < 0 or (class_names and len(class_names) != num_classes):
            raise ValueError(f"num_classes {num_classes} must not be negative, and class_names {class_names} that many")
        widths = _widths(size, channels, width)[::-1]
        self.latent_shape = (latents,)
        self.image_shape = (channels, size, size)
        self.class_names = tuple(class_names)
        inputs = 2 * latents if num_classes else latents
        first = nn.Sequential(nn.ConvTranspose2d(inputs, widths[0], 4), PixelNorm(), nn.ReLU())
        doubled = [nn.Sequential(_doubled(a, b, upsampling), PixelNorm(), nn.ReLU()) for a, b in pairwise(widths)]
        self.layers = nn.Sequential(first, *doubled)
        self.to_image = _doubled(widths[-1], channels, upsampling)

        self.embedding = nn.Embedding(num_classes, latents) if num_classes else None
        if num_classes:
            self.num_classes = num_classes

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return images for latents ``[N, latents]`` and, where it is conditional, labels ``[N]``, differentiably.

        Raises
        ------
        InputError
            If the latents have another shape, labels are missing or out of range, or it takes none.
        """
        if latents.shape[1:] != self.latent_shape:
            raise InputError(f"generator/dcgan takes latents {['N', *self.latent_shape]}, not {list(latents.shape)}")
        labels = self._labels(latents, labels)
        if self.embedding is not None:
            latents = torch.cat([latents, self.embedding(labels)], 1)
        return torch.tanh(self.to_image(self.layers(latents[:, :, None, None])))

    def _labels(self, latents: Tensor, labels: Tensor | None) -> Tensor | None:
        """Return the labels of the images: those given, that of the one class, or None."""
        if hasattr(self, "num_classes"):
            if labels is None:
                raise InputError(
                    f"generator/dcgan is conditional on {self.num_classes} classes: call it with (latents, labels), or "
                    f"fix a class with .given(labels=…) (in a pipeline: use generator/given)"
                )
            return checked(labels, len(latents), self.num_classes, "generator/dcgan").to(latents.device)
        if labels is not None:
            what = "unconditional" if self.embedding is None else f"given the label {self._label}"
            raise InputError(f"generator/dcgan is {what}, so it takes no labels; leave labels out")
        if self.embedding is None:
            return None
        return torch.full((len(latents),), self._label, device=latents.device)

    @property
    def given(self) -> Callable[..., DCGANGenerator]:
        """``given(labels=3)``, of a conditional one: the generator of that class, on the same weights."""
        if not hasattr(self, "num_classes"):
            raise AttributeError  # Labelled says why
        return self._given

    def _given(self, *, labels: int) -> DCGANGenerator:
        label = fixed(labels, self.num_classes, "generator/dcgan.given")
        if label.ndim:
            raise InputError("generator/dcgan.given takes one class; to draw several use sample(n, seed, labels=…)")
        made = view(self, "generator/given", int(label))
        made._label = int(label)
        del made.num_classes
        return made

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        """Draw ``[n, latents]`` on the model's device; latent i depends on ``(seed, start + i)`` only."""
        drawn = draws.normal(seed, range(start, start + n), self.latent_shape)
        return drawn.to(next(self.parameters()).device)

    @torch.no_grad()
    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw n images with their latents, on the model's device; image i depends on ``(seed, start + i)`` only.

        Parameters
        ----------
        labels
            ``[n]``, of a conditional one. None draws each class with the same probability.

        Raises
        ------
        InputError
            If labels are given and it is unconditional, or they are not n, or out of range.
        """
        latents = self.sample_latents(n, seed, start)
        if labels is None and hasattr(self, "num_classes"):
            labels = draws.integers(seed, range(start, start + n), self.num_classes, "labels")
        return Samples(
            self(latents, labels),
            latents=latents,
            labels=self._labels(latents, labels),
            value_range=self.value_range,
            class_names=self.class_names,
        )
