"""Which layers are scored if none are named."""

from __future__ import annotations

import pytest
import torch
from genxai_correction.layers import default_layers
from torch import nn

import genxai_core as gx
from genxai_core import units
from genxai_core.errors import InputError


def test_of_each_resolution_the_last_layer_is_scored() -> None:
    gan = gx.create("generator/dcgan", size=16, channels=3, latents=8, width=8).eval()
    latents = gan.sample_latents(3, 0)
    layers = default_layers(gan, latents)
    with torch.no_grad(), units.record(gan, layers) as seen:
        image = gan(latents)
    sizes = [tuple(seen[layer].shape[2:]) for layer in layers]
    assert len(set(sizes)) == len(sizes) >= 2
    assert sizes == sorted(sizes)
    assert all(seen[layer].shape[1:] != image.shape[1:] for layer in layers)
    assert not any(module._forward_hooks for module in gan.modules())
    with pytest.raises(InputError, match="name layers"):
        default_layers(Flat(), torch.zeros(1, 4))
    # latents [N, Z, 1, 1] that pass a module are no maps
    grown = nn.Sequential(nn.Identity(), nn.ConvTranspose2d(5, 4, 4), nn.ConvTranspose2d(4, 3, 4, 2, 1))
    assert default_layers(gx.adapt.generator(grown, latent_shape=(5, 1, 1)), torch.zeros(1, 5, 1, 1)) == ("module.1",)


class Flat(gx.Generator):
    """Has no layer with places."""

    value_range = (-1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(4, 3 * 8 * 8)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.net(latents).tanh().view(-1, 3, 8, 8)
