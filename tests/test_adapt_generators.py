"""Any module as a generator."""

import pytest
import torch
from adapted_modules import close
from torch import nn

from genxai_core import Samples, adapt, draws, models
from genxai_core.errors import InputError

# -- generators -----------------------------------------------------------------------------------------------


class Draws(nn.Module):
    """Latents [N, 3] to images [N, 1, 2, 2] in (0, 1), with batch norm and dropout on the way."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm, self.drop = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)

    def forward(self, z):
        return torch.sigmoid(self.drop(self.norm(self.linear(z)))).view(-1, 1, 2, 2)


def test_a_generator_has_latents_and_can_sample():
    G = adapt.generator(Draws(), latent_shape=(3,), module_range=(0, 1))
    assert isinstance(G, models.Generator)
    models.require(G, models.HasLatents, by="test")
    models.require(G, models.CanSample, by="test")
    samples = G.sample(4, seed=1)
    assert isinstance(samples, Samples)
    assert torch.equal(samples.latents, draws.normal(1, range(4), (3,)))
    G.eval()
    close(samples.images, G(samples.latents).detach())
    close(samples.images, G.module(samples.latents).detach() * 2 - 1)
    assert not samples.images.requires_grad


def test_samples_depend_on_seed_and_index_only_and_the_modes_stay():
    module = Draws().train()
    module.norm.eval()
    G = adapt.generator(module, latent_shape=(3,), module_range=(0, 1))
    state, random = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    whole, part = G.sample(6, seed=7), G.sample(2, seed=7, start=3)
    close(whole.images[3:5], part.images, 1e-6)
    assert torch.equal(whole.latents[3:5], part.latents)
    assert not torch.equal(G.sample(6, seed=8).latents, whole.latents)
    assert (module.training, module.norm.training, module.drop.training) == (True, False, True)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert len(G.sample(0, seed=7)) == 0


def test_uniform_latents_fill_their_interval():
    z = adapt.generator(Draws(), latent_shape=(3,), distribution="uniform").sample_latents(400, seed=0)
    assert z.min() >= -1
    assert z.max() < 1
    assert z.min() < -0.98
    assert z.max() > 0.98
    assert z.mean().abs() < 0.1


def test_a_generator_is_differentiable_in_the_mode_that_it_is_in():
    module = Draws()
    z = draws.normal(0, range(64), (3,)).requires_grad_()
    G = adapt.generator(module, latent_shape=(3,), module_range=(0, 1))
    assert not torch.equal(G(z), G(z))  # dropout: forward leaves the mode alone
    G.eval()
    (gradient,) = torch.autograd.grad(G(z).sum(), z)
    twin = z.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(2 * module(twin).sum(), twin)
    close(gradient, expected)


class Const(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, z):
        return self.make(z)


def as_images(z):
    return z[:, :1, None, None].tanh().expand(-1, 1, 2, 2)


@pytest.mark.parametrize(
    ("make", "how", "message"),
    [
        (lambda z: z, {}, "not images"),
        (lambda z: as_images(z)[:1], {}, "4 latents gave a tensor"),
        (lambda z: (as_images(z), z), {}, "tuple of 2.*output="),
        (lambda z: (as_images(z), z), {"output": 3}, "output=3"),
        (lambda z: as_images(z) / 0, {}, "NaN or infinity"),
        (as_images, {"module_range": (0, 255)}, None),
        (lambda z: as_images(z) * 255, {}, "give its range as module_range"),
        (lambda z: as_images(z) + torch.randn(1) * 0.01, {}, "draws random numbers"),
    ],
)
def test_generators_that_do_not_fit_are_refused(make, how, message):
    G = adapt.generator(Const(make), latent_shape=(3,), **how)
    if message is None:  # near zero is inside (0, 255): a wrong range of that kind cannot be seen
        assert G.sample(4, seed=0).images.max() < -0.9
    else:
        with pytest.raises(InputError, match=message):
            G.sample(4, seed=0)


def test_latents_labels_and_arguments_are_checked():
    G = adapt.generator(Const(lambda z: (z, as_images(z))), latent_shape=[3], output=1)
    assert G.sample(2, seed=0).images.shape == (2, 1, 2, 2)
    with pytest.raises(InputError, match=r"latents must be \[N, 3\]"):
        G(torch.zeros(2, 4))
    with pytest.raises(InputError, match="takes no labels"):
        G.sample(2, seed=0, labels=torch.zeros(2, dtype=torch.long))
    for how in [{"latent_shape": ()}, {"latent_shape": (0,)}, {"latent_shape": (3,), "distribution": "cauchy"}]:
        with pytest.raises(ValueError, match=list(how)[-1]):
            adapt.generator(Draws(), **how)
