"""Small models whose units are recorded, edited and counted."""

import torch
from torch import nn


class Net(nn.Module):
    """Latents [N, 3] to images [N, 2, 8, 8]: flat, 4x4 and 8x8 layers, in-place activations, one layer used twice."""

    def __init__(self):
        super().__init__()
        self.flat = nn.Linear(3, 80)
        self.body = nn.Sequential(nn.Conv2d(5, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Upsample(scale_factor=2))
        self.twice = nn.Conv2d(6, 6, 1)
        self.act = nn.LeakyReLU(0.5, inplace=True)
        self.head = nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 2, 1))

    def forward(self, z):
        x = self.body(self.flat(z).reshape(-1, 5, 4, 4))
        return torch.tanh(self.head(self.act(self.twice(self.act(self.twice(x))))))


class Says(nn.Module):
    """Returns its input through a layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.layer(x))


def before_relu(net, z):
    with torch.no_grad():
        return net.body[0](net.flat(z).reshape(-1, 5, 4, 4))


def places(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) < 0.5
