"""Models that the tests of this distribution explain."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from genxai_core import Discriminator


class SmallDCGAN(Discriminator):
    """A DCGAN discriminator for 16 px with spectral norm: maps of 8x8, 4x4, and a last convolution to 1x1."""

    def __init__(self, channels=1, classes=1, inplace=False, batchnorm=False):
        super().__init__()
        self.class_names = tuple(f"c{i}" for i in range(classes))

        def norm(width):
            return nn.BatchNorm2d(width) if batchnorm else nn.Identity()

        self.features = nn.Sequential(
            spectral_norm(nn.Conv2d(channels, 6, 4, 2, 1)),
            nn.LeakyReLU(0.2, inplace=inplace),
            spectral_norm(nn.Conv2d(6, 10, 4, 2, 1)),
            norm(10),
            nn.LeakyReLU(0.2, inplace=inplace),
        )
        self.final = spectral_norm(nn.Conv2d(10, classes, 4, 1, 0))

    def forward(self, images):
        return self.final(self.features(images)).flatten(1)


@pytest.fixture
def make_dcgan():
    def make(**options):
        torch.manual_seed(3)
        return SmallDCGAN(**options)

    return make


@pytest.fixture
def images():
    return torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def fingerprint():
    """What a model must be again after an explanation, bit for bit."""

    def of(model):
        modules = dict(model.named_modules())
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        return {
            "tensors": {k: (t.detach().numpy().tobytes(), t.requires_grad, t._version) for k, t in tensors.items()},
            "grads": {
                k: None if t.grad is None else (id(t.grad), t.grad.numpy().tobytes()) for k, t in tensors.items()
            },
            "training": {k: m.training for k, m in modules.items()},
            "hooks": {
                k: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
                for k, m in modules.items()
            },
            "rng": torch.get_rng_state().numpy().tobytes(),
        }

    return of
