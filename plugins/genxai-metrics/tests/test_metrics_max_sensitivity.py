"""Max-sensitivity: closed forms, captum's on the same noise, explainers that draw, and explanations of another one."""

import captum.metrics
import pytest
import torch

import genxai_core as gx
from genxai_core.errors import BadParameter, InputError
from genxai_core.testing import LinearDiscriminator

QUIET = gx.Runtime(device="cpu", quiet=True)


def metric_of(explainer, **params):
    return gx.create("metric/max-sensitivity", explainer=explainer, **params)


def test_the_gradient_of_a_linear_model_does_not_move(oracles):
    model, images = LinearDiscriminator(8), oracles.images_of(4, 1, 8)
    saliency = gx.create("explainer/saliency")
    made = saliency.explain(model, images)
    assert metric_of(saliency).measure(model=model, explanation=made, runtime=QUIET)["max_sensitivity"] == 0


def test_pixels_of_a_sum_move_with_the_noise(oracles):
    """Φ(x) = x: the figure is max ‖ε‖ / ‖x‖, with the noise that it says it draws."""
    model, images = oracles.Sum(), oracles.images_of(4)
    metric = metric_of(gx.Spec("explainer/input-x-gradient"), radius=0.05, samples=7)
    made = gx.create("explainer/input-x-gradient").explain(model, images)
    metric.update(model=model, explanation=made)
    batch = metric._batch(made, model, None, [0, 1, 2, 3], images.device, QUIET)
    noise = torch.stack([metric._noise(batch, k) for k in range(7)]) * 0.05 * 2  # a range of 2
    assert float(noise.abs().max()) == pytest.approx(0.1, abs=0.002)
    expected = noise.flatten(2).norm(dim=2).amax(0) / images.flatten(1).norm(dim=1)
    torch.testing.assert_close(metric.per_image()["max_sensitivity"].float(), expected, atol=1e-5, rtol=1e-5)


def test_it_equals_captums_on_the_same_noise(oracles):
    model, images = oracles.Curved().eval(), oracles.images_of(3)
    saliency = gx.create("explainer/saliency")
    made = saliency.explain(model, images, target=1)
    metric = metric_of(saliency, samples=6)
    metric.update(model=model, explanation=made)
    batch = metric._batch(made, model, None, [0, 1, 2], images.device, QUIET)
    waiting = iter([metric._noise(batch, k) * 0.04 for k in range(6)])
    expected = captum.metrics.sensitivity_max(
        lambda inputs, target: (saliency.explain(model, *inputs, target=target).maps,),  # tuples, or it takes rows
        (images,),
        lambda inputs, radius: (inputs + next(waiting),),
        target=1,
        n_perturb_samples=6,
        max_examples_per_batch=3,
    )
    torch.testing.assert_close(metric.per_image()["max_sensitivity"].float(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["saliency", "noise-tunnel"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_it_does_not_depend_on_batches_or_order(oracles, name, batch_size):
    params = {"samples": 4} if name == "noise-tunnel" else {}
    model, images = oracles.Curved().eval(), oracles.images_of(5)
    explainer = gx.create(f"explainer/{name}", **params)
    made = explainer.explain(model, images, target=torch.tensor([0, 1, 2, 1, 0]), runtime=QUIET)
    metric = metric_of(explainer, samples=3)
    found = metric.measure(model=model, explanation=made, runtime=QUIET)
    assert found["max_sensitivity"] > 0.001
    turned = metric.measure(model=model, explanation=made[[4, 2, 0, 1, 3]], runtime=QUIET.with_(batch_size=batch_size))
    assert turned == pytest.approx(found, abs=1e-6)


class OfLatents(gx.Explainer):
    explains, accepts, returns = "generator", "latents", gx.Attribution

    def _explain(self, model, latents, target):
        raise NotImplementedError


class Placed(gx.Explainer):
    """Maps of global random numbers, as a library's noise may be, times the image."""

    explains, accepts, returns, stochastic = "discriminator", "images", gx.Attribution, True

    def _explain(self, model, images, target):
        return gx.Attribution(images[:, 0] * torch.randn_like(images[:, 0]), target)


def test_an_explainers_own_noise_does_not_count(oracles):
    """Were each image explained with other numbers, the map would move by more than its length."""
    model, images = oracles.Sum(), oracles.images_of(4)
    metric = metric_of(Placed(), radius=0.005, samples=4)
    found = metric.measure(model=model, explanation=Placed().explain(model, images), runtime=QUIET)
    assert 0 < found["max_sensitivity"] < 0.1
    again = metric.measure(model=model, explanation=Placed().explain(model, images), runtime=QUIET.with_(batch_size=2))
    assert again == found


def test_a_map_of_zeros_is_not_nan(oracles):
    class Nothing(Placed):
        stochastic = False

        def _explain(self, model, images, target):
            return gx.Attribution(images[:, 0] * 0 + (images[:, 0] > 2), target)

    images = oracles.images_of(3)
    made = oracles.explained(torch.zeros(3, 6, 6), images)
    with pytest.warns(gx.GenxaiWarning, match="every map is exactly zero"):
        found = metric_of(Nothing()).measure(model=oracles.Sum(), explanation=made, runtime=QUIET)
    assert found["max_sensitivity"] == 0


def test_what_does_not_fit_is_refused(oracles):
    model, images = oracles.Sum(), oracles.images_of(3)
    with pytest.raises(InputError, match=r"not what Saliency makes of this model \(its maps differ by 200 %\)"):
        metric_of(gx.Spec("explainer/saliency")).measure(
            model=model, explanation=oracles.explained(-torch.ones(3, 6, 6), images)
        )
    with pytest.raises(BadParameter, match="a OfLatents does not make maps of images"):
        metric_of(OfLatents())
    with pytest.raises(BadParameter, match="does not fit Spec"):
        metric_of(gx.create("dataset/digits"))
    with pytest.raises(BadParameter, match="radius 0"):
        metric_of(gx.Spec("explainer/saliency"), radius=0.0)
