"""The VAE against closed forms: a linear-Gaussian model, whose log density, posterior and ELBO are known."""

import math

import pytest
import torch
from genxai_zoo.vae import VAE, divergence
from genxai_zoo.vae_training import VAETrainer
from torch import nn
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence

import genxai_core as gx
from genxai_core import Spec, models
from genxai_core.errors import BadParameter, InputError

LATENTS, SIGMA = 2, 0.4
RUNTIME = gx.Runtime(device="cpu", quiet=True)


def linear_gaussian(spoilt: float = 0.0):
    """Make a VAE with ``p(x|z) = N(Wz + b, σ²)``, columns of W orthogonal, and the encoder that is its posterior.

    With such a W, ``WᵀW`` is diagonal, so that the diagonal ``q`` can be the posterior itself:
    ``N((WᵀW + σ²)⁻¹ Wᵀ(x − b), σ² (WᵀW + σ²)⁻¹)`` (Tipping and Bishop, 1999). ``spoilt`` is added to its mean and log
    variance.
    """
    model = VAE(8, latents=LATENTS, width=4, sigma=SIGMA).double().eval()
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(64, LATENTS, generator=generator, dtype=torch.float64))[0]
    weight = basis * torch.tensor([2.0, 0.7], dtype=torch.float64)
    bias = 0.3 * torch.randn(1, 1, 1, 1, generator=generator, dtype=torch.float64)
    model.layers, model.squash = nn.Identity(), nn.Identity()
    model.to_image = nn.ConvTranspose2d(LATENTS, 1, 8).double()
    inverse = 1 / (weight.square().sum(0) + SIGMA**2)
    linear = nn.Linear(64, 2 * LATENTS).double()
    model.encoder = nn.Sequential(nn.Flatten(), linear)
    with torch.no_grad():
        model.to_image.weight.copy_(weight.T.view(LATENTS, 1, 8, 8))
        model.to_image.bias.copy_(bias.flatten())
        linear.weight.zero_()
        linear.weight[:LATENTS] = inverse[:, None] * weight.T
        linear.bias[:LATENTS] = -linear.weight[:LATENTS] @ bias.expand(1, 1, 8, 8).flatten() + spoilt
        linear.bias[LATENTS:] = torch.log(SIGMA**2 * inverse) + spoilt
    covariance = weight @ weight.T + SIGMA**2 * torch.eye(64, dtype=torch.float64)
    exact = MultivariateNormal(bias.expand(1, 1, 8, 8).flatten(), covariance)
    images = exact.sample((6,)).view(-1, 1, 8, 8)
    return model, weight, images, exact.log_prob(images.flatten(1))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# -- its equations ------------------------------------------------------------------------------------------------


def test_with_the_exact_posterior_the_importance_weighted_bound_is_log_p_itself():
    """Every weight p(x, z)/q(z|x) is then p(x), so that one sample is enough."""
    model, _, images, exact = linear_gaussian()
    for samples in (1, 5):
        torch.testing.assert_close(model.log_prob(images, samples=samples), exact)


def test_the_elbo_of_the_exact_posterior_converges_to_log_p():
    model, _, images, exact = linear_gaussian()
    found = model.elbo(images, samples=20_000)
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0)


def test_the_elbo_of_another_posterior_is_log_p_less_the_divergence_from_the_right_one():
    """ELBO = log p(x) − KL(q ‖ p(z|x)), in closed form between Gaussians."""
    right, _, _, _ = linear_gaussian()
    model, _, images, exact = linear_gaussian(spoilt=0.3)
    q, p = (Normal(mean, torch.exp(log / 2)) for mean, log in (m.posterior(images) for m in (model, right)))
    lost = kl_divergence(q, p).sum(1)
    assert lost.min() > 0.1
    torch.testing.assert_close(model.elbo(images, samples=20_000), exact - lost, atol=0.08, rtol=0)


def test_the_importance_weighted_bound_tightens_with_its_samples_and_stays_below_log_p():
    """Burda et al. 2016: E[L_1] ≤ E[L_K] ≤ E[L_2K] ≤ log p(x). Expectations over 200 seeds of noise."""
    model, _, images, exact = linear_gaussian(spoilt=0.3)
    means = []
    for samples in (1, 4, 16, 128):
        drawn = torch.stack([model.log_prob(images[:2], samples=samples, seed=s) for s in range(200)])
        means.append((drawn - exact[:2]).mean().item())
    assert means[0] < means[1] - 0.05 < means[2] - 0.06 < means[3] < 0.02
    assert means[3] == pytest.approx(0, abs=0.1)
    elbo = model.elbo(images[:2], samples=10_000).mean() - exact[:2].mean()
    assert elbo.item() == pytest.approx(means[0], abs=0.2)  # L_1 is the ELBO


def test_importance_weights_agree_with_plain_monte_carlo_from_the_prior():
    """p(x) = E_z[p(x|z)], with z from the prior: slow, and right in two latents."""
    model, _, images, exact = linear_gaussian(spoilt=0.3)
    latents = torch.randn(40_000, LATENTS, dtype=torch.float64)
    for image, log_p in zip(images[:2], exact):
        many = model.log_likelihood(image.expand(len(latents), -1, -1, -1), latents)
        plain = torch.logsumexp(many, 0) - math.log(len(latents))
        assert plain.item() == pytest.approx(log_p.item(), abs=0.3)
    torch.testing.assert_close(model.log_prob(images, samples=4096), exact, atol=0.03, rtol=0)


def test_the_gaussian_likelihood_is_a_density_in_pixel_space():
    model = VAE(8, latents=3, width=4, sigma=0.2, value_range=(0.0, 3.0)).double()
    latents, images = torch.randn(4, 3, dtype=torch.float64), 3 * torch.rand(4, 1, 8, 8, dtype=torch.float64)
    literal = Normal(model(latents), 0.2).log_prob(images).flatten(1).sum(1)
    torch.testing.assert_close(model.log_likelihood(images, latents), literal, atol=1e-4, rtol=1e-6)


def test_the_bernoulli_likelihood_is_a_mass_of_black_and_white_images():
    """The masses of all 2^64 images sum to 1: each pixel's two do."""
    model = VAE(8, latents=3, width=4, likelihood="bernoulli").double()
    latents = torch.randn(4, 3, dtype=torch.float64)
    white = (torch.rand(4, 1, 8, 8, dtype=torch.float64) > 0.5).double()
    probability = (model(latents) + 1) / 2
    literal = Bernoulli(probability).log_prob(white).flatten(1).sum(1)
    torch.testing.assert_close(model.log_likelihood(2 * white - 1, latents), literal)


def test_of_a_gray_image_the_bernoulli_bound_is_below_the_mean_over_its_binarisations():
    model = VAE(8, latents=2, width=4, likelihood="bernoulli", value_range=(0.0, 1.0)).double().eval()
    with torch.no_grad():
        model.to_image.weight.mul_(20)  # so that latents matter
    gray = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    drawn = torch.bernoulli(gray.expand(100, -1, -1, -1))
    mean = model.log_prob(drawn, samples=100).mean()
    assert model.elbo(gray, samples=100).item() < model.log_prob(gray, samples=100).item() < mean.item() + 0.1


def test_the_divergence_is_that_of_gaussians():
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    exact = kl_divergence(Normal(mean, torch.exp(log_variance / 2)), Normal(torch.zeros(3), torch.ones(3))).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), exact)


def test_with_a_learnt_prior_log_p_is_the_integral_over_latents_and_over_codes():
    """E over u ~ N(0, I) of p(x|T(u)), and the integral of p(x|z) p(z) dz on a grid, p(z) of the autograd Jacobian."""
    model = VAE(8, latents=2, width=4, sigma=1.0, transforms=2, samples=4000).double().eval()
    image = model(torch.randn(1, 2, dtype=torch.float64)).detach()
    line = torch.linspace(-6, 6, 241, dtype=torch.float64)
    codes = torch.cartesian_prod(line, line)
    latents = model._splines()(codes)
    torch.testing.assert_close(model.codes(latents), codes, atol=1e-7, rtol=0)
    some = torch.arange(0, len(codes), 997)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda z: model._splines()(z[None])[0]))(codes[some])
    prior = Normal(0.0, 1.0).log_prob(latents).sum(1)
    literal = prior[some] + torch.linalg.slogdet(jacobians).logabsdet
    noise, log_variance = torch.randn(2, len(some), 2, dtype=torch.float64)
    q = Normal(0.0, 1.0).log_prob(noise).sum(1) - log_variance.sum(1) / 2
    torch.testing.assert_close(model.log_ratio(codes[some], noise, log_variance), literal - q)

    weighed = model.log_ratio(codes, torch.zeros_like(codes), torch.zeros_like(codes)).detach() - math.log(2 * math.pi)
    assert float(torch.logsumexp(weighed, 0) + 2 * math.log(0.05)) == pytest.approx(0, abs=0.01)  # p(z) integrates to 1
    with torch.no_grad():
        given = model.log_likelihood_of(image.expand(len(codes), -1, -1, -1), codes)
        integral = float(torch.logsumexp(given + weighed, 0)) + 2 * math.log(0.05)
        drawn = torch.randn(40_000, 2, dtype=torch.float64)
        plain = torch.logsumexp(model.log_likelihood(image.expand(len(drawn), -1, -1, -1), drawn), 0)
    assert float(plain) - math.log(len(drawn)) == pytest.approx(integral, abs=0.02)
    assert float(model.log_prob(image).detach()) == pytest.approx(integral, abs=0.05)
    assert float(model.elbo(image).detach()) < integral


def test_with_a_learnt_prior_the_latents_of_an_image_decode_as_its_code_does():
    model = VAE(8, latents=3, width=4, transforms=2).double().eval()
    images = model(torch.randn(5, 3, dtype=torch.float64)).detach()
    mean, _ = model.posterior(images)
    torch.testing.assert_close(model(model.encode(images)), model._means(mean))
    assert (model.encode(images) - mean).abs().max() > 0.01


# -- its capabilities ---------------------------------------------------------------------------------------------


def test_capabilities():
    model = gx.create("generator/vae", size=8)
    for capability in (models.CanSample, models.HasLatents, models.HasEncoder, models.HasDensity):
        assert models.require(model, capability, by="test") is model
    assert not isinstance(model, models.Conditional)
    assert model.get_submodule("layers.0")[0].out_channels == 32  # units are addressed as those of the DCGAN


def test_a_density_depends_on_its_own_image_and_is_differentiable():
    model = VAE(16, latents=3, width=4, samples=40).eval()
    images = model.sample(40, seed=0).images.requires_grad_()
    together = model.log_prob(images)
    alone = torch.cat([model.log_prob(images[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together[:3], alone, rtol=1e-5, atol=1e-3)
    (gradient,) = torch.autograd.grad(together[0], images)
    assert gradient[0].abs().max() > 0
    assert gradient[1:].abs().max() == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"likelihood": "poisson"}, "likelihood"),
        ({"samples": 0}, "samples"),
        ({"sigma": 0.0}, "sigma"),
        ({"value_range": (1.0, 1.0)}, "value_range"),
        ({"size": 12}, "size 12"),
        ({"latents": 0}, "latents"),
        ({"transforms": -1}, "transforms"),
        ({"transforms": 2, "latents": 1}, r"transforms \(2\).*latents \(1\)"),
    ],
)
def test_parameters_out_of_bounds_are_refused(wrong, message):
    with pytest.raises(BadParameter, match=message):
        gx.create("generator/vae", **{"size": 16, **wrong})


def test_what_it_cannot_take_is_refused():
    model = VAE(8, width=4, likelihood="bernoulli", value_range=(0.0, 1.0))
    with pytest.raises(InputError, match=r"takes images \['N', 1, 8, 8\], not \[2, 1, 16, 16\]"):
        model.encode(torch.zeros(2, 1, 16, 16))
    with pytest.raises(InputError, match="a Bernoulli pixel must be in"):
        model.log_prob(torch.full((1, 1, 8, 8), -0.5))
    with pytest.raises(InputError, match="samples -1 must be at least 1"):
        model.elbo(torch.zeros(1, 1, 8, 8), samples=-1)
    with pytest.raises(InputError, match="unconditional"):
        model.sample(1, seed=0, labels=torch.tensor([0]))


# -- training -----------------------------------------------------------------------------------------------------


def planted(n=256):
    """Draw images of two smooth patterns and noise of 0.1."""
    z = torch.randn(n, 2)
    line = torch.linspace(-1, 1, 8)
    patterns = torch.stack([line[:, None].expand(8, 8), (line[None] * line[:, None])])
    images = 0.25 * torch.einsum("nk,khw->nhw", z, patterns)[:, None] + 0.1 * torch.randn(n, 1, 8, 8)
    return gx.Samples(images, latents=z, value_range=(-1.0, 1.0)), patterns.flatten(1)


def test_training_finds_the_noise_and_comes_close_to_the_log_density_of_the_truth():
    data, patterns = planted()
    model = Spec("generator/vae", {"latents": 2, "width": 8})
    trained = VAETrainer(model, steps=400, batch=32, lr=1e-2, holdout=0.25).fit(data, RUNTIME)
    vae = trained.generator
    assert float(vae.log_sigma.detach().exp()) == pytest.approx(0.1, abs=0.03)
    fresh, _ = planted(200)
    covariance = 0.25**2 * patterns.T @ patterns + 0.01 * torch.eye(64)
    exact = MultivariateNormal(torch.zeros(64), covariance).log_prob(fresh.images.flatten(1))
    with torch.no_grad():
        found = vae.log_prob(fresh.images)
    assert 0 < float((exact - found).mean()) < 6  # nats, where log p is about 50
    assert trained.info["held_out"] == 64
    assert trained.info["held_out_log_prob"] == pytest.approx(float(found.mean()), abs=4)
    codes = torch.cat([vae.encode(fresh.images).detach(), torch.ones(200, 1)], 1)
    rest = fresh.latents - codes @ torch.linalg.lstsq(codes, fresh.latents).solution
    assert float(1 - rest.square().sum() / fresh.latents.square().sum()) > 0.9


def test_a_learnt_prior_draws_clusters_that_a_normal_one_smears():
    """Images are flat, dark or bright: the gray between the two is seldom drawn once the prior is learnt."""
    level = torch.tensor([-0.6, 0.6]).repeat(128)[:, None, None, None] + 0.05 * torch.randn(256, 1, 1, 1)
    data = gx.Samples(level + 0.05 * torch.randn(256, 1, 8, 8), value_range=(-1.0, 1.0))
    between = []
    for transforms in (0, 3):
        model = Spec("generator/vae", {"latents": 2, "width": 4, "sigma": 0.2, "transforms": transforms})
        vae = VAETrainer(model, steps=200, lr=1e-2, holdout=0).fit(data, RUNTIME).generator
        drawn = vae.sample(1000, seed=0).images.flatten(1).mean(1)
        between.append(float((drawn.abs() < 0.35).float().mean()))
    assert between[1] < 0.5 * between[0]


def test_more_weight_on_the_divergence_gives_less_of_it():
    data, _ = planted()
    model = Spec("generator/vae", {"latents": 2, "width": 8, "sigma": 0.1})
    ends = [VAETrainer(model, steps=150, lr=5e-3, beta=beta).fit(data, RUNTIME).history for beta in (1.0, 8.0)]
    one, eight = (sum(history["kl"][-20:]) / 20 for history in ends)
    assert eight < 0.9 * one
    for beta, history in zip((1.0, 8.0), ends):  # loss = −ELBO + (β − 1) KL
        made = [-elbo + (beta - 1) * kl for elbo, kl in zip(history["elbo"], history["kl"])]
        assert history["loss"] == pytest.approx(made, rel=1e-4, abs=1e-3)


def test_the_data_decide_size_channels_and_range():
    images = 4 * torch.rand(12, 3, 8, 8)
    trained = VAETrainer(Spec("generator/vae", {"width": 4}), steps=2, batch=4).fit(
        gx.Samples(images, value_range=(0.0, 4.0)), RUNTIME
    )
    assert trained.generator.image_shape == (3, 8, 8)
    assert trained.generator.value_range == (0.0, 4.0)


def test_wrong_data_and_models_are_refused():
    data, _ = planted(8)
    wide = gx.Samples(torch.zeros(4, 1, 8, 16), value_range=(-1.0, 1.0))
    with pytest.raises(InputError, match="square images, not 8×16"):
        VAETrainer(steps=1).fit(wide, RUNTIME)
    with pytest.raises(InputError, match="trains a generator/vae, not generator/dcgan"):
        VAETrainer(Spec("generator/dcgan"), steps=1).fit(data, RUNTIME)
    with pytest.raises(InputError, match="leave its value_range out"):
        VAETrainer(Spec("generator/vae", {"value_range": (0.0, 1.0)}), steps=1).fit(data, RUNTIME)
    with pytest.raises(InputError, match="leave none to train on"):
        VAETrainer(steps=1, holdout=0.9).fit(data[:2], RUNTIME)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"lr": 0.0}, {"holdout": 1.0}, {"beta": -1.0}, {"beta": math.inf}])
def test_trainer_parameters_out_of_bounds_are_refused(wrong):
    with pytest.raises(BadParameter, match=next(iter(wrong))):
        gx.create("trainer/vae", **wrong)


def test_half_of_each_batch_on_each_of_two_processes_averages_to_the_whole(monkeypatch):
    """Two processes are played one after the other; their exchange is replaced by recording what they would send."""
    sent = []

    def record(self, tensors):
        sent.append([t.clone() for t in tensors])

    data, _ = planted(32)
    trainer = VAETrainer(Spec("generator/vae", {"width": 4, "latents": 3}), steps=1, batch=16, holdout=0)
    monkeypatch.setattr(gx.Runtime, "average", record)
    for rank, world in ((0, 1), (0, 2), (1, 2)):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world))
        trainer.fit(data, RUNTIME)
    whole, left, right = [grads for grads in sent if len(grads) > 3]
    for w, a, b in zip(whole, left, right):
        torch.testing.assert_close((a + b) / 2, w, atol=1e-3, rtol=1e-4)
    assert any(not torch.equal(a, b) for a, b in zip(left, right))
