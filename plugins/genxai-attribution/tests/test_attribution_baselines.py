"""The farthest image within the range, as a baseline by name."""

from __future__ import annotations

import itertools

import pytest
import torch
from genxai_attribution.baselines import baseline_of

from genxai_core import Runtime, create, draws
from genxai_core.testing.models import LinearDiscriminator


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0), (-2.0, 6.0)])
def test_no_image_of_the_range_is_farther(value_range):
    low, high = value_range
    images = low + (high - low) * draws.uniform(0, range(4), (1, 2, 2))
    made = baseline_of(images, "max-distance", value_range)
    grid = torch.linspace(low, high, 5).tolist()
    for image, farthest in zip(images, made):
        among = [torch.tensor(pixels).view(1, 2, 2) for pixels in itertools.product(grid, repeat=4)]
        for norm in (1, 2):
            away = max(float((other - image).norm(norm)) for other in among)
            assert float((farthest - image).norm(norm)) == pytest.approx(away, rel=1e-6)
        assert set(farthest.flatten().tolist()) <= {low, high}


def test_the_centre_has_one_answer_and_the_type_stays():
    images = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    made = baseline_of(images, "max-distance", (-1.0, 1.0))
    assert made.dtype == torch.float64
    assert torch.equal(made, torch.ones_like(images))  # both ends are as far; it is the high one


def test_an_attribution_takes_it_by_name():
    model, images = LinearDiscriminator().eval(), draws.uniform(1, range(3), (1, 16, 16)) * 2 - 1
    method = create("explainer/integrated-gradients", baseline="max-distance", steps=2)
    found = method.explain(model, images, runtime=Runtime(device="cpu", quiet=True))
    expected = (images - torch.where(images > 0, -1.0, 1.0)) * model.weights[0]
    torch.testing.assert_close(found.maps, expected, rtol=0, atol=1e-5)
    assert bool((found.maps.abs() >= model.weights[0].abs() * 0.999).all())  # no pixel is as the baseline has it
