"""Models of which the right explanation is known, for tests of metrics of explanations."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from genxai_core import Attribution, Discriminator, draws


class Sum(Discriminator):
    """f_k(x) = (k + 1) Σ x: pixels do not interact, so φ = x is right against the baseline 0."""

    def __init__(self, classes=1):
        super().__init__()
        self.class_names = tuple(f"c{k}" for k in range(classes))
        self.gain = nn.Parameter(torch.arange(1.0, classes + 1))

    def forward(self, images):
        return images.flatten(1).sum(1, keepdim=True) * self.gain


class Curved(Discriminator):
    """A fixed small network with tanh: smooth, not linear, several logits; in double precision on request."""

    class_names = ("a", "b", "c")

    def __init__(self, channels=1, size=6, seed=0):
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)  # would notice a forward in train mode
        self.last = nn.Linear(4 * size * size, 3)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(draws.normal(seed, [i], p.shape)[0] / max(1, p[0].numel()) ** 0.5)

    def forward(self, images):
        return self.last(torch.tanh(self.norm(self.first(images))).flatten(1))


def images_of(n=6, channels=1, size=6, seed=0):
    """Images [n, channels, size, size] in (-1, 1), all pixels different."""
    return draws.uniform(seed, range(n), (channels, size, size), "oracle-images") * 1.8 - 0.9


def explained(maps, images, target=0, **more):
    return Attribution(maps, target, images=images, **more)


@pytest.fixture(scope="session")
def oracles():
    return SimpleNamespace(Sum=Sum, Curved=Curved, images_of=images_of, explained=explained)
