"""log p(x) and typicality on a Gaussian, where both, and the failure of the first, are known in closed form."""

from __future__ import annotations

import pytest
import torch
from genxai_zoo.outlier_score import OutlierScore
from torch import nn

from genxai_core import Generator, Runtime, Samples, create, draws
from genxai_core.errors import BadParameter, InputError, MissingCapability

SIDE, SIGMA = 16, 0.25
D = SIDE * SIDE


class Gaussian(Generator):
    """Independent pixels N(0, SIGMA²)."""

    value_range = (-1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(SIGMA))

    def log_prob(self, images):
        return torch.distributions.Normal(0.0, self.scale).log_prob(images).flatten(1).sum(1)


def drawn(n, seed, scale=1.0):
    images = scale * SIGMA * draws.normal(seed, range(n), (1, SIDE, SIDE))
    return Samples(images, value_range=(-1.0, 1.0))


FLAT = Samples(torch.zeros(3, 1, SIDE, SIDE), value_range=(-1.0, 1.0))


def test_the_log_density_is_the_models():
    inputs = drawn(7, 0)
    found = create("explainer/outlier-score").explain(Gaussian(), inputs, runtime=Runtime(batch_size=3))
    expected = -inputs.images.flatten(1).square().sum(1) / (2 * SIGMA**2) - D / 2 * torch.log(
        torch.tensor(2 * torch.pi * SIGMA**2)
    )
    assert torch.allclose(found.scores, expected, rtol=1e-4)
    assert found.notes["unit"] == "log p(x), in nats"
    assert len(found.images) == 7


def test_flat_images_are_likelier_than_the_data_by_half_the_dimensions_and_typicality_tells():
    model, data, reference = Gaussian(), drawn(200, 0), drawn(200, 1)
    density = create("explainer/outlier-score")
    gap = density.explain(model, FLAT).scores.mean() - density.explain(model, data).scores.mean()
    assert float(gap) == pytest.approx(D / 2, abs=3)  # the known failure, in closed form
    typical = create("explainer/outlier-score", score="typicality", reference=reference)
    inside, flat, wide = (typical.explain(model, some).scores for some in (data, FLAT, drawn(200, 2, 1.5)))
    assert float(flat.max()) < float(inside.min())
    assert float(wide.max()) < float(inside.min())
    # of the data, |log p − mean| has the half-normal mean √(2/π) · √(D/2)
    assert -float(inside.mean()) == pytest.approx((2 / torch.pi * D / 2) ** 0.5, rel=0.15)


@pytest.mark.parametrize(
    "params",
    [
        {"score": "rarity"},
        {"score": "typicality"},
        {"reference": FLAT},
        {"score": "typicality", "reference": FLAT[:0]},
    ],
)
def test_bad_parameters_are_refused(params):
    with pytest.raises(BadParameter):
        create("explainer/outlier-score", **params)


def test_what_has_no_density_or_another_range_is_refused():
    with pytest.raises(MissingCapability, match="HasDensity"):
        OutlierScore().explain(create("generator/dcgan", size=16), FLAT)
    other = FLAT.rescale((0.0, 1.0))
    with pytest.raises(InputError, match="the reference images are in"):
        OutlierScore("typicality", other).explain(Gaussian(), FLAT)

    class Broken(Gaussian):
        def log_prob(self, images):
            return super().log_prob(images) / 0 * 0

    with pytest.raises(InputError, match="or NaN"):
        OutlierScore().explain(Broken(), FLAT)
