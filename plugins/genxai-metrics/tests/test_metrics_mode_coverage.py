"""Modes, divergence and variety by a classifier: against loops, and on generators whose failure is known."""

from __future__ import annotations

import math

import pytest
import torch
from genxai_metrics.mode_coverage import ModeCoverage, divergence
from torch import nn

from genxai_core import Discriminator, Samples, create, draws
from genxai_core.errors import InputError, MissingCapability


class FirstPixel(Discriminator):
    """The class is the integer that the first pixel holds, of five; the features are the other pixels."""

    class_names = tuple("abcde")
    value_range = (-10.0, 10.0)

    def __init__(self, classes=5):
        super().__init__()
        self.centres = nn.Parameter(torch.arange(float(classes)))

    def forward(self, images):
        return -(images[:, 0, 0, :1] - self.centres).square()

    def features(self, images):
        return images.flatten(1)[:, 1:]


def samples(labels, seed=0, spread=1.0):
    images = spread * draws.normal(seed, range(len(labels)), (1, 2, 2))
    images[:, 0, 0, 0] = torch.tensor([float(v) for v in labels])
    return Samples(images, value_range=(-10.0, 10.0))


def measured(real, generated):
    return create("metric/mode-coverage", extractor=FirstPixel()).measure(real=real, generated=generated)


def test_it_is_the_definition():
    real, generated = samples([0, 1, 1, 2, 2, 2, 0, 3], 0), samples([0, 0, 2, 2, 4, 2], 1, 0.5)
    found = measured(real, generated)
    assert found["modes"] == 2 / 4
    p = [2.5, 2.5, 3.5, 1.5, 0.5]  # the fourth class is generated only, and so has half an image
    q = {0: 2 / 6, 2: 3 / 6, 4: 1 / 6}
    assert found["class_divergence"] == pytest.approx(sum(v * math.log(v / (p[c] / sum(p))) for c, v in q.items()))

    def spread(which, c):
        rows = [x.flatten()[1:].double() for x in which.images if int(x[0, 0, 0]) == c]
        pairs = [(a - b).norm() for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
        return float(sum(pairs)) / len(pairs)

    ratios = [spread(generated, c) / spread(real, c) for c in (0, 2)]
    assert found["diversity"] == pytest.approx(sum(ratios) / 2)


def test_each_failure_shows_in_the_figure_that_is_for_it():
    even = [i % 5 for i in range(200)]
    real = samples(even, 0)
    equal = measured(real, samples(even, 1))
    assert equal["modes"] == 1
    assert equal["class_divergence"] < 0.001
    assert equal["diversity"] == pytest.approx(1, abs=0.1)
    dropped = measured(real, samples([i % 2 for i in range(200)], 2))
    assert dropped["modes"] == pytest.approx(2 / 5)
    assert dropped["class_divergence"] == pytest.approx(math.log(5 / 2), abs=0.01)
    assert dropped["diversity"] == pytest.approx(1, abs=0.1)
    repeated = samples(even, 3, spread=0.0)
    collapsed = measured(real, repeated)
    assert collapsed["modes"] == 1
    assert collapsed["diversity"] == 0


def test_the_divergence_of_equal_counts_is_nearly_zero_and_of_others_positive():
    counts = torch.tensor([100.0, 50.0, 10.0], dtype=torch.float64)
    assert 0 <= divergence(counts, counts) < 1e-3
    assert divergence(counts.flip(0), counts) > 0.5


def test_what_has_no_classes_or_too_few_images_is_refused():
    with pytest.raises(MissingCapability, match="needs the capability HasFeatures"):
        ModeCoverage(nn.Linear(1, 1))
    real = samples([0, 1, 2])
    with pytest.raises(MissingCapability, match="has one logit"):
        create("metric/mode-coverage", extractor=FirstPixel(1)).measure(real=real, generated=real)
    with pytest.raises(InputError, match="no class has two different images in both sets"):
        measured(real, real)
