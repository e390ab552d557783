"""metric/bits-per-dimension keeps the contract of metrics."""

from __future__ import annotations

import torch
from torch import nn

from genxai_core import Generator, Samples, draws
from genxai_core.testing import MetricTests


class Normal(Generator):
    """Pixels N(0, sigma²), as a density of pixel values."""

    value_range = (-1.0, 1.0)

    def __init__(self, sigma=0.5):
        super().__init__()
        self.sigma = nn.Parameter(torch.tensor(sigma))

    def log_prob(self, images):
        return torch.distributions.Normal(0.0, self.sigma).log_prob(images).flatten(1).sum(1)


class TestBitsPerDimension(MetricTests):
    component = "metric/bits-per-dimension"

    def good(self):
        images = 0.5 * draws.normal(0, range(32), (1, 4, 4))
        return {"real": Samples(images, value_range=(-1.0, 1.0)), "model": Normal()}

    def bad(self):
        return {**self.good(), "model": Normal(0.1)}


class TestBitsPerDimensionOfLevels(TestBitsPerDimension):
    params = {"levels": 9, "samples": 2}

    def good(self):
        images = (0.5 * draws.normal(0, range(32), (1, 4, 4))).clamp(-1, 1)
        return {"real": Samples((4 * images).round() / 4, value_range=(-1.0, 1.0)), "model": Normal()}
