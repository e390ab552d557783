"""What several tests share."""

import torch
from torch import nn

from genxai_core import adapt

N = 5


class Returns(nn.Module):
    """Returns what a function makes of two features per image, so that each test shows its head in one line."""

    def __init__(self, head):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 2 * 12).reshape(2, 12))
        self.head = head

    def forward(self, images, *more):
        return self.head(images.flatten(1) @ self.weight.T, *more)


def image_batch(n=N, channels=3):
    return torch.rand(n, channels, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1


def plain(images):
    return images.flatten(1) @ Returns(None).weight.detach().T


def logits(make, images=None, **how):
    return adapt.discriminator(Returns(make), **how)(image_batch() if images is None else images).detach()


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
