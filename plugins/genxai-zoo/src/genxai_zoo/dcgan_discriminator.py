"""DCGAN's discriminator: strided convolutions with spectral norm, and a projection where there are classes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from genxai_core import Discriminator
from genxai_core.errors import InputError

from .conditioning import Labelled, fixed, view
from .dcgan import _widths


class DCGANDiscriminator(Labelled, Discriminator):
    """Images ``[N, channels, size, size]`` in (-1, 1) to one logit ``[N, 1]``; above zero means real.

    Radford et al. 2016 with spectral norm on every layer (Miyato et al., "Spectral Normalization for GANs", ICLR 2018:
    W / σ(W), σ by one power iteration per forward in training) instead of batch normalisation. Neither batch statistics
    nor dropout: in eval mode the logit of an image depends on nothing else. ``layers.0`` has size/2, the last 4×4.

    With ``num_classes`` it is conditional on a label y by projection: the logit is ψ(φ(x)) + yᵀVφ(x), with φ the
    layers, ψ the head, y one-hot and V an embedding, of spectral norm 1 too (Miyato and Koyama, "cGANs with Projection
    Discriminator", ICLR 2018). It then judges through ``given(labels=…)`` only, which fixes the label.

    Parameters
    ----------
    size
        Height and width of the images: 8, 16, 32, 64 or 128.
    channels
        1 for gray, 3 for colour.
    width
        Units of the first layer; each following one has twice as many, up to eight times.
    num_classes
        Number of classes that it is conditional on; 0 for none.
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

    num_classes: int
    """Only of a conditional one."""
    labels: Tensor
    """Only of one that was given labels: ``[]`` or ``[N]``."""

    def __init__(self, size: int, channels: int = 1, width: int = 32, num_classes: int = 0) -> None:
        super().__init__()
        if num_classes < 0:
            raise ValueError(f"num_classes {num_classes} must not be negative")
        widths = _widths(size, channels, width)
        self.image_shape = (channels, size, size)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)), nn.LeakyReLU(0.2))
                for a, b in pairwise([channels, *widths])
            )
        )
        self.head = spectral_norm(nn.Linear(widths[-1] * 16, 1))
        self.embedding = spectral_norm(nn.Embedding(num_classes, widths[-1] * 16)) if num_classes else None
        if num_classes:
            self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, 1]``.

        Raises
        ------
        InputError
            If it is conditional and was given no labels, or not as many as there are images.
        """
        features = self.layers(images).flatten(1)
        logits: Tensor = self.head(features)
        if self.embedding is None:
            return logits
        projected: Tensor = (self.embedding(self._labels(len(images))) * features).sum(1, keepdim=True)
        return logits + projected

    def _labels(self, n: int) -> Tensor:
        if hasattr(self, "num_classes"):
            raise InputError(
                f"discriminator/dcgan is conditional on {self.num_classes} classes: fix the labels with "
                f".given(labels=…) (in a pipeline: use discriminator/given)"
            )
        if self.labels.ndim and len(self.labels) != n:
            raise InputError(
                f"discriminator/dcgan was given {len(self.labels)} labels for {n} images; explainers work in batches, "
                f"so fix one for all: .given(labels=<number>)"
            )
        return self.labels.expand(n)

    @property
    def given(self) -> Callable[..., DCGANDiscriminator]:
        """``given(labels=…)``, of a conditional one: as it judges images of one class, or of a label each ``[N]``."""
        if not hasattr(self, "num_classes"):
            raise AttributeError  # Labelled says why
        return self._given

    def _given(self, *, labels: int | Tensor) -> DCGANDiscriminator:
        found = fixed(labels, self.num_classes, "discriminator/dcgan.given")
        made = view(self, "discriminator/given", int(found) if found.ndim == 0 else found)
        made.register_buffer("labels", found.to(next(self.parameters()).device), persistent=False)
        del made.num_classes
        return made
