"""The adversarial losses against their formulas."""

import math

import pytest
import torch

from genxai_core.adversarial import LOSSES


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_non_saturating_is_cross_entropy_of_the_sigmoid():
    real, fake = [0.3, -2.0, 4.0], [1.5, -0.7]
    loss = LOSSES["non-saturating"]
    d = -sum(math.log(sigmoid(x)) for x in real) / 3 - sum(math.log(1 - sigmoid(x)) for x in fake) / 2
    g = -sum(math.log(sigmoid(x)) for x in fake) / 2
    assert loss.discriminator(torch.tensor(real)[:, None], torch.tensor(fake)[:, None]).item() == pytest.approx(d)
    assert loss.generator(torch.tensor(fake)[:, None]).item() == pytest.approx(g)


def test_non_saturating_at_the_optimum_of_equal_densities_is_log_4():
    zero = torch.zeros(5, 1)
    assert LOSSES["non-saturating"].discriminator(zero, zero).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_losses_stay_finite_where_the_sigmoid_saturates(extreme):
    logits = torch.full((2, 1), extreme, requires_grad=True)
    for loss in LOSSES.values():
        for value in (loss.discriminator(logits, logits), loss.generator(logits)):
            gradient = torch.autograd.grad(value, logits)[0]
            assert torch.isfinite(value)
            assert torch.isfinite(gradient).all()


def test_the_generator_learns_most_where_it_is_found_out():
    rejected, accepted = torch.tensor([[-8.0], [8.0]], requires_grad=True).split(1)
    loss = LOSSES["non-saturating"].generator
    slopes = [torch.autograd.grad(loss(x), x)[0].item() for x in (rejected, accepted)]
    assert slopes[0] == pytest.approx(-1, abs=1e-3)
    assert slopes[1] == pytest.approx(0, abs=1e-3)
