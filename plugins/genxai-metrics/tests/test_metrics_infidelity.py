"""Infidelity: oracle and opposite, a literal version, every square in turn, captum's on the same noise, refusals."""

import captum.metrics
import pytest
import torch
from genxai_metrics.infidelity import Infidelity, infidelity

import genxai_core as gx
from genxai_core.errors import BadParameter, InputError
from genxai_core.testing import LinearDiscriminator

QUIET = gx.Runtime(device="cpu", quiet=True)


def measured(model, explanation, runtime=QUIET, **params):
    return Infidelity(**params).measure(model=model, explanation=explanation, runtime=runtime)


def test_the_pixels_of_a_sum_are_perfect_and_their_negatives_the_worst(oracles):
    images = oracles.images_of(6).double()
    model = oracles.Sum()
    right, twice, nothing, wrong = (measured(model, oracles.explained(s * images[:, 0], images)) for s in (1, 2, 0, -1))
    assert right["infidelity"] < 1e-10
    assert right["infidelity_scaled"] < 1e-10
    assert twice["infidelity"] == pytest.approx(nothing["infidelity"], rel=1e-4)  # off by as much, above and below
    assert twice["infidelity_scaled"] < 1e-10  # which forgives the scale
    assert wrong["infidelity"] == pytest.approx(4 * nothing["infidelity"], rel=1e-4)
    assert wrong["infidelity_scaled"] == nothing["infidelity_scaled"] == 1.0  # but not the sign


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_of_a_linear_model_are_perfect_for_squares_and_for_noise(oracles, channels):
    model, images = LinearDiscriminator(8, channels), oracles.images_of(4, channels, 8)
    gradients = model.weights.expand(4, -1, -1, -1)
    for how in ("squares", "noise"):
        right = measured(model, oracles.explained(gradients, images), maps="gradients", perturbation=how)
        wrong = measured(model, oracles.explained(-gradients, images), maps="gradients", perturbation=how)
        assert right["infidelity"] < 1e-10
        assert right["infidelity_scaled"] < 1e-6
        assert wrong["infidelity_scaled"] == 1.0


def test_it_is_the_literal_version(oracles):
    """A loop over draws and images, with a model that is not linear and maps per channel and per pixel."""
    model, images = oracles.Curved(3).eval(), oracles.images_of(4, 3)
    maps = gx.draws.normal(5, range(4), (3, 6, 6)) / 6
    metric = Infidelity(baseline="mean", window=3, samples=20)
    metric.update(model=model, explanation=oracles.explained(maps, images, target=1))
    batch = metric._batch(oracles.explained(maps, images, target=1), model, None, [0, 1, 2, 3], images.device, QUIET)
    corners = metric._corners(batch)
    rows = []
    for i, image in enumerate(images):
        errors = []
        for top, left in corners[i].tolist():
            altered, predicted = image.clone(), 0.0
            for row in range(max(0, top), min(6, top + 3)):
                for column in range(max(0, left), min(6, left + 3)):
                    altered[:, row, column] = image.mean((1, 2))
                    predicted += float(maps[i, :, row, column].sum())
            with torch.no_grad():
                drop = float((model(image[None]) - model(altered[None]))[0, 1])
            errors.append((predicted, drop))
        p, d = torch.tensor(errors).double().T
        beta = max(0.0, float((p * d).sum() / (p * p).sum()))
        rows.append([float((p - d).square().mean()), float((beta * p - d).square().mean() / d.square().mean())])
    expected = torch.tensor(rows).double()
    torch.testing.assert_close(metric.per_image()["infidelity"], expected[:, 0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(metric.per_image()["infidelity_scaled"], expected[:, 1], atol=1e-6, rtol=1e-5)
    summed = Infidelity(baseline="mean", window=3, samples=20)
    summed.update(model=model, explanation=oracles.explained(maps.sum(1), images, target=1))
    torch.testing.assert_close(summed.per_image()["infidelity"], expected[:, 0], atol=1e-6, rtol=1e-5)


def test_squares_cover_every_pixel_equally_often_and_lie_anywhere(oracles):
    metric = Infidelity(window=3, samples=4000)
    images = oracles.images_of(1)
    batch = metric._batch(oracles.explained(images[:, 0], images), oracles.Sum(), None, [0], images.device, QUIET)
    corners = metric._corners(batch)
    assert sorted(set(map(tuple, corners[0].tolist()))) == [(y, x) for y in range(-2, 6) for x in range(-2, 6)]
    share = metric._inside(corners.transpose(0, 1), images).float().mean(0)[0, 0]
    assert share.min() > 9 / 64 * 0.8
    assert share.max() < 9 / 64 * 1.2


def test_it_equals_captums_on_the_same_noise(oracles):
    model, images = oracles.Curved().eval(), oracles.images_of(3)
    maps = gx.draws.normal(5, range(3), (1, 6, 6))
    explanation = oracles.explained(maps, images, target=2)
    metric = Infidelity(perturbation="noise", maps="gradients", stdev=0.05, samples=12)
    metric.update(model=model, explanation=explanation)
    batch = metric._batch(explanation, model, None, [0, 1, 2], images.device, QUIET)
    noisy = metric._noisy(batch, range(12))  # [12, 3, 1, 6, 6]
    waiting = iter(noisy)

    def perturb(inputs):
        changed = next(waiting)
        return inputs - changed, changed  # captum wants I, and x − I

    expected = captum.metrics.infidelity(
        model, perturb, images, maps, target=2, n_perturb_samples=12, max_examples_per_batch=3
    )
    torch.testing.assert_close(metric.per_image()["infidelity"].float(), expected.detach(), atol=1e-6, rtol=1e-4)


def test_nothing_to_predict_is_not_nan():
    zero, some = torch.zeros(5, 2).double(), torch.ones(5, 2).double()
    assert infidelity(zero, zero).tolist() == [[0, 0]] * 2
    assert infidelity(some, zero).tolist() == [[1, 0]] * 2
    assert infidelity(zero, some).tolist() == [[1, 1]] * 2


@pytest.mark.parametrize("how", ["squares", "noise"])
def test_it_depends_on_the_seed_and_not_on_the_batch_size(oracles, how):
    model, images = oracles.Curved(), oracles.images_of(7)
    explanation = oracles.explained(gx.draws.normal(1, range(7), (1, 6, 6)), images, target=1)
    found = [
        measured(model, explanation, QUIET.with_(batch_size=b), maps="gradients", perturbation=how, samples=9)
        for b in (1, 3, 7, 500)
    ]
    assert all(f == pytest.approx(found[0], abs=1e-6) for f in found)
    other = measured(model, explanation, QUIET.with_(seed=1), maps="gradients", perturbation=how, samples=9)
    assert other["infidelity"] != pytest.approx(found[0]["infidelity"], rel=1e-3)


def test_what_does_not_fit_is_refused(oracles):
    images = oracles.images_of(3, 3)
    with pytest.raises(InputError, match="gradients of 3 channels need maps"):
        measured(oracles.Sum(), oracles.explained(images.sum(1), images), maps="gradients")
    with pytest.raises(BadParameter, match="noise says nothing of contributions"):
        gx.create("metric/infidelity", perturbation="noise")
    with pytest.raises(BadParameter, match="stdev 0"):
        gx.create("metric/infidelity", stdev=0.0)
