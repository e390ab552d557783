"""Somebody else's WGAN-GP for 28x28 digits (github.com/akanametov/WGAN-GP, MIT), read from its two .pt files.

Give it to any command: ``genxai run examples/data/wgan-gp-critic.yaml --plugin examples/data/wgan_gp.py --data DIR``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from genxai_core import Component, adapt, hookimpl, storage


class Block(nn.Module):
    """Convolution, batch norm, activation. Only the first two have weights: ``block.0`` and ``block.1``."""

    def __init__(self, convolution: nn.Module, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(convolution, nn.BatchNorm2d(channels), activation)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        return self.block(x)


class Generator(nn.Module):
    """z ``[N, 64, 1, 1]`` ~ N(0, 1) to digits ``[N, 1, 28, 28]`` in (-1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            Block(nn.ConvTranspose2d(64, 256, 3, stride=2), 256, nn.ReLU()),
            Block(nn.ConvTranspose2d(256, 128, 4, stride=1), 128, nn.ReLU()),
            Block(nn.ConvTranspose2d(128, 64, 3, stride=2), 64, nn.ReLU()),
            nn.ConvTranspose2d(64, 1, 4, stride=2),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return images."""
        return torch.tanh(self.model(z))


class Critic(nn.Module):
    """Digits ``[N, 1, 28, 28]`` in (-1, 1) to scores ``[N, 1, 1, 1]``, unbounded."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            Block(nn.Conv2d(1, 64, 4, stride=2), 64, nn.LeakyReLU(0.2)),
            Block(nn.Conv2d(64, 128, 4, stride=2), 128, nn.LeakyReLU(0.2)),
            nn.Conv2d(128, 1, 4, stride=2),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return scores."""
        return self.model(images)


def generator(weights: Path) -> adapt.AdaptedGenerator:
    """Build the generator.

    Parameters
    ----------
    weights
        Its ``generator.pt``.
    """
    return adapt.generator(_loaded(Generator(), weights), latent_shape=(64, 1, 1))


def critic(weights: Path) -> adapt.AdaptedDiscriminator:
    """Build the critic. A Wasserstein score has no zero point: it ranks images, its sign means nothing.

    Parameters
    ----------
    weights
        Its ``critic.pt``.
    """
    return adapt.discriminator(_loaded(Critic(), weights), image_shape=(1, 28, 28))


def _loaded(module: nn.Module, weights: Path) -> nn.Module:
    module.load_state_dict(storage.load_weights(weights))
    return module.eval()


@hookimpl
def genxai_components() -> list[Component]:
    """Register both. A file given with --plugin may import torch; an installed plugin's hook must not."""
    return [
        Component("generator", "wgan-gp", "wgan_gp:generator", "a stranger's WGAN-GP generator of 28x28 digits"),
        Component("discriminator", "wgan-gp", "wgan_gp:critic", "a stranger's WGAN-GP critic of 28x28 digits"),
    ]
