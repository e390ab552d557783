"""A unit that is constant detects nothing, though upsampling it rounds up here and there."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import genxai_core as gx
from genxai_core import Runtime, Segmenter


class Brightness(Segmenter):
    """Bright and dark pixels."""

    concepts = ("bright", "dark")

    def _segment(self, samples):
        return torch.cat([samples.images > 0.1, samples.images < -0.1], 1)


class Dead(nn.Module):
    """Three of its six units are constant, all of 4 × 4 cells."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.units, self.out = nn.Linear(4, 96), nn.Identity(), nn.Conv2d(6, 1, 1)

    def forward(self, latents):
        maps = self.layer(latents).view(-1, 6, 4, 4)
        dead = maps.new_tensor([0.3, 0.7, 0.9])[:, None, None].expand(len(maps), 3, 4, 4)
        maps = self.units(torch.cat([dead, maps[:, 3:]], 1))
        return torch.tanh(self.out(F.interpolate(maps, size=(28, 28), mode="bilinear")) + 0.5)


@pytest.mark.parametrize("options", [{}, {"cells": True}, {"threshold": "iqr"}], ids=str)
def test_a_constant_unit_is_no_detector(options):
    generator = gx.adapt.generator(Dead(), latent_shape=(4,))
    explainer = gx.create(
        "explainer/gan-dissection",
        segmenter=Brightness(),
        layers=("module.units",),
        samples=60,
        threshold_samples=60,
        **options,
    )
    found = explainer.explain(generator, runtime=Runtime(device="cpu", quiet=True))
    area, scores = found.area["module.units"], found.scores["module.units"]
    assert area[:3].tolist() == [0, 0, 0]
    assert (area[3:] > 0).all()
    assert (scores[:3] == 0).all()
    assert {unit for _, unit in found.above(1e-9)} == {3, 4, 5}
    assert found.ranking("bright")[0].unit >= 3
