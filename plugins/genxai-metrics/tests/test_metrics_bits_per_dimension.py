"""Bits per dimension: against densities and codes whose bits are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from genxai_metrics.bits_per_dimension import BitsPerDimension
from torch import nn

from genxai_core import Generator, Runtime, Samples, create, draws
from genxai_core.errors import BadParameter, InputError, MissingCapability

RUNTIME = Runtime(device="cpu", quiet=True)


class Normal(Generator):
    """Pixels N(0, sigma²), as a density of pixel values."""

    value_range = (-1.0, 1.0)

    def __init__(self, sigma=0.5, mean=0.0):
        super().__init__()
        self.sigma, self.mean = nn.Parameter(torch.tensor(sigma)), mean

    def log_prob(self, images):
        return torch.distributions.Normal(self.mean, self.sigma).log_prob(images).flatten(1).sum(1)


class UniformPixels(Generator):
    """Every one of k levels is as likely as another; a density of pixel values, half a level beyond the ends."""

    def __init__(self, k, value_range):
        super().__init__()
        self.k, self.value_range = k, value_range

    def log_prob(self, images):
        low, high = self.value_range
        width = (high - low) / (self.k - 1)
        inside = ((images > low - width / 2) & (images < high + width / 2)).flatten(1).all(1)
        logs = torch.full((len(images),), -images[0].numel() * math.log(self.k * width))
        return torch.where(inside, logs, -torch.inf)


class Halved(Generator):
    """v is an image of half the size, counted in `levels`, each number p(level) ∝ 1 + level, with a slope within it."""

    value_range, levels, native_shape = (0.0, 1.0), 4, (1, 2, 2)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0]) / 10

    def to_native(self, images):
        return 3 * images[..., ::2, ::2]

    def density(self, v):
        level = v.round().clamp(0, 3)
        within = 1 + 0.8 * (v - level)  # has mean 1 over ±1/2
        return (self.weights[level.long()] * within).log().flatten(1).sum(1)

    def log_prob(self, images):
        return self.density(self.to_native(images))


def quantised(n, k, value_range=(-1.0, 1.0), shape=(1, 3, 3), seed=0):
    low, high = value_range
    levels = (draws.uniform(seed, range(n), shape) * k).floor()
    return Samples(low + (high - low) * levels / (k - 1), value_range=value_range)


def bits(model, real, **params):
    return create("metric/bits-per-dimension", **params).measure(model=model, real=real, runtime=RUNTIME)


# -- closed forms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "value_range"), [(2, (-1.0, 1.0)), (17, (-1.0, 1.0)), (256, (0.0, 1.0))])
def test_a_uniform_distribution_over_k_levels_has_log2_k_bits(k, value_range):
    found = bits(UniformPixels(k, value_range), quantised(20, k, value_range), levels=k)
    assert found["bits_per_dimension"] == pytest.approx(math.log2(k), abs=1e-5)
    assert found["bits_per_dimension_se"] == pytest.approx(0, abs=1e-6)


def test_bits_of_levels_are_the_closed_form_in_the_models_own_space():
    levels = torch.tensor([0, 3, 1, 2, 3, 3, 2, 0, 1, 3, 2, 1]).view(3, 1, 2, 2)
    images = (levels / 3).repeat_interleave(2, 2).repeat_interleave(2, 3)  # [3, 1, 4, 4]: D is 4, not 16
    found = bits(Halved(), Samples(images, value_range=(0.0, 1.0)), samples=4000)
    exact = -Halved.weights[levels].log2().mean()
    w = torch.linspace(-0.5, 0.5, 100_001, dtype=torch.float64)
    loss = -(1 + 0.8 * w).log2().mean()  # of the bound: by Jensen, what the slope within a level costs
    assert float(loss) > 0.03
    assert found["bits_per_dimension"] == pytest.approx(float(exact + loss), abs=0.01)


def test_without_levels_bits_are_differential_and_those_of_a_gaussian_its_entropy():
    sigma = 0.5
    real = Samples(sigma * draws.normal(0, range(400), (1, 4, 4)), value_range=(-1.0, 1.0))
    found = bits(Normal(sigma), real)
    entropy = 0.5 * math.log2(2 * math.pi * math.e * sigma**2)
    assert found["bits_per_dimension"] == pytest.approx(entropy, abs=0.03)
    each = 0.5 * math.log2(2 * math.pi * sigma**2) + real.images.double().square().mean((1, 2, 3)) / (
        2 * sigma**2 * math.log(2)
    )
    assert found["bits_per_dimension"] == pytest.approx(float(each.mean()), rel=1e-5)
    assert found["bits_per_dimension_se"] == pytest.approx(float(each.std()) / 20, rel=1e-4)
    assert found["bits_per_dimension_low"] < entropy < found["bits_per_dimension_high"]


def test_bits_of_a_quantised_gaussian_bound_those_of_its_exact_code():
    """The code of the levels has the mass of N between the ends of each."""
    k, sigma = 33, 0.3
    step = 2 / (k - 1)
    values = (sigma * draws.normal(0, range(200), (1, 4, 4))).clamp(-1, 1)
    real = Samples((values / step).round() * step, value_range=(-1.0, 1.0))
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), sigma)
    x = real.images.double()
    code = -(normal.cdf(x + step / 2) - normal.cdf(x - step / 2)).log2().mean()
    found = bits(Normal(sigma), real, levels=k, samples=64)["bits_per_dimension"]
    assert float(code) - 0.001 < found < float(code) + 0.01


def test_a_log_probability_of_levels_is_taken_as_it_is():
    class Coin(Generator):
        value_range, levels = (0.0, 1.0), 2

        def log_prob(self, images):
            return (0.9 * images + 0.1 * (1 - images)).log().flatten(1).sum(1)

    real = Samples(torch.tensor([[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]]).view(2, 1, 2, 2), value_range=(0.0, 1.0))
    expected = -(3 * math.log2(0.9) + math.log2(0.1)) / 4
    assert bits(Coin(), real)["bits_per_dimension"] == pytest.approx(expected, rel=1e-6)


def test_a_bernoulli_model_is_told_to_leave_levels_out():
    model = create("generator/vae", size=8, width=4, likelihood="bernoulli").eval()
    real = quantised(4, 2, shape=(1, 8, 8))
    with pytest.raises(InputError, match=r"Bernoulli model is a log probability already.*; leave the metric's out"):
        bits(model, real, levels=2)
    assert bits(model, real)["bits_per_dimension"] > 0


# -- the same for every order and batch ---------------------------------------------------------------------------


def test_order_batches_and_merging_do_not_matter():
    real, model = quantised(23, 9), Normal()
    whole = bits(model, real, levels=9)
    order = list(reversed(range(23)))
    small = create("metric/bits-per-dimension", levels=9).measure(
        model=model, real=real[order], runtime=RUNTIME.with_(batch_size=5)
    )
    parts = [create("metric/bits-per-dimension", levels=9) for _ in range(2)]
    for metric, rows in zip(parts, (range(9), range(9, 23))):
        metric.update(model=model, real=real[list(rows)])
    parts[1].merge(parts[0])
    for found in (small, parts[1].compute()):
        assert found == pytest.approx(whole, rel=1e-6)
    other = create("metric/bits-per-dimension", levels=9).measure(model=model, real=real, runtime=RUNTIME.with_(seed=1))
    assert other["bits_per_dimension"] != whole["bits_per_dimension"]


def test_a_flow_and_what_is_made_of_flows_state_their_space():
    digits = create("dataset/digits", size=16)
    flow = create("trainer/flow", steps=2, holdout=0.0).fit(digits[:64], RUNTIME).generator
    found = bits(flow, digits[64:128], samples=2)["bits_per_dimension"]
    middle = -float(flow.log_prob(digits[64:128].images).detach().double().mean()) / (64 * math.log(2))
    assert found == pytest.approx(middle, abs=0.3)
    pair = create("discriminator/generative-classifier", densities=[flow, flow])
    assert bits(pair, digits[64:128], samples=2)["bits_per_dimension"] == pytest.approx(found, rel=1e-5)
    with pytest.raises(InputError, match="the model counts 17 levels, not 256"):
        bits(flow, digits[:10], levels=256)
    with pytest.raises(InputError, match="pixels are not of 17 levels"):
        bits(flow, Samples(0.97 * digits[:10].images, value_range=(-1.0, 1.0)))


# -- refusals -----------------------------------------------------------------------------------------------------


class Small(Normal):
    native_shape = (1, 2, 2)


def test_what_does_not_fit_is_refused():
    real = quantised(6, 9)
    with pytest.raises(MissingCapability, match="HasDensity"):
        bits(nn.Identity(), real)
    with pytest.raises(InputError, match="value_range of the images"):
        bits(Normal(), real.rescale((0.0, 1.0)))
    with pytest.raises(InputError, match="pixels are not of 8 levels"):
        bits(Normal(), real, levels=8)
    with pytest.raises(InputError, match="pixels cannot be dequantised"):
        bits(Small(), real, levels=9)
    with pytest.raises(InputError, match="not finite"):
        bits(UniformPixels(3, (-1.0, 1.0)), Samples(torch.full((2, 1, 2, 2), 1.9), value_range=(-1.0, 1.0)))
    with pytest.raises(InputError, match="at least 2 images, and has seen 1"):
        bits(Normal(), real[:1])
    metric = create("metric/bits-per-dimension")
    metric.update(model=Normal(), real=real)
    with pytest.raises(InputError, match="has seen images of another space"):
        metric.update(model=Small(), real=real)
    other = create("metric/bits-per-dimension", levels=9)
    other.update(model=Normal(), real=real)
    with pytest.raises(InputError, match="cannot merge bits of the space"):
        metric.merge(other)
    for wrong in ({"levels": 1}, {"levels": -1}, {"samples": 0}):
        with pytest.raises(BadParameter):
            create("metric/bits-per-dimension", **wrong)


def test_its_docstring_names_what_compute_returns():
    assert set(BitsPerDimension.higher_is_better) == set(bits(Normal(), quantised(4, 9)))
