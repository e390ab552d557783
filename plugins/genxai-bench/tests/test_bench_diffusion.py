"""The mixture under diffusion against autograd, Monte Carlo and a literal schedule; what the two tasks tell apart."""

from __future__ import annotations

import pytest
import torch
from genxai_bench.models.mixture import STEPS, Mixture, NoisyClassifier, schedule
from genxai_bench.tasks import task
from genxai_bench.tasks.diffusion import Predictor, noise_of

from genxai_core import Attribution, create
from genxai_core.errors import InputError


@pytest.fixture
def mixture():
    generator = torch.Generator().manual_seed(1)
    return Mixture(torch.randn(3, 1, 4, 4, generator=generator), 0.3)


@pytest.fixture
def points(mixture):
    t = torch.tensor([0, 50, 300, 999])
    return mixture.noised(mixture.sample(4, 5).images, t, 2).double(), t


def test_the_schedule_is_the_papers():
    level = 1.0
    for i in range(STEPS):
        level *= 1 - (1e-4 + (0.02 - 1e-4) * i / (STEPS - 1))
        if i in (0, 400, STEPS - 1):
            assert float(schedule()[i]) == pytest.approx(level, rel=1e-9)


def test_log_prob_is_that_of_a_mixture_of_normals(mixture, points):
    x, t = points
    for i in range(len(x)):
        level = float(schedule()[t[i]])
        deviation = (level * 0.09 + 1 - level) ** 0.5
        parts = [
            torch.distributions.Normal(level**0.5 * mean, deviation).log_prob(x[i]).sum() for mean in mixture.means
        ]
        expected = torch.logsumexp(torch.stack(parts), 0) - torch.log(torch.tensor(3.0, dtype=torch.float64))
        assert float(mixture.log_prob(x[i : i + 1], t[i : i + 1])) == pytest.approx(float(expected), rel=1e-9)


def test_the_noise_is_the_score_and_the_saliency_the_gradient_of_the_posterior(mixture, points):
    x, t = points
    x = x.requires_grad_()
    level = schedule()[t].view(-1, 1, 1, 1)
    score = torch.autograd.grad(mixture.log_prob(x, t).sum(), x)[0]
    assert torch.allclose(mixture.predict(x, t), -(1 - level).sqrt() * score, atol=1e-9)
    assert torch.allclose(mixture.denoised(x, t), (x + (1 - level) * score) / level.sqrt(), atol=1e-9)
    for k in range(3):
        gradient = torch.autograd.grad(mixture.log_shares(x, t)[:, k].sum(), x)[0]
        assert torch.allclose(mixture.evidence(x, t, k), gradient, atol=1e-9)
    assert torch.allclose(mixture.log_shares(x, t).exp().sum(1), torch.ones(4, dtype=torch.float64))


def test_the_prediction_is_the_noise_to_be_expected():
    """Over many draws whose x_t falls into a small interval, the noise has the mean that is predicted."""
    mixture = Mixture(torch.tensor([[[[-0.6]]], [[[0.8]]]]), 0.2)
    n, step = 400_000, 200
    level = schedule()[step]
    generator = torch.Generator().manual_seed(0)
    x0 = mixture.means[torch.randint(2, (n,), generator=generator)].flatten()
    x0 = x0 + 0.2 * torch.randn(n, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    x_t = level.sqrt() * x0 + (1 - level).sqrt() * noise
    for at in (-0.8, 0.1, 0.9):
        near = (x_t - at).abs() < 0.02
        predicted = mixture.predict(torch.tensor([[[[at]]]], dtype=torch.float64), torch.tensor([step]))
        spread = float(noise[near].std() / near.sum() ** 0.5)
        assert float(noise[near].mean()) == pytest.approx(float(predicted), abs=5 * spread + 0.01)


def test_every_prediction_type_is_understood():
    T = task("noise-prediction")
    problem = T.problem(0)
    mixture = problem.truth["mixture"]

    def answer(kind, function):
        predictor = Predictor(function)
        predictor.prediction_type = kind
        return T.score(problem, predictor)

    def velocity(x_t, t):
        level = schedule()[t].view(-1, 1, 1, 1)
        return (level.sqrt() * mixture.predict(x_t, t) - (1 - level).sqrt() * mixture.denoised(x_t, t)).float()

    for found in (answer("sample", mixture.denoised), answer("v_prediction", velocity)):
        assert found["agreement"] == pytest.approx(1, abs=1e-5)
        assert found["error-20"] < 1e-4
    with pytest.raises(InputError, match="prediction_type 'score' is not one of"):
        answer("score", mixture.predict)


def test_another_schedule_is_refused():
    predictor = Predictor(lambda x_t, t: x_t)
    predictor.alphas_cumprod = torch.linspace(1, 0, STEPS)
    with pytest.raises(InputError, match="not DDPM's linear one"):
        noise_of(predictor, torch.zeros(1, 1, 2, 2), torch.tensor([3]))


def test_what_cannot_be_judged_is_refused():
    T = task("noise-prediction")
    problem = T.problem(0)
    with pytest.raises(InputError, match="Linear has no predict"):
        T.score(problem, torch.nn.Linear(1, 1))
    with pytest.raises(InputError, match="predict returned"):
        T.score(problem, Predictor(lambda x_t, t: x_t[:, :1]))
    with pytest.raises(InputError, match="t 1000 must be"):
        task("diffusion-saliency", t=1000)
    with pytest.raises(InputError, match="patch 16 must be"):
        task("diffusion-saliency", patch=16)


def test_the_scale_of_a_map_does_not_matter_and_nan_is_refused():
    T = task("diffusion-saliency")
    problem = T.problem(0)
    exact = problem.truth["gradient"]
    for scale in (1e-30, 1e30):
        found = T.score(problem, Attribution(exact.double() * scale))
        assert found["agreement"] == pytest.approx(1)
        assert found["energy"] == pytest.approx(1)
    with pytest.raises(InputError, match="NaN or infinity"):
        T.score(problem, Attribution(exact / 0))
    low, high = problem.inputs.value_range
    assert low < float(problem.inputs.images.min())
    assert float(problem.inputs.images.max()) < high


@pytest.mark.parametrize("t", [0, 100, 400, 900])
def test_components_are_as_hard_to_tell_apart_at_every_step(t):
    T = task("diffusion-saliency", t=t, n=256)
    problem = T.problem(3)
    with torch.no_grad():
        right = problem.model(problem.inputs.images).argmax(1) == problem.inputs.labels
    # three equidistant means at distance 2: the right one is the nearest in about three of four draws
    assert 0.65 < float(right.float().mean()) < 0.85


def test_outside_the_patch_nothing_counts():
    problem = task("diffusion-saliency").problem(1)
    outside = ~problem.truth["region"][:, None]
    replaced = torch.where(outside, torch.randn_like(problem.inputs.images), problem.inputs.images)
    assert torch.allclose(problem.model(replaced), problem.model(problem.inputs.images), atol=1e-4)
    assert not torch.allclose(problem.model(-problem.inputs.images), problem.model(problem.inputs.images), atol=0.1)


def test_the_plain_gradient_is_right_and_a_classifier_of_another_step_is_another():
    T = task("diffusion-saliency")
    problem = T.problem(2)
    maps = create("explainer/saliency").explain(problem.model, problem.inputs, target=problem.target)
    assert T.score(problem, maps)["agreement"] == pytest.approx(1, abs=1e-4)
    other = problem.model.given(t=10)
    assert isinstance(other, NoisyClassifier)
    assert not torch.allclose(other(problem.inputs.images), problem.model(problem.inputs.images))
