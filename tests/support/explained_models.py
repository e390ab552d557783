"""What several tests share: models, data and explainers of which everything is known."""

import torch
from torch import nn

import genxai_core as gx
from genxai_core import (
    Attribution,
    Dataset,
    Discriminator,
    Explainer,
    Generator,
    Samples,
)


class Linear(Discriminator):
    """Logit k is the sum of channel means, weighted by k + 1, plus k."""

    image_shape = (3, 4, 6)

    def __init__(self, k=1):
        super().__init__()
        self.class_names = tuple("abcdefgh"[:k])
        self.scale = nn.Parameter(torch.arange(1.0, k + 1))

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None] * self.scale + torch.arange(len(self.scale))


class Grad(Explainer):
    """Input times gradient."""

    explains, accepts, returns = "discriminator", "images", Attribution

    def _explain(self, model, images, target):
        images.requires_grad_()
        (gradient,) = torch.autograd.grad(model(images)[:, target].sum(), images)
        return Attribution(maps=(images * gradient).sum(1), target=target)


def explainer(function, **traits):
    """An explainer of one function."""
    body = {"_explain": lambda self, model, inputs, target: function(model, inputs, target)}
    return type("Mine", (Explainer,), {"accepts": "images", "returns": Attribution, **traits, **body})()


def images(n=5, seed=0):
    return torch.rand(n, 3, 4, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def same(a, b):
    return torch.equal(a.maps, b.maps) and torch.equal(a.target, b.target) and torch.equal(a.logits, b.logits)


class Makes(Generator):
    value_range = (-1.0, 1.0)
    latent_shape = (2,)

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))

    def sample_latents(self, n, seed, start=0):
        return gx.draws.normal(seed, range(start, start + n), (2,))

    def forward(self, latents):
        return torch.tanh(latents * self.w)[:, :, None, None].repeat(1, 1, 3, 3)[:, :1]


class Numbers(Dataset):
    image_shape = (3, 4, 6)

    def __init__(self, value_range=(-1.0, 1.0), n=5):
        self.value_range, self.n = value_range, n

    def __len__(self):
        return self.n

    def _samples(self, rows):
        return Samples(images()[rows], value_range=self.value_range)
