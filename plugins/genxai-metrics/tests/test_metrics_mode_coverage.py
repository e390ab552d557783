"""Modes, divergence and variety by a classifier: against loops, and on generators whose failure is known."""

from __future__ import annotations

import math

import pytest
import torch
from genxai_metrics.mode_coverage import (
    ModeCoverage,
    divergence,
    divergence_estimate,
    diversity,
    modes_interval,
)
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


# -- errors and intervals -----------------------------------------------------------------------------------------


def counts_of(seed, n, shares):
    return torch.from_numpy(draws.generator(seed, 0, "counts").multinomial(n, shares)).double()


def rows_of(seed, n, classes, scale=1.0):
    labels = draws.integers(seed, range(n), classes).double()[:, None]
    return torch.cat([labels, scale * draws.normal(seed, range(n), [4]).double()], 1)


def jackknife(without):
    values = torch.tensor(without, dtype=torch.float64)
    return (len(values) - 1) * float(values.var(unbiased=False))


def test_the_divergence_s_error_is_that_of_leaving_out_each_image():
    q, p = torch.tensor([5.0, 0, 2, 1], dtype=torch.float64), torch.tensor([3.0, 4, 0, 2], dtype=torch.float64)

    def without(counts):
        for c, n in enumerate(counts.int().tolist()):
            for _ in range(n):
                less = counts.clone()
                less[c] -= 1
                yield less

    variance = jackknife([divergence(less, p) for less in without(q)])
    variance += jackknife([divergence(q, less) for less in without(p)])
    assert divergence_estimate(q, p).error == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_the_diversity_s_error_is_that_of_leaving_out_each_image_nearly():
    """Nearly: leaving one out changes the size of its class."""
    real, generated, classes = rows_of(0, 60, 3), rows_of(1, 50, 3, 0.7), range(3)
    variance = jackknife([diversity(torch.cat([real[:i], real[i + 1 :]]), generated, classes).value for i in range(60)])
    variance += jackknife(
        [diversity(real, torch.cat([generated[:i], generated[i + 1 :]]), classes).value for i in range(50)]
    )
    assert diversity(real, generated, classes).error == pytest.approx(math.sqrt(variance), rel=0.1)


def test_classes_of_two_images_add_no_error():
    real, generated = rows_of(0, 60, 3), torch.cat([rows_of(1, 40, 2), rows_of(2, 2, 1) + torch.eye(5)[0] * 2])
    found = diversity(real, generated, [0, 1, 2])
    assert not found.influences[0][-2:].any()
    assert found.influences[0][:-2].all()


@pytest.mark.parametrize("shares", [[0.1] * 10, [0.28] + [0.08] * 9, [0.5, 0.3] + [0.025] * 8])
def test_the_divergence_s_interval_covers_its_expectation(shares):
    found = []
    for s in range(200):
        q, p = counts_of(2 * s, 100, shares), counts_of(2 * s + 1, 100, [0.1] * 10)
        found.append(divergence_estimate(q[q + p > 0], p[q + p > 0]))
    truth = sum(f.value for f in found) / len(found)
    ends = [f.interval(0.0) for f in found]
    assert sum(low <= truth <= high for low, high in ends) >= 0.9 * len(found)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_diversity_s_interval_covers_its_expectation(scale):
    found = [diversity(rows_of(2 * s, 60, 4), rows_of(2 * s + 1, 60, 4, scale), range(4)) for s in range(200)]
    truth = sum(f.value for f in found) / len(found)
    ends = [f.interval(0.0) for f in found]
    assert sum(low <= truth <= high for low, high in ends) >= 0.93 * len(found)


@pytest.mark.parametrize("rates", [[20] * 9 + [2], [20] * 7 + [1] * 3, [3] * 10, [1] * 10, [20] * 10 + [0] * 90])
def test_the_modes_interval_covers_the_expected_share(rates):
    """Rates are the expected images of each class; the truth is 1 − (1 − q)ᴹ, averaged over the classes."""
    m, shares = sum(rates), [rate / sum(rates) for rate in rates]
    truth = sum(1 - (1 - q) ** m for q in shares) / len(rates)
    ends = [modes_interval(counts_of(s, m, shares)) for s in range(200)]
    assert sum(low - 1e-3 <= truth <= high + 1e-3 for low, high in ends) >= 190


def test_many_images_of_every_class_leave_no_doubt_and_few_do():
    assert modes_interval(torch.full((10,), 20.0)) == (1, 1)
    assert modes_interval(torch.tensor([20.0] * 9 + [0.0])) == pytest.approx((0.9, 0.9975))
    assert modes_interval(torch.tensor([20.0] * 9 + [1.0])) == pytest.approx((0.9025, 1))


def test_what_has_no_classes_or_too_few_images_is_refused():
    with pytest.raises(MissingCapability, match="needs the capability HasFeatures"):
        ModeCoverage(nn.Linear(1, 1))
    real = samples([0, 1, 2])
    with pytest.raises(MissingCapability, match="has one logit"):
        create("metric/mode-coverage", extractor=FirstPixel(1)).measure(real=real, generated=real)
    with pytest.raises(InputError, match="no class has two different images in both sets"):
        measured(real, real)
