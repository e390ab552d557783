"""Precision, recall, density and coverage against loops, against what is expected of equal sets, and by their sense."""

from __future__ import annotations

import math

import pytest
import torch
from genxai_metrics.precision_recall import PrecisionRecall, neighbourhoods

from genxai_core import Samples, create, draws
from genxai_core.errors import BadParameter, InputError
from genxai_core.testing import LinearDiscriminator

FIGURES = ("precision", "recall", "density", "coverage")


def rows(seed, n, width=3):
    return draws.normal(seed, range(n), [width]).double()


def figures(real, generated, k):
    return {name: float(found.counted.mean()) for name, found in neighbourhoods(real, generated, k).items()}


def literal(real, generated, k):
    """The definitions, pair by pair."""

    def distance(a, b):
        return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b)))

    def radius(i, points):
        return sorted(distance(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]

    n, m = len(real), len(generated)
    r, s = [radius(i, real) for i in range(n)], [radius(j, generated) for j in range(m)]
    across = [[distance(x, y) for y in generated] for x in real]
    return {
        "precision": sum(any(across[i][j] <= r[i] for i in range(n)) for j in range(m)) / m,
        "recall": sum(any(across[i][j] <= s[j] for j in range(m)) for i in range(n)) / n,
        "density": sum(across[i][j] <= r[i] for i in range(n) for j in range(m)) / (k * m),
        "coverage": sum(any(across[i][j] <= r[i] for j in range(m)) for i in range(n)) / n,
    }


@pytest.mark.parametrize(("n", "m", "k"), [(12, 9, 1), (20, 31, 3), (7, 7, 5)])
def test_it_is_the_definition(n, m, k):
    real, generated = rows(0, n), 1.3 * rows(1, m) + 0.2
    assert figures(real, generated, k) == pytest.approx(literal(real, generated, k), abs=1e-12)


def test_chunks_change_nothing(monkeypatch):
    real, generated = rows(0, 50), rows(1, 40)
    whole = figures(real, generated, 5)
    monkeypatch.setattr("genxai_metrics.precision_recall._ROWS", 7)
    assert figures(real, generated, 5) == whole


def test_a_copy_of_the_real_images_is_perfect():
    real = rows(0, 40)
    found = figures(real, real.clone(), 5)
    assert {name: found[name] for name in ("precision", "recall", "coverage")} == dict.fromkeys(
        ("precision", "recall", "coverage"), 1.0
    )
    assert found["density"] == pytest.approx((5 + 1) / 5)  # each lies in its own ball and, on average, in k others


def test_equal_distributions_cover_as_much_as_is_expected():
    """Whatever the distribution: of N + M − 1 others, the M must all be farther than the k nearest of the N − 1."""
    n, m, k = 60, 40, 3
    expected = 1 - math.prod((n - i) / (n + m - i) for i in range(1, k + 1))
    found = [figures(rows(2 * s, n), rows(2 * s + 1, m), k) for s in range(60)]
    mean = sum(f["coverage"] for f in found) / len(found)
    assert mean == pytest.approx(expected, abs=0.02)
    assert sum(f["density"] for f in found) / len(found) == pytest.approx(1, abs=0.05)


def test_what_is_lost_shows_in_the_figure_that_is_for_it():
    """Two far modes: dropping one costs diversity only; noise between them costs fidelity only."""
    modes = torch.cat([rows(0, 60) - 20, rows(1, 60) + 20])
    one = figures(modes, rows(2, 120) - 20, 5)
    assert one["precision"] > 0.9 > 0.6 > one["recall"]
    assert one["coverage"] < 0.55
    both_and_noise = figures(modes, torch.cat([rows(3, 60) - 20, rows(4, 60) + 20, 0.1 * rows(5, 60)]), 5)
    assert both_and_noise["precision"] == pytest.approx(2 / 3, abs=0.05)
    assert both_and_noise["coverage"] > 0.9
    far = figures(modes, rows(6, 50) + 1000, 5)
    assert far == dict.fromkeys(FIGURES, 0.0)


def test_an_outlier_among_the_real_images_raises_precision_and_not_density():
    """The reason for density (Naeem et al., figure 1): one far real image has a ball that holds everything."""
    real = torch.cat([rows(0, 60), torch.full((1, 3), 100.0, dtype=torch.float64)])
    generated = rows(1, 60) + 50
    found = figures(real, generated, 5)
    assert found["precision"] == 1
    assert found["density"] < 0.25


@pytest.mark.parametrize(("n", "m", "k", "copies"), [(12, 9, 1, 0), (20, 31, 3, 0), (16, 14, 5, 3)])
def test_errors_are_those_of_leaving_out_each_image_of_both_sets(n, m, k, copies):
    real, generated = rows(0, n), 1.3 * rows(1, m) + 0.2
    real[:copies], generated[:copies] = real[-1].clone(), real[-1].clone()  # neighbours at distance 0
    without_real = [literal(torch.cat([real[:i], real[i + 1 :]]), generated, k) for i in range(n)]
    without_generated = [literal(real, torch.cat([generated[:j], generated[j + 1 :]]), k) for j in range(m)]
    for name, found in neighbourhoods(real, generated, k).items():
        variance = 0.0
        for left in (without_real, without_generated):
            values = torch.tensor([each[name] for each in left], dtype=torch.float64)
            variance += (len(left) - 1) * float(values.var(unbiased=False))
        assert found.estimate().error == pytest.approx(math.sqrt(variance), rel=1e-6, abs=1e-9), name


def test_the_metric_gives_the_figures_of_the_extractor_s_features():
    metric = create("metric/precision-recall", extractor=LinearDiscriminator(), neighbours=2)
    samples = [Samples(draws.uniform(s, range(30), (1, 16, 16)) * 2 - 1, value_range=(-1.0, 1.0)) for s in (0, 1)]
    found = metric.measure(real=samples[0], generated=samples[1])
    features = [LinearDiscriminator().features(s.images).double() for s in samples]
    for name, figure in neighbourhoods(*features, 2).items():
        assert found[name] == pytest.approx(float(figure.counted.mean()))
        assert found[f"{name}_se"] == pytest.approx(figure.estimate().error)
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(figure.interval())
        assert found[f"{name}_low"] < found[name] <= found[f"{name}_high"]


def test_the_interval_of_a_share_that_is_1_has_a_width():
    """Of 40 images that all count, three in a hundred may well not: 1 − 0.97⁴⁰ is 0.7."""
    low, high = neighbourhoods(rows(0, 40), 0.2 * rows(1, 40), 5)["precision"].interval()
    assert 0.85 < low < 0.97
    assert high == 1


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.5, 1.0), (0.0, 0.6)])
def test_intervals_cover_the_figure_s_expectation(shift, scale):
    """The truth is the mean over the draws themselves, whose own error is a fourteenth of one draw's."""
    found = [neighbourhoods(rows(2 * s, 40), scale * rows(2 * s + 1, 40) + shift, 5) for s in range(200)]
    for name in FIGURES:
        truth = sum(float(f[name].counted.mean()) for f in found) / len(found)
        ends = [f[name].interval() for f in found]
        assert sum(low <= truth <= high for low, high in ends) >= 0.93 * len(found), name


def test_too_few_images_and_bad_numbers_are_refused():
    metric = PrecisionRecall(LinearDiscriminator(), neighbours=5)
    few = Samples(torch.zeros(5, 1, 16, 16), value_range=(-1.0, 1.0))
    with pytest.raises(InputError, match="at least 6 real and 6 generated images, and has seen 5 and 5"):
        metric.measure(real=few, generated=few)
    with pytest.raises(BadParameter, match="neighbours 0 must be at least 1"):
        create("metric/precision-recall", extractor=LinearDiscriminator(), neighbours=0)
