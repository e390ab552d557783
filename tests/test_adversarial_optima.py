"""At the optimum: a trained discriminator's ratio and value against Gaussians' closed forms, without spectral norm.

Expectations are integrals over a fine grid, in double precision, and training is a quasi-Newton method on all of it:
nothing is sampled, so that what is left is the network's own error.
"""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from genxai_core.adversarial import LOSSES, log_ratio

DETERMINED = [name for name, loss in LOSSES.items() if loss.ratio is not None]


def mlp(inputs, width):
    torch.manual_seed(0)
    layers = [nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)]
    return nn.Sequential(*layers).double()


def descend(net, objective, rounds):
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=rounds, history_size=30, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = objective()
        value.backward()
        return value

    optimizer.step(closure)
    return objective().item()


class Pair:
    """p and q, products of Gaussians, on a grid with its integration weight."""

    def __init__(self, p, q, points):
        line = torch.linspace(-6, 6, points, dtype=torch.float64)
        axes = torch.meshgrid(*[line] * len(p), indexing="ij")
        self.x = torch.stack([a.reshape(-1) for a in axes], 1)
        step = (line[1] - line[0]) ** len(p)
        self.log_p, self.log_q = (
            sum(Normal(*moments).log_prob(self.x[:, i]) for i, moments in enumerate(density)) for density in (p, q)
        )
        self.p, self.q = self.log_p.exp() * step, self.log_q.exp() * step
        self.log_r = self.log_p - self.log_q

    def value(self, loss, v):
        return (self.p * loss.on_real(v)).sum() + (self.q * loss.on_fake(v)).sum()


ONE = Pair([(0.5, 0.8)], [(-0.3, 1.0)], 601)
TWO = Pair([(0.4, 0.8), (-0.3, 0.9)], [(-0.2, 1.0), (0.3, 1.0)], 49)


def kl(p, q):
    return sum(
        math.log(t / s) + (s * s + (m - n) ** 2) / (2 * t * t) - 0.5 for (m, s), (n, t) in zip(p, q, strict=True)
    )


def chi_square(p, q):
    """∫p²/q − 1 by completing the square."""
    product = 1.0
    for (m, s), (n, t) in zip(p, q, strict=True):
        a, b = 2 / s**2 - 1 / t**2, 2 * m / s**2 - n / t**2
        c = 2 * m * m / s**2 - n * n / t**2
        product *= t / (s * s * math.sqrt(a)) * math.exp((b * b / a - c) / 2)
    return product - 1


def hellinger(p, q):
    """2(1 − ∫√pq)."""
    product = 1.0
    for (m, s), (n, t) in zip(p, q, strict=True):
        product *= math.sqrt(2 * s * t / (s * s + t * t)) * math.exp(-((m - n) ** 2) / (4 * (s * s + t * t)))
    return 2 * (1 - product)


def jensen_shannon(pair):
    """KL(p‖m) + KL(q‖m), m = (p + q)/2: it has no closed form for Gaussians, so it is integrated."""
    log_m = torch.logaddexp(pair.log_p, pair.log_q) - math.log(2)
    return ((pair.p * (pair.log_p - log_m)).sum() + (pair.q * (pair.log_q - log_m)).sum()).item()


def total_variation(p, q):
    """½∫|p − q| of two Gaussians on a line: where p > q lies between the roots of log p = log q."""
    ((m, s),), ((n, t),) = p, q
    a, b = 1 / (2 * t * t) - 1 / (2 * s * s), m / s**2 - n / t**2
    c = n * n / (2 * t * t) - m * m / (2 * s * s) + math.log(t / s)
    roots = sorted((-b + sign * math.sqrt(b * b - 4 * a * c)) / (2 * a) for sign in (1, -1))

    def mass(mean, scale):
        low, high = (0.5 * (1 + math.erf((x - mean) / (scale * math.sqrt(2)))) for x in roots)
        return high - low

    return mass(m, s) - mass(n, t)


def expected(name, pair, p, q):
    """The discriminator's loss at its optimum."""
    overlap = (pair.p * pair.q / (pair.p + pair.q).clamp(min=1e-300)).sum().item()
    return {
        "non-saturating": lambda: math.log(4) - jensen_shannon(pair),
        "minimax": lambda: math.log(4) - jensen_shannon(pair),
        "least-squares": lambda: overlap / 2,
        "kl": lambda: -kl(p, q),
        "reverse-kl": lambda: -kl(q, p),
        "pearson": lambda: -chi_square(p, q),
        "squared-hellinger": lambda: -hellinger(p, q),
        "jensen-shannon": lambda: -jensen_shannon(pair),
        "total-variation": lambda: -total_variation(p, q),
        "hinge": lambda: 2 * (1 - total_variation(p, q)),
    }[name]()


GAUSSIANS = {
    1: (ONE, [(0.5, 0.8)], [(-0.3, 1.0)]),
    2: (TWO, [(0.4, 0.8), (-0.3, 0.9)], [(-0.2, 1.0), (0.3, 1.0)]),
}


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("name", DETERMINED)
def test_the_optimum_gives_the_density_ratio_and_the_divergence(name, dimensions):
    pair, p, q = GAUSSIANS[dimensions]
    net = mlp(dimensions, 16)
    loss = LOSSES[name]
    reached = descend(net, lambda: pair.value(loss, net(pair.x)[:, 0]), 150 if dimensions == 1 else 100)
    best = expected(name, pair, p, q)
    assert reached == pytest.approx(best, abs=2e-4)
    assert reached >= best - 1e-7  # no network is better than the optimum: it is one
    found = log_ratio(name, net(pair.x)[:, 0]).detach()
    seen = (pair.log_p > -4) & (pair.log_q > -4)  # where both have mass, within about 2.5 standard deviations
    assert (found - pair.log_r)[seen].abs().max() < 0.05
    assert pair.log_r[seen].std() > 0.5


@pytest.mark.parametrize(("name", "tolerance"), [("total-variation", 2e-3), ("hinge", 4e-3)])
def test_losses_without_a_ratio_reach_their_value_too(name, tolerance):
    pair, p, q = GAUSSIANS[1]
    net = mlp(1, 16)
    reached = descend(net, lambda: pair.value(LOSSES[name], net(pair.x)[:, 0]), 300)
    best = expected(name, pair, p, q)  # the grid misses the kinks by some 1e-6
    assert best - 1e-5 <= reached < best + tolerance


def test_wasserstein_with_its_penalty_reaches_the_value_of_its_own_optimum():
    """On a line, with slope s, the loss is ∫ s(P − Q) + λρ(s − 1)², with the distribution functions P and Q and the
    density ρ of the points between pairs. Its minimum is −W₁ − ∫(Q − P)²/4λρ: the penalty adds to the distance."""
    weight, shift = 10.0, 0.8
    pair = Pair([(shift, 1.0)], [(0.0, 1.0)], 601)
    x = pair.x.clone().requires_grad_()
    step = (x[1] - x[0]).item()
    mix = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    between = Normal(mix * shift, (mix**2 + (1 - mix) ** 2).sqrt()).log_prob(pair.x).exp().mean(1)
    gap = Normal(0.0, 1.0).cdf(pair.x[:, 0]) - Normal(shift, 1.0).cdf(pair.x[:, 0])
    best = -shift - (gap**2 / (4 * weight * between)).sum().item() * step
    net = mlp(1, 16)

    def objective():
        v = net(x)
        slope = torch.autograd.grad(v.sum(), x, create_graph=True)[0][:, 0]
        penalty = (between * (slope.abs() - 1).square()).sum() * step
        return pair.value(LOSSES["wasserstein-gp"], v[:, 0]) + weight * penalty

    reached = descend(net, objective, 150)
    assert reached == pytest.approx(best, abs=1e-3)
    assert best < -shift - 0.005
