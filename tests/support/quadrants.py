"""A generator whose four units draw a quadrant each, and a segmenter that sees bright quadrants."""

from __future__ import annotations

import torch
from torch import nn

from genxai_core import Component, Segmenter, hookimpl
from genxai_core.testing import LinearGenerator


class Quadrants(Segmenter):
    """Bright pixels, by quadrant, and one concept that overlaps all: bright."""

    concepts = ("upper-left", "upper-right", "lower-left", "lower-right", "bright")

    def _segment(self, samples):
        bright = samples.images.mean(1) > 0.25
        height, width = bright.shape[1:]
        masks = torch.zeros(len(bright), 5, height, width, dtype=torch.bool, device=bright.device)
        for k in range(4):
            rows, columns = (
                slice(n * half, (n + 1) * half) for n, half in zip(divmod(k, 2), (height // 2, width // 2))
            )
            masks[:, k, rows, columns] = bright[:, rows, columns]
        masks[:, 4] = bright
        return masks


class Blind(Segmenter):
    """Sees nothing."""

    concepts = ("nothing",)

    def _segment(self, samples):
        return torch.zeros(len(samples), 1, *samples.images.shape[2:], dtype=torch.bool)


class Deep(LinearGenerator):
    """With a second, rectified layer at 8 × 8, and batch statistics that must not move."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.norm = nn.BatchNorm2d(4, affine=False)
        self.second = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(inplace=True))
        self.merge = nn.ConvTranspose2d(6, 1, 2, stride=2)

    def forward(self, latents):
        first = self.norm(self.layers(latents.to(self.merge.weight)[:, :, None, None]))
        return torch.tanh(4 * self.merge(self.second(first)))


def painter():
    return LinearGenerator().eval()


def deep():
    return Deep().eval()


@hookimpl
def genxai_components():
    return [Component("segmenter", "quadrants", f"{__name__}:Quadrants", "bright quadrants, for tests")]
