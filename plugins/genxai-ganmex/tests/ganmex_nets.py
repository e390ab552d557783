"""Classifiers of a few numbers, for tests of trainings."""

from __future__ import annotations

import torch
from torch import nn

from genxai_core import Discriminator, draws


class Bright(Discriminator):
    """Images ``[N, 1, 16, 16]`` in (0, 1) to logits of (dark, bright): linear in the mean of a patch.

    Parameters
    ----------
    gain
        Logit per unit of brightness.
    """

    value_range = (0.0, 1.0)
    image_shape = (1, 16, 16)
    class_names = ("dark", "bright")

    def __init__(self, gain: float = 20.0) -> None:
        super().__init__()
        weight = torch.zeros(1, 16, 16)
        weight[:, 8:12, 4:8] = gain / 16
        self.weight = nn.Parameter(weight)
        self.register_buffer("seen", torch.zeros(1))

    def brightness(self, images):
        if self.training:
            self.seen += 1  # who explains in train mode is found out
        return ((images - 0.5) * self.weight).flatten(1).sum(1, keepdim=True)

    def forward(self, images):
        logit = self.brightness(images)
        return torch.cat([-logit / 2, logit / 2], 1)


class OneLogit(Bright):
    """The same as one logit of "bright"."""

    class_names = ("bright",)

    def forward(self, images):
        return self.brightness(images)


def blobs(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Return gray images in (0, 1) with a bright or dark patch, and the labels."""
    labels = torch.arange(n) % 2
    images = 0.5 + 0.05 * draws.normal(0, range(n), (1, 16, 16)).clamp(-2, 2)
    images[:, :, 8:12, 4:8] += (labels.float() * 0.6 - 0.3)[:, None, None, None]
    return images.clamp(0, 1), labels
