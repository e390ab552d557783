"""The adversarial losses and penalties against their formulas, written out one number at a time."""

import math
from typing import get_args

import pytest
import torch
from torch import nn

from genxai_core.adversarial import LOSSES, LossName, check_smoothing, gradient_penalty, log_ratio, r1_penalty


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


REAL, FAKE = [0.3, -1.2, 1.4], [0.8, -0.7]
LITERAL = {
    "non-saturating": (
        lambda v: -math.log(sigmoid(v)),
        lambda v: -math.log(1 - sigmoid(v)),
        lambda v: -math.log(sigmoid(v)),
    ),
    "minimax": (
        lambda v: -math.log(sigmoid(v)),
        lambda v: -math.log(1 - sigmoid(v)),
        lambda v: math.log(1 - sigmoid(v)),
    ),
    "least-squares": (
        lambda v: 0.5 * (sigmoid(v) - 1) ** 2,
        lambda v: 0.5 * sigmoid(v) ** 2,
        lambda v: 0.5 * (sigmoid(v) - 1) ** 2,
    ),
    "hinge": (lambda v: max(0, 1 - v), lambda v: max(0, 1 + v), lambda v: -v),
    "wasserstein-gp": (lambda v: -v, lambda v: v, lambda v: -v),
}
F_GAN = {  # f, f*, and the output T(v), as f-GAN tabulates them; for kl the logit is shifted by 1
    "kl": (lambda u: u * math.log(u), lambda t: math.exp(t - 1), lambda v: 1 + v),
    "reverse-kl": (lambda u: -math.log(u), lambda t: -1 - math.log(-t), lambda v: -math.exp(-v)),
    "pearson": (lambda u: (u - 1) ** 2, lambda t: t * t / 4 + t, lambda v: v),
    "squared-hellinger": (lambda u: (math.sqrt(u) - 1) ** 2, lambda t: t / (1 - t), lambda v: 1 - math.exp(-v)),
    "total-variation": (lambda u: abs(u - 1) / 2, lambda t: t, lambda v: math.tanh(v) / 2),
    "jensen-shannon": (
        lambda u: u * math.log(u) - (u + 1) * math.log((u + 1) / 2),
        lambda t: -math.log(2 - math.exp(t)),
        lambda v: math.log(2) - math.log(1 + math.exp(-v)),
    ),
}
for _name, (_, _conjugate, _output) in F_GAN.items():
    LITERAL[_name] = (
        lambda v, T=_output: -T(v),
        lambda v, T=_output, c=_conjugate: c(T(v)),
        lambda v, T=_output, c=_conjugate: -c(T(v)),
    )


def column(values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_every_name_has_a_loss_and_a_literal_one():
    assert set(LOSSES) == set(get_args(LossName)) == set(LITERAL)


@pytest.mark.parametrize("name", LITERAL)
def test_a_loss_is_the_formula(name):
    on_real, on_fake, on_generated = LITERAL[name]
    d = sum(map(on_real, REAL)) / 3 + sum(map(on_fake, FAKE)) / 2
    g = sum(map(on_generated, FAKE)) / 2
    assert LOSSES[name].discriminator(column(REAL), column(FAKE)).item() == pytest.approx(d)
    assert LOSSES[name].generator(column(FAKE)).item() == pytest.approx(g)


@pytest.mark.parametrize("name", F_GAN)
def test_outputs_are_derivatives_of_f_and_conjugates_are_suprema(name):
    """T* = f′(r), and f*(t) = sup_u ut − f(u), by brute force: the tables above are not merely copied twice."""
    f, conjugate, output = F_GAN[name]
    grid = [0.01 * k for k in range(1, 3000)]
    for v in (-0.6, 0.2, 0.7):
        t = output(v)
        found = max(u * t - f(u) for u in grid)
        assert found == pytest.approx(conjugate(t), abs=2e-2 if name == "total-variation" else 1e-3)
    if name != "total-variation":
        for r in (0.5, 1.0, 2.5):
            slope = (f(r + 1e-6) - f(r - 1e-6)) / 2e-6
            logit = next(v for v in [k / 1e4 for k in range(-30000, 40000)] if output(v) >= slope - 1e-5)
            assert log_ratio(name, column([logit])).item() == pytest.approx(math.log(r), abs=1e-3)


@pytest.mark.parametrize("name", [n for n in LOSSES if n not in ("hinge", "wasserstein-gp", "total-variation")])
def test_a_logit_of_zero_means_equal_densities(name):
    """And then the discriminator's two terms pull with equal force."""
    zero = torch.zeros(1, 1, requires_grad=True)
    assert log_ratio(name, zero).item() == 0
    assert torch.autograd.grad(LOSSES[name].discriminator(zero, zero), zero)[0].item() == pytest.approx(0)


def test_non_saturating_at_the_optimum_of_equal_densities_is_log_4():
    zero = torch.zeros(5, 1)
    assert LOSSES["non-saturating"].discriminator(zero, zero).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
@pytest.mark.parametrize("name", [n for n in LOSSES if n not in ("kl", "reverse-kl", "squared-hellinger")])
def test_losses_stay_finite_where_the_sigmoid_saturates(name, extreme):
    """All but those that grow as the exponential of the logit."""
    logits = torch.full((2, 1), extreme, requires_grad=True)
    for value in (LOSSES[name].discriminator(logits, logits), LOSSES[name].generator(logits)):
        assert torch.isfinite(value)
        assert torch.isfinite(torch.autograd.grad(value, logits)[0]).all()


def test_the_generator_learns_most_where_it_is_found_out_unless_it_saturates():
    for name, at_rejected, at_accepted in (("non-saturating", -1, 0), ("minimax", 0, -1)):
        rejected, accepted = torch.tensor([[-8.0], [8.0]], requires_grad=True).split(1)
        slopes = [torch.autograd.grad(LOSSES[name].generator(x), x)[0].item() for x in (rejected, accepted)]
        assert slopes == pytest.approx([at_rejected, at_accepted], abs=1e-3)


# -- smoothing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["non-saturating", "minimax"])
def test_smoothed_labels_are_cross_entropy_with_one_minus_s(name):
    s = 0.1
    d = sum(-(1 - s) * math.log(sigmoid(v)) - s * math.log(1 - sigmoid(v)) for v in REAL) / 3
    d += sum(-math.log(1 - sigmoid(v)) for v in FAKE) / 2
    assert LOSSES[name].discriminator(column(REAL), column(FAKE), smoothing=s).item() == pytest.approx(d)


def test_smoothed_squares_are_squares_to_the_label_and_a_constant():
    s = 0.1
    d = sum(0.5 * (sigmoid(v) - (1 - s)) ** 2 for v in REAL) / 3 + sum(0.5 * sigmoid(v) ** 2 for v in FAKE) / 2
    found = LOSSES["least-squares"].discriminator(column(REAL), column(FAKE), smoothing=s).item()
    assert found == pytest.approx(d + 0.5 * s * (1 - s))


@pytest.mark.parametrize("name", ["non-saturating", "minimax", "least-squares"])
@pytest.mark.parametrize("r", [0.2, 1.0, 3.0])
def test_the_ratio_accounts_for_smoothing(name, r):
    """The logit at which p·∂ real + q·∂ fake = 0, found by bisection, gives back p/q."""
    s, low, high = 0.1, -9.0, 9.0
    for _ in range(60):
        v = torch.tensor((low + high) / 2, dtype=torch.float64, requires_grad=True)
        loss = LOSSES[name]
        terms = r * ((1 - s) * loss.on_real(v) + s * loss.on_fake(v)) + loss.on_fake(v)
        low, high = (low, v.item()) if torch.autograd.grad(terms, v)[0] > 0 else (v.item(), high)
    assert log_ratio(name, torch.tensor(low, dtype=torch.float64), s).item() == pytest.approx(math.log(r), abs=1e-6)


def test_outputs_that_no_ratio_has_are_infinite():
    assert log_ratio("pearson", column([-2.0, -3.0])).tolist() == [[-math.inf]] * 2
    assert log_ratio("minimax", column([math.log(9.5)]), 0.1).item() == math.inf


@pytest.mark.parametrize("name", ["hinge", "wasserstein-gp", "total-variation"])
def test_losses_that_do_not_determine_the_ratio_refuse(name):
    with pytest.raises(ValueError, match=f"{name}.*does not determine"):
        log_ratio(name, torch.zeros(1))


@pytest.mark.parametrize(("name", "s", "match"), [("hinge", 0.1, "no labels"), ("minimax", 0.5, "below 0.5")])
def test_what_cannot_be_smoothed_is_refused(name, s, match):
    with pytest.raises(ValueError, match=match):
        check_smoothing(name, s)
    check_smoothing("hinge", 0.0)


# -- penalties --------------------------------------------------------------------------------------------------


@pytest.fixture
def critic():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 1)).double()


def literal_slope(critic, x):
    """|∇D(x)| of one image by central differences."""
    total = 0.0
    for i in range(x.numel()):
        e = torch.zeros(x.numel(), dtype=x.dtype)
        e[i] = 1e-5
        e = e.view_as(x)
        with torch.no_grad():
            total += ((critic((x + e)[None]) - critic((x - e)[None])).item() / 2e-5) ** 2
    return math.sqrt(total)


def test_gradient_penalty_equals_the_formula_image_by_image(critic):
    draw = torch.Generator().manual_seed(1)
    real, fake = (torch.randn(5, 3, 2, 2, generator=draw, dtype=torch.float64) for _ in range(2))
    mix = torch.rand(5, 1, 1, 1, generator=draw, dtype=torch.float64)
    points = [e * x + (1 - e) * y for e, x, y in zip(mix, real, fake, strict=True)]
    literal = sum((literal_slope(critic, p) - 1) ** 2 for p in points) / 5
    value = gradient_penalty(critic, real, fake, mix)
    assert value.item() == pytest.approx(literal, rel=1e-6)
    assert all(g is not None for g in torch.autograd.grad(value, list(critic.parameters())[:2]))
    assert real.requires_grad is False


def test_r1_penalty_equals_the_formula_image_by_image(critic):
    real = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    literal = sum(literal_slope(critic, x) ** 2 for x in real) / 5 / 2
    value = r1_penalty(critic(real.requires_grad_()), real)
    assert value.item() == pytest.approx(literal, rel=1e-6)
    assert torch.autograd.grad(value, critic[1].weight)[0].abs().sum() > 0


def test_a_flat_discriminator_is_penalised_without_nan(critic):
    for p in critic.parameters():
        nn.init.zeros_(p)
    value = gradient_penalty(
        critic, torch.ones(2, 3, 2, 2).double(), torch.zeros(2, 3, 2, 2).double(), torch.rand(2, 1, 1, 1).double()
    )
    assert value.item() == 1
    assert all(
        torch.isfinite(g).all()
        for g in torch.autograd.grad(value, list(critic.parameters()), allow_unused=True)
        if g is not None
    )
