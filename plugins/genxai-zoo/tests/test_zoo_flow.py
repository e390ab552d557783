"""The flow against what a density must be: a bijection whose determinant is that of its Jacobian, of total mass 1."""

import math

import pytest
import torch
from genxai_zoo.flow import Flow
from genxai_zoo.flow_training import FlowTrainer, _covariance
from torch.distributions import MultivariateNormal
from torch.nn import functional as F

import genxai_core as gx
from genxai_core import Spec, models
from genxai_core.errors import BadParameter, InputError

RUNTIME = gx.Runtime(device="cpu", quiet=True)
SMALL = {"transforms": 2, "hidden": 8, "bins": 4}


def rough(**params):
    """Make a flow in double precision that is far from the identity."""
    torch.manual_seed(0)
    model = Flow(**{**SMALL, **params}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        features = model.latent_shape[0]
        model.shift.copy_(0.3 * torch.randn(features))
        model.factor.copy_(torch.eye(features) + 0.3 * torch.randn(features, features).tril(-1))
        model.factor.mul_(0.7)
    return model


@pytest.fixture(scope="module")
def digits():
    return gx.create("dataset/digits", size=16)


# -- its equations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [0, 5])
@pytest.mark.parametrize("coupling", [True, False])
def test_the_log_determinant_is_that_of_the_jacobian(levels, coupling):
    model = rough(size=3, channels=2, native=0, levels=levels, coupling=coupling)
    v = torch.rand(3, 2, 3, 3, dtype=torch.float64) * max(levels - 1, 1)
    z, found = model.to_noise(v)
    jacobians = torch.autograd.functional.jacobian(lambda one: model.to_noise(one)[0], v)
    for i in range(3):
        exact = torch.linalg.slogdet(jacobians[i, :, i].flatten(1))[1]
        torch.testing.assert_close(found[i], exact)
    assert found.std() > 0.01
    literal = MultivariateNormal(torch.zeros(18, dtype=torch.float64), torch.eye(18, dtype=torch.float64)).log_prob(z)
    torch.testing.assert_close(model.density(v), literal + found)


@pytest.mark.parametrize("levels", [0, 17])
@pytest.mark.parametrize("coupling", [True, False])
def test_the_inverse_undoes_the_map_in_both_directions(levels, coupling):
    model = rough(size=4, native=0, levels=levels, coupling=coupling)
    v = torch.rand(5, 1, 4, 4, dtype=torch.float64) * max(levels - 1, 1)
    torch.testing.assert_close(model.from_noise(model.to_noise(v)[0]), v, atol=1e-7, rtol=1e-6)
    z = torch.randn(5, 16, dtype=torch.float64)
    torch.testing.assert_close(model.to_noise(model.from_noise(z))[0], z, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("levels", [0, 5])
def test_in_one_dimension_it_integrates_to_one(levels):
    model = rough(size=1, native=1, levels=levels)
    reach = levels * 0.05 / 0.9  # what the logit leaves beyond the levels
    low, high = (-0.5 - reach, levels - 0.5 + reach) if levels else (-40.0, 40.0)
    edges = torch.linspace(low, high, 40_001, dtype=torch.float64)
    middles = (edges[1:] + edges[:-1]) / 2
    with torch.no_grad():
        total = model.density(middles.view(-1, 1, 1, 1)).exp().sum() * (edges[1] - edges[0])
    assert total.item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("coupling", [True, False])
def test_in_two_dimensions_it_integrates_to_one(coupling):
    model = rough(size=1, channels=2, native=1, levels=0, coupling=coupling)
    line = torch.linspace(-9, 9, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line).view(-1, 2, 1, 1)
    with torch.no_grad():
        total = model.density(grid).exp().sum() * (line[1] - line[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-3)


def test_the_probabilities_of_all_levels_sum_to_nearly_one():
    """The density averaged over ±1/2 about a level is that level's probability; the logit keeps a little outside."""
    model = rough(size=1, native=1, levels=5)
    inside = torch.arange(5)[:, None] + (torch.arange(8000) + 0.5) / 8000 - 0.5
    with torch.no_grad():
        masses = model.density(inside.reshape(-1, 1, 1, 1).double()).exp().view(5, 8000).mean(1)
    assert 0.5 < masses.sum().item() <= 1 + 1e-4


# -- the native size ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 16, 20, 32])
def test_upsampled_digits_are_brought_back_to_their_levels_exactly(size):
    native = gx.create("dataset/digits", size=8)[:20].images
    v = Flow(size, **SMALL).to_native(gx.create("dataset/digits", size=size)[:20].images)
    torch.testing.assert_close(v, (native + 1) * 8, atol=2e-4, rtol=0)


def test_digits_at_16_px_fill_a_part_of_the_pixels_only(digits):
    images = digits[:].images.flatten(1).double()
    assert torch.linalg.matrix_rank(images - images.mean(0), rtol=1e-6) <= 61


def test_any_other_image_is_brought_to_the_nearest_that_is_an_upsampling():
    model = Flow(16, levels=0, value_range=(-9.0, 9.0), **SMALL)
    image = torch.randn(1, 1, 16, 16)
    best = F.interpolate(model.to_native(image), (16, 16), mode="bilinear", align_corners=False)
    assert torch.equal(model.from_native(model.to_native(image)), best)
    for _ in range(20):
        other = model.to_native(image) + 0.1 * torch.randn(1, 1, 8, 8)
        other = F.interpolate(other, (16, 16), mode="bilinear", align_corners=False)
        assert (image - best).square().sum() < (image - other).square().sum()


def test_sharp_edges_in_the_range_are_brought_to_levels_in_the_range_and_what_is_beyond_it_is_refused(digits):
    model = rough(size=16)
    hidden = digits[:4].images.double()
    hidden[:, :, 5:9, 5:9] = 1.0
    hidden[0] = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)).round() * 2 - 1
    unclipped = model.down @ hidden @ model.down.T
    assert float(unclipped.max()) > 1 + 1 / 16  # least squares alone overshoots by more than half a level
    v = model.to_native(hidden)
    assert float(v.min()) >= -0.5
    assert float(v.max()) <= 16.5
    torch.testing.assert_close(v, ((unclipped + 1) * 8).clamp(-0.5, 16.5))
    assert bool(model.log_prob(hidden).isfinite().all())
    beyond = torch.cat([hidden[1:], 2 * hidden[:1]])
    with pytest.raises(InputError, match=r"pixels are outside \(-1.0, 1.0\)"):
        model.log_prob(beyond)


def test_an_image_is_its_own_reconstruction(digits):
    model = rough(size=16)
    images = digits[:6].images.double()
    torch.testing.assert_close(model(model.encode(images)), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.log_prob(images), model.density(model.to_native(images)))


def test_a_density_is_differentiable_in_the_image(digits):
    model = rough(size=16)
    images = digits[:3].images.double().requires_grad_()
    (gradient,) = torch.autograd.grad(model.log_prob(images)[0], images)
    assert gradient[0].abs().max() > 0
    assert gradient[1:].abs().max() == 0


# -- its capabilities and refusals --------------------------------------------------------------------------------


def test_capabilities():
    model = gx.create("generator/flow", size=8, **SMALL)
    for capability in (models.CanSample, models.HasLatents, models.HasEncoder, models.HasDensity):
        assert models.require(model, capability, by="test") is model
    assert not isinstance(model, models.Conditional)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"native": 32}, "native 32 must be between 1 and size 16"),
        ({"levels": 1}, "levels 1"),
        ({"bins": 1}, "bins 1"),
        ({"hidden": 0}, "hidden 0"),
        ({"value_range": (1.0, 0.0)}, "value_range"),
        ({"size": 64, "native": 0}, "4096 numbers, more than 1024; lower native"),
    ],
)
def test_parameters_out_of_bounds_are_refused(wrong, message):
    with pytest.raises(BadParameter, match=message):
        gx.create("generator/flow", **{"size": 16, **wrong})


def test_what_it_cannot_take_is_refused():
    model = Flow(8, **SMALL)
    with pytest.raises(InputError, match=r"takes images \['N', 1, 8, 8\], not \[2, 1, 16, 16\]"):
        model.encode(torch.zeros(2, 1, 16, 16))
    with pytest.raises(InputError, match=r"pixels are outside \(-1.0, 1.0\)"):
        model.log_prob(torch.full((1, 1, 8, 8), 2.0))
    with pytest.raises(InputError, match="unconditional"):
        model.sample(1, seed=0, labels=torch.tensor([0]))


def train(data, steps=1, trainer=None, **model):
    return FlowTrainer(Spec("generator/flow", {**SMALL, **model}), steps=steps, **(trainer or {})).fit(data, RUNTIME)


def test_data_in_which_a_density_would_be_degenerate_are_refused(digits):
    flat = gx.Samples(0.1 * torch.randn(40, 1, 4, 1).expand(-1, -1, -1, 4).clone(), value_range=(-1.0, 1.0))
    with pytest.raises(InputError, match=r"fill 4 of 16 dimensions.*native"):
        train(flat, native=0, levels=0)
    with pytest.raises(InputError, match=r"fill 6\d of 256 dimensions.*native"):
        train(digits, native=0, levels=0)
    for same in (digits[:1], gx.Samples(torch.zeros(3, 1, 4, 4), value_range=(-1.0, 1.0))):
        with pytest.raises(InputError, match=rf"\({len(same)}\) that do not differ have no density; give at least 2"):
            train(same, native=0, levels=0, trainer={"holdout": 0.0})


def test_other_levels_and_sizes_than_the_data_have_are_refused(digits):
    with pytest.raises(InputError, match=r"not of 12 levels.*levels"):
        train(digits, levels=12)
    with pytest.raises(InputError, match=r"no bilinear upsampling of 4 px.*native"):
        train(digits, native=4)
    with pytest.raises(InputError, match="square images"):
        train(gx.Samples(torch.zeros(4, 1, 8, 16), value_range=(-1.0, 1.0)))


# -- training -----------------------------------------------------------------------------------------------------


def test_the_covariance_is_that_of_ledoit_and_wolf():
    from sklearn.covariance import ledoit_wolf

    torch.manual_seed(0)
    rows = torch.randn(60, 10, dtype=torch.float64) @ torch.randn(10, 10, dtype=torch.float64)
    centred = rows - rows.mean(0)
    expected, weight = ledoit_wolf(centred.numpy(), assume_centered=True)
    assert 0.001 < weight < 0.9
    torch.testing.assert_close(_covariance(centred), torch.from_numpy(expected), atol=1e-9, rtol=1e-9)


def test_it_learns_a_density_that_no_gaussian_has():
    """Two pixels on a ring: the exact log density is that of its radius and angle."""
    torch.manual_seed(0)

    def ring(n):
        angle, radius = 2 * math.pi * torch.rand(n), 2 + 0.2 * torch.randn(n)
        v = torch.stack([radius * angle.cos(), radius * angle.sin()], 1).view(n, 2, 1, 1)
        exact = -0.5 * ((radius - 2) / 0.2) ** 2 - math.log(0.2 * math.sqrt(2 * math.pi)) - (2 * math.pi * radius).log()
        return gx.Samples(v, value_range=(-4.0, 4.0)), exact

    data, _ = ring(1000)
    model = {"native": 1, "levels": 0, "transforms": 3, "hidden": 32, "bins": 8, "coupling": False}
    trained = train(data, 300, {"lr": 5e-3, "batch": 128}, **model)
    fresh, exact = ring(1000)
    with torch.no_grad():
        gap = (exact - trained.generator.log_prob(fresh.images)).mean().item()
    centred = data.images.flatten(1) - data.images.flatten(1).mean(0)
    gaussian = MultivariateNormal(data.images.flatten(1).mean(0), centred.T @ centred / 1000)
    gaussian_gap = (exact - gaussian.log_prob(fresh.images.flatten(1))).mean().item()
    assert -0.05 < gap < 0.25 * gaussian_gap
    assert trained.info["held_out_log_prob"] == pytest.approx(exact.mean().item(), abs=0.4)


def test_training_on_digits_gains_on_what_it_begins_with(digits):
    before = train(digits, 1)
    after = train(digits, 60, {"lr": 3e-3}, hidden=32)
    assert after.info["held_out_log_prob"] > before.info["held_out_log_prob"] + 2
    bits = after.history["bits_per_dimension"]
    assert bits[0] == pytest.approx(after.history["loss"][0] / (64 * math.log(2)), rel=1e-5)
    assert bits[-1] < math.log2(17)  # that of uniform levels


def test_before_the_splines_pixels_are_standardised_and_with_whiten_uncorrelated():
    torch.manual_seed(0)
    mixed = 0.1 + 0.2 * torch.randn(4000, 16) @ (torch.eye(16) + 0.2 * torch.randn(16, 16))
    data = gx.Samples(mixed.view(-1, 1, 4, 4), value_range=(-4.0, 4.0))
    for whiten in (False, True):
        model = train(data, 1, {"whiten": whiten, "holdout": 0.0}, native=0, levels=0).generator
        white = torch.linalg.solve_triangular(model.factor, (mixed - model.shift).T, upper=False)
        torch.testing.assert_close(white.mean(1), torch.zeros(16), atol=1e-4, rtol=0)
        found = torch.cov(white)
        torch.testing.assert_close(found.diagonal(), torch.ones(16), atol=0.1, rtol=0)
        assert ((found - torch.eye(16)).abs().max().item() < 0.1) == whiten


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"lr": 0.0}, {"holdout": 1.0}, {"batch": 0}])
def test_trainer_parameters_out_of_bounds_are_refused(wrong):
    with pytest.raises(BadParameter, match=next(iter(wrong))):
        gx.create("trainer/flow", **wrong)
