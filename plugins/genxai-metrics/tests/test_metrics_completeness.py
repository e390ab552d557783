"""Completeness: the sum of integrated gradients in closed form, the oracle and its opposite, baselines, refusals."""

import pytest
import torch
from genxai_metrics.baselines import baseline_of

import genxai_core as gx
from genxai_core.errors import InputError
from genxai_core.testing import QuadraticDiscriminator

QUIET = gx.Runtime(device="cpu", quiet=True)


def measured(model, explanation, **params):
    return gx.create("metric/completeness", **params).measure(model=model, explanation=explanation, runtime=QUIET)


def test_pixels_of_a_sum_are_complete_and_their_negatives_as_wrong_as_can_be(oracles):
    images = oracles.images_of(5)
    right, wrong, nothing = (
        measured(oracles.Sum(), oracles.explained(s * images[:, 0].double(), images), baseline="zero")
        for s in (1, -1, 0)
    )
    assert right["completeness_error"] < 1e-5
    assert right["completeness_gap"] < 1e-4
    assert wrong["completeness_gap"] == nothing["completeness_gap"] == 1.0
    sums = images.double().flatten(1).sum(1).abs().mean()
    assert wrong["completeness_error"] == pytest.approx(2 * float(sums), rel=1e-5)
    assert nothing["completeness_error"] == pytest.approx(float(sums), rel=1e-5)


def test_integrated_gradients_of_a_quadratic_are_complete_in_closed_form(oracles):
    """(x − b) ⊙ (w + a ⊙ (x + b) / 2) sums to f(x) − f(b), of the baseline that the explanation names."""
    model = QuadraticDiscriminator(size=8, channels=2)
    images, baseline = oracles.images_of(4, 2, 8), oracles.images_of(4, 2, 8, seed=9)
    maps = ((images - baseline) * (model.linear + model.curvature * (images + baseline) / 2)).detach()
    found = measured(model, oracles.explained(maps, images, baseline=baseline))
    assert found["completeness_error"] < 1e-5
    summed = measured(model, oracles.explained(maps.sum(1), images, baseline=baseline))  # [N, H, W] says the same
    assert summed["completeness_error"] == pytest.approx(found["completeness_error"], abs=1e-6)
    against_another = measured(model, oracles.explained(maps, images), baseline="blur")
    assert against_another["completeness_error"] > 0.05


@pytest.mark.parametrize("kind", ["zero", "low", "mid", "mean", "blur"])
def test_baselines_are_those_of_the_explainers(oracles, kind):
    """genxai-attribution's integrated gradients from a named baseline carry the very baseline of that name."""
    images = oracles.images_of(3, 2, 8)
    model = gx.create("discriminator/classifier", size=8, channels=2, num_classes=2)
    made = gx.create("explainer/integrated-gradients", baseline=kind, steps=4).explain(model, images, target=1)
    assert torch.equal(baseline_of(images, kind, model.value_range), made.baseline)
    assert measured(model, made) == measured(model, made, baseline=kind)


def test_a_model_that_nothing_moves_is_explained_by_zeros(oracles):
    class Flat(oracles.Sum):
        def forward(self, images):
            return super().forward(images) * 0

    images = oracles.images_of(3)
    assert measured(Flat(), oracles.explained(images[:, 0] * 0, images), baseline="zero")["completeness_gap"] == 0
    assert measured(Flat(), oracles.explained(images[:, 0], images), baseline="zero")["completeness_gap"] == 1


def test_without_a_baseline_it_says_what_to_write(oracles):
    images = oracles.images_of(3)
    with pytest.raises(InputError, match="names no baseline; say which to take, such as baseline: zero"):
        measured(oracles.Sum(), oracles.explained(images[:, 0], images))
