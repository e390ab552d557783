"""Linear-Gaussian models against dense matrices and scikit-learn; what the three tasks tell apart."""

from __future__ import annotations

import pytest
import torch
from genxai_bench.models.linear_gaussian import LinearGaussian, OptimalDiscriminator, smooth_weights
from genxai_bench.tasks import task
from genxai_bench.tasks.density import Density, rank_correlation
from genxai_bench.tasks.density_ratio import LOSSES, concordance
from genxai_bench.tasks.posterior import Encoder
from sklearn.decomposition import PCA

from genxai_core import ImageScores, create
from genxai_core.adversarial import log_ratio
from genxai_core.errors import InputError


@pytest.fixture
def exact():
    return LinearGaussian(smooth_weights(0, 3, 8, 0.2), torch.linspace(-0.5, 0.5, 64).view(1, 8, 8), 0.2)


def test_the_density_is_that_of_the_dense_covariance(exact):
    covariance = exact.weight @ exact.weight.T + 0.04 * torch.eye(64, dtype=torch.float64)
    dense = torch.distributions.MultivariateNormal(exact.mean, covariance)
    images = exact.sample(5, 0).images
    assert torch.allclose(exact.log_prob(images), dense.log_prob(images.double().flatten(1)), atol=1e-8)


def test_the_posterior_is_that_of_the_joint_gaussian(exact):
    """E[z | x] by conditioning the joint covariance of (z, x), inverted as it stands."""
    covariance = exact.weight @ exact.weight.T + 0.04 * torch.eye(64, dtype=torch.float64)
    images = exact.sample(5, 0).images.double()
    expected = (images.flatten(1) - exact.mean) @ torch.linalg.inv(covariance) @ exact.weight
    assert torch.allclose(exact.encode(images), expected, atol=1e-9)


def test_draws_have_the_moments_and_depend_on_their_number_only(exact):
    images = exact.sample(4000, 1).images.double().flatten(1)
    covariance = exact.weight @ exact.weight.T + 0.04 * torch.eye(64, dtype=torch.float64)
    assert float((images.mean(0) - exact.mean).abs().max()) < 0.03
    assert float((torch.cov(images.T) - covariance).abs().max()) < 0.03
    assert torch.allclose(exact.sample(2, 1, start=3).images, exact.sample(5, 1).images[3:], atol=1e-6)


def test_patterns_are_orthogonal_and_of_the_scale_that_is_said():
    weight = smooth_weights(3, 4, 8, 0.2)
    assert torch.allclose(weight.T @ weight, torch.eye(4, dtype=torch.float64) * (0.2 * 8) ** 2, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_discriminator_is_the_optimum_of_its_loss(exact, loss):
    """Its logits, read as `adversarial.log_ratio` reads that loss, are the ratio; no shift lowers the loss."""
    from genxai_core.adversarial import LOSSES as TABLE

    other = LinearGaussian(exact.weight, exact.mean.view(1, 8, 8) + 0.03, 0.2)
    model = OptimalDiscriminator(exact, other, loss)
    real, generated = (m.sample(20_000, 0).images.double() for m in (exact, other))
    ratio = exact.log_prob(real) - other.log_prob(real)
    assert torch.allclose(log_ratio(loss, model(real)[:, 0]), ratio, atol=1e-6)

    def value(shift):
        return float(TABLE[loss].discriminator(model(real) + shift, model(generated) + shift))

    assert value(0.0) < min(value(-0.2), value(0.2))


def test_a_fitted_model_is_told_from_the_trivial_ones():
    """scikit-learn's probabilistic PCA, fitted to the data of the problem, comes near the oracle in both tasks."""
    T = task("log-density")
    problem = T.problem(0)
    data = problem.inputs.images.flatten(1).double().numpy()
    fitted = PCA(T.latents).fit(data)
    found = T.score(problem, Density(lambda x: torch.from_numpy(fitted.score_samples(x.double().flatten(1).numpy()))))
    trivial = T.score(problem, T.heuristic(problem))
    assert found["rank"] > 0.98 > trivial["rank"] + 0.3
    assert 0 < found["excess"] < 0.1 * trivial["excess"]

    T = task("posterior")
    problem = T.problem(0)
    fitted = PCA(T.latents).fit(problem.inputs.images.flatten(1).double().numpy())
    found = T.score(problem, Encoder(lambda x: torch.from_numpy(fitted.transform(x.double().flatten(1).numpy()))))
    assert found["explained"] > 0.95
    assert found["worst"] <= found["explained"]


def test_the_explainer_that_knows_the_loss_is_right_and_one_that_does_not_is_not():
    T = task("density-ratio")
    for seed in range(3):
        problem = T.problem(seed)
        right = create("explainer/density-ratio", **problem.decided).explain(problem.model, problem.inputs)
        assert T.score(problem, right)["concordance"] == pytest.approx(1, abs=1e-3)
        blind = create("explainer/density-ratio").explain(problem.model, problem.inputs)
        assert T.score(problem, blind)["concordance"] < 0.95


def test_the_place_of_a_row_tells_nothing():
    T = task("density-ratio")
    for seed in range(5):
        halves = torch.cat([torch.full((64,), 0.5), torch.full((64,), -0.5)])
        assert abs(T.score(T.problem(seed), ImageScores(halves))["rank"]) < 0.25


def test_figures_of_agreement():
    a = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    assert concordance(a, a) == 1
    assert concordance(a + 1, a) == pytest.approx(2 * 1.25 / (1.25 + 1.25 + 1))
    assert concordance(torch.zeros(4), torch.zeros(4)) == 0
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(torch.zeros(4), a) == 0


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        ("log-density", torch.nn.Linear(1, 1), "Linear has no log_prob"),
        ("log-density", Density(lambda x: torch.zeros(3)), "not \\[512\\]"),
        ("posterior", torch.nn.Linear(1, 1), "Linear has no encode"),
        ("posterior", Encoder(lambda x: torch.zeros(3, 2)), "not \\[768"),
        ("density-ratio", ImageScores(torch.zeros(3)), "\\[3\\] scores for 128 images"),
    ],
)
def test_what_cannot_be_judged_is_refused(name, answer, said):
    T = task(name)
    with pytest.raises(InputError, match=said):
        T.score(T.problem(0), answer)
