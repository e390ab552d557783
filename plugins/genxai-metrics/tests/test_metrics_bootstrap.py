"""Intervals: the method against its formulas, what they cover in simulations, and independence of order and parts."""

from __future__ import annotations

import math
import pickle
from statistics import NormalDist

import pytest
import torch
from genxai_metrics import bootstrap
from genxai_metrics.bootstrap import Estimate, binomial_interval, left_out
from genxai_metrics.fid import frechet_distance
from genxai_metrics.inception_score import log_inception_score
from genxai_metrics.kid import kernel_distance

import genxai_core as gx
from genxai_core import draws
from genxai_core.testing import LinearDiscriminator


def rows(seed, n, width=4):
    return draws.normal(seed, range(n), [width]).double()


def centred(values):
    return values - values.mean()


def skewed(seed, n):
    return centred(rows(seed, n, 1)[:, 0].exp())


def covered(ends, truth):
    return sum(low <= truth <= high for low, high in ends) / len(ends)


# -- the method -------------------------------------------------------------------------------------------------


def literal(value, sets):
    """BCa as written by Efron and Tibshirani (1993, 14.10), resample by resample, on the same draws."""
    means, cubes, squares = [0.0] * bootstrap.RESAMPLES, 0.0, 0.0
    for i, h in enumerate(sets):
        n = len(h)
        drawn = draws.generator(0, 0, f"bootstrap-{i}").integers(n, size=(bootstrap.RESAMPLES, n), dtype="int32")
        ordered = sorted(h.tolist())
        for b, picks in enumerate(drawn.tolist()):
            means[b] += math.fsum(ordered[j] for j in picks) / n * math.sqrt(n / (n - 1))
        cubes += math.fsum(v**3 for v in ordered) / n**3
        squares += math.fsum(v**2 for v in ordered) / (n * (n - 1))
    mean = math.fsum(means) / len(means)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in means) / (len(means) - 1))
    means = [(v - mean) * math.sqrt(squares) / spread for v in means]
    a, normal, ends = cubes / squares**1.5 / 6, NormalDist(), []
    for tail in (0.025, 0.975):
        z = normal.inv_cdf(tail)
        place = normal.cdf(a + (a + z) / (1 - a * (a + z))) * (len(means) - 1)
        below, above = sorted(means)[math.floor(place)], sorted(means)[math.ceil(place)]
        ends.append(value + below + (above - below) * (place - math.floor(place)))
    return ends


def test_the_interval_is_bca_of_the_influences():
    sets = (skewed(0, 30), -2 * skewed(1, 17))
    assert Estimate(3.0, sets).interval() == pytest.approx(literal(3.0, sets), rel=1e-12)


def test_the_error_is_that_of_a_mean():
    one, other = rows(0, 30, 1)[:, 0], rows(1, 20, 1)[:, 0]
    found = Estimate(0.0, (centred(one), centred(other)))
    assert found.error == pytest.approx(math.sqrt(float(one.var() / 30 + other.var() / 20)))
    assert left_out(torch.stack([(one.sum() - v) / 29 for v in one])).tolist() == pytest.approx(centred(one).tolist())


def test_without_skewness_and_with_many_images_it_is_the_normal_one():
    h = centred(rows(0, 2000, 1)[:, 0])
    found = Estimate(5.0, (h, h))  # the same numbers in both sets, drawn independently: the width is √2 times one's
    low, high = found.interval()
    assert (5 - low) / found.error == pytest.approx(1.96, abs=0.1)
    assert (high - 5) / found.error == pytest.approx(1.96, abs=0.1)


def test_a_skewed_mean_has_the_longer_end_where_its_tail_is():
    h = skewed(0, 60)
    low, high = Estimate(0.0, (h,)).interval()
    assert high > -1.3 * low
    mirrored = Estimate(0.0, (-h,)).interval()
    assert mirrored[0] < -1.3 * mirrored[1]


def test_ends_keep_to_the_bounds_and_what_no_image_moves_has_no_width():
    h = centred(rows(0, 10, 1)[:, 0])
    assert Estimate(0.1, (h,)).interval(0.0, 0.2) == (0.0, 0.2)
    assert Estimate(0.5, (torch.zeros(9),)).interval() == (0.5, 0.5)
    assert Estimate(-1e-17, (torch.zeros(9),)).interval(0.0) == (0.0, 0.0)


def test_the_order_of_the_images_does_not_matter_and_rounding_moves_it_by_rounding():
    h = torch.cat([skewed(0, 50), torch.zeros(20)])  # ties, as among copies
    one = Estimate(1.0, (h,)).interval()
    order = draws.permutation(0, 0, len(h))
    assert Estimate(1.0, (h[order],)).interval() == pytest.approx(one, rel=1e-14)
    moved = Estimate(1.0, (h + 1e-7 * rows(1, len(h), 1)[:, 0],)).interval()
    assert moved == pytest.approx(one, abs=1e-6)
    assert moved != one


def test_many_images_are_drawn_in_parts(monkeypatch):
    h = skewed(0, 500)
    whole = Estimate(0.0, (h,)).interval()
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 500 * 300)
    parts = Estimate(0.0, (h,))
    assert parts.interval() == pytest.approx(whole, abs=0.2 * parts.error)  # other draws of as many


def test_figures_are_named():
    found = Estimate(2.0, (skewed(0, 20),))
    low, high = found.interval(1.9, 9.0)
    assert found.named("x", 1.9, 9.0) == {"x": 2.0, "x_se": found.error, "x_low": low, "x_high": high}


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 30), (3, 10), (10, 10), (40, 90), (700, 1500)])
def test_the_binomial_interval_is_where_the_tails_are_one_in_forty(hits, n):
    low, high = binomial_interval(hits, n)

    def chance(count, p):  # of exactly so many, by logarithms
        log = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
        return math.exp(log + count * math.log(p) + (n - count) * math.log1p(-p))

    if hits:
        assert sum(chance(i, low) for i in range(hits, n + 1)) == pytest.approx(0.025)
    if hits < n:
        assert sum(chance(i, high) for i in range(hits + 1)) == pytest.approx(0.025)
    assert 0 <= low < high <= 1
    assert (low == 0, high == 1) == (hits == 0, hits == n)
    assert binomial_interval(0, 0) == (0, 1)


# -- what intervals cover: 95 % is meant, 90 % of 200 draws or more is asked ---------------------------------------


@pytest.mark.parametrize(("shift", "n"), [(0.0, 30), (0.1, 30), (0.4, 30), (1.0, 30), (0.0, 100), (0.4, 100)])
def test_kid_s_interval_covers_the_distance_of_the_sources(shift, n):
    """The truth is the mean of 40 pairs of 400, with a twentieth of the error of one pair of 30."""

    def drawn(seed, m):
        return rows(2 * seed, m), rows(2 * seed + 1, m) + shift

    large = [kernel_distance(*drawn(1000 + s, 400)).value for s in range(40)] if shift else [0.0]
    ends = [kernel_distance(*drawn(s, n)).interval() for s in range(200)]
    assert covered(ends, sum(large) / len(large)) >= 0.9


def test_resampling_images_with_their_kernels_with_themselves_would_move_the_floor():
    """Why influences are resampled: an image that is drawn twice has a large kernel with itself, in one set only."""
    shift = error = 0.0
    for s in range(20):
        x, y = rows(2 * s, 30), rows(2 * s + 1, 30)
        picks = [draws.generator(s, i, "naive").integers(30, size=(60, 30)) for i in (0, 1)]
        naive = [kernel_distance(x[i], y[j]).value for i, j in zip(*picks, strict=True)]
        found = kernel_distance(x, y)
        shift += sum(naive) / len(naive) - found.value
        error += found.error
    assert shift > 1.5 * error


@pytest.mark.parametrize(("width", "n"), [(4, 30), (8, 100)])
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.5, 1.0), (0.0, 1.5)])
def test_fid_s_interval_covers_its_expectation_and_not_that_of_more_images(width, n, shift, scale):
    pairs = [(rows(2 * s, n, width), scale * rows(2 * s + 1, n, width) + shift) for s in range(200)]
    found = [frechet_distance(*pair) for pair in pairs]
    ends = [f.interval(0.0) for f in found]
    assert covered(ends, sum(f.value for f in found) / 200) >= 0.9
    limit = width * (shift**2 + (scale - 1) ** 2)
    assert sum(f.value for f in found) / 200 > limit
    if shift == 0 and scale == 1 and n == 100:
        assert covered(ends, limit) < 0.1


@pytest.mark.parametrize(("classes", "n", "scale"), [(5, 30, 3.0), (10, 100, 0.5), (10, 100, 10.0)])
def test_the_inception_score_s_interval_covers_its_expectation(classes, n, scale):
    found = [log_inception_score(scale * rows(s, n, classes)) for s in range(200)]
    ends = [f.interval(0.0, math.log(classes)) for f in found]
    assert covered(ends, sum(f.value for f in found) / 200) >= 0.9


# -- in the metrics -----------------------------------------------------------------------------------------------

METRICS = ("kid", "fid", "inception-score", "precision-recall", "mode-coverage")
FIGURES = (
    "kid",
    "fid",
    "inception_score",
    "precision",
    "recall",
    "density",
    "coverage",
    "class_divergence",
    "diversity",
)


def images(seed, n, shift=0.0):
    return gx.Samples((draws.normal(seed, range(n), (1, 16, 16)) / 3 + shift).clamp(-1, 1), value_range=(-1.0, 1.0))


def metric_of(name):
    metric = gx.create(f"metric/{name}", extractor=LinearDiscriminator(num_classes=4).eval())
    metric.runtime = gx.Runtime(batch_size=1, device="cpu", quiet=True)  # the extractor's batches stay as they are
    return metric


def given(metric, real, generated):
    metric.update(**{k: v for k, v in (("real", real), ("generated", generated)) if k in metric.needs})
    return metric


@pytest.mark.parametrize("name", METRICS)
def test_figures_and_intervals_depend_on_neither_parts_nor_order_nor_who_saw_what(name):
    real, generated = images(0, 60), images(1, 48, 0.05)
    whole = given(metric_of(name), real, generated).compute()
    orders = [draws.permutation(0, i, len(s)).tolist() for i, s in enumerate((real, generated))]
    mixed, unmixed = [s[order] for s, order in zip((real, generated), orders, strict=True)], (real, generated)

    one, two, three = metric_of(name), metric_of(name), metric_of(name)
    given(given(one, mixed[0][:1], mixed[1][:7]), mixed[0][1:20], mixed[1][7:9])
    given(two, mixed[0][20:], mixed[1][9:30])
    given(three, mixed[0][:0], mixed[1][30:])
    for into, what in ((three, one), (three, two)):  # as if from other processes, in another order
        into.merge(pickle.loads(pickle.dumps(what)))

    alone = metric_of(name)
    for start in range(60):
        given(alone, unmixed[0][start : start + 1], unmixed[1][start : start + 1])
    for found in (given(metric_of(name), *mixed).compute(), three.compute(), alone.compute()):
        assert found == pytest.approx(whole, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_every_figure_has_an_interval_around_it(name):
    found = given(metric_of(name), images(0, 60), images(1, 60, 0.05)).compute()
    names = [figure for figure in FIGURES if figure in found]
    assert names
    for figure in names:
        assert found[f"{figure}_low"] <= found[figure] <= found[f"{figure}_high"], figure
        assert found[f"{figure}_se"] > 0
    assert set(found) == set(metric_of(name).higher_is_better)
