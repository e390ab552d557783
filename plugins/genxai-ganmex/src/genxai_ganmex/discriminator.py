"""StarGAN's discriminator: is it real, and of which class is it."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from genxai_core import Discriminator
from genxai_core.errors import InputError

from .stargan import checked_sizes, halvings


class StarGANDiscriminator(Discriminator):
    """Images ``[N, channels, size, size]`` in (-1, 1) to one logit ``[N, 1]``; above zero means real.

    Choi et al., "StarGAN", CVPR 2018: strided convolutions with leaky ReLU and no normalisation (which a gradient
    penalty asks for), and two heads on what they find. ``forward`` gives the source head's logit; ``heads`` gives the
    logits of the classes, too.

    Parameters
    ----------
    size
        Height and width of the images: even, at least 8.
    channels
        1 for gray, 3 for colour.
    num_classes
        Logits of the class head; 0 for none.
    width
        Units of the first layer, a multiple of 8; each following one has twice as many, up to four times.

    Raises
    ------
    ValueError
        If a number is out of these bounds.
    """

    class_names = ("real",)
    value_range = (-1.0, 1.0)

    def __init__(self, size: int, channels: int = 1, num_classes: int = 0, width: int = 32) -> None:
        super().__init__()
        checked_sizes(channels, width)
        if num_classes < 0 or num_classes == 1:
            raise ValueError(f"num_classes ({num_classes}) must be 0, for no class head, or at least 2")
        count = halvings(size) + 1
        units = [channels, *(width * min(4, 2**i) for i in range(count))]
        self.image_shape = (channels, size, size)
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 4, stride=2, padding=1), nn.LeakyReLU(0.2)) for a, b in pairwise(units))
        )
        features = units[-1] * (size >> count) ** 2
        self.source = nn.Linear(features, 1)
        self.classes = nn.Linear(features, num_classes) if num_classes else None

    def forward(self, images: Tensor) -> Tensor:
        """Return the source head's logits ``[N, 1]``."""
        logits: Tensor = self.source(self.layers(images).flatten(1))
        return logits

    def heads(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the source ``[N, 1]`` and of the classes ``[N, num_classes]``.

        Raises
        ------
        InputError
            If it has no class head.
        """
        if self.classes is None:
            raise InputError("discriminator/stargan has no class head; build it with num_classes")
        features = self.layers(images).flatten(1)
        return self.source(features), self.classes(features)
