"""One class against another: closed forms, completeness by steps that suffice, what is told, and the planted truth."""

from __future__ import annotations

import warnings

import pytest
import torch
from genxai_ganmex.attribution import GanmexAttribution, Given, Pair
from genxai_ganmex.counterfactual import NOT_FLIPPED, Counterfactuals
from torch import nn

from genxai_core import Discriminator, Explanation, Runtime, Samples, Spec, create, draws
from genxai_core.errors import ExplainerError, GenxaiWarning, InputError, NotInstalled, TargetError
from genxai_core.testing.fixtures import isolated
from genxai_core.testing.models import QuadraticDiscriminator

QUIET = Runtime(device="cpu", quiet=True)


def images(n=5, seed=0):
    return 0.3 * draws.normal(seed, range(n), (1, 16, 16)).clamp(-3, 3)


class Linear(Discriminator):
    """Logits of three classes, linear in the pixels, or bent."""

    class_names = ("a", "b", "c")
    image_shape = (1, 16, 16)

    def __init__(self, bend=0.0):
        super().__init__()
        self.weight = nn.Parameter(draws.normal(0, range(3), (256,), "weights") / 8)
        self.bend = bend

    def forward(self, images):
        logits = images.flatten(1) @ self.weight.T
        return logits if not self.bend else logits + torch.tanh(self.bend * logits)


def literal(model, x, b, one, other, steps):
    """Integrate the gradient of a difference by the midpoint rule, one image and one step at a time."""
    maps = torch.zeros_like(x)
    for i in range(len(x)):
        for k in range(steps):
            at = (b[i] + (k + 0.5) / steps * (x[i] - b[i]))[None].detach().requires_grad_()
            logits = model(at)[0]
            (gradient,) = torch.autograd.grad(logits[one] - logits[int(other[i])], at)
            maps[i] += (x[i] - b[i]) * gradient[0] / steps
    return maps


def test_of_linear_classes_it_is_the_change_times_the_difference_of_weights():
    model, x = Linear(), images()
    found = GanmexAttribution(Counterfactuals()).explain(model, x, target=0, runtime=QUIET)
    weight = model.weight.detach()
    for i in range(5):
        w = (weight[0] - weight[int(found.against[i])]).view(1, 16, 16)
        torch.testing.assert_close(found.maps[i], (x[i] - found.baseline[i]) * w, rtol=0, atol=1e-5)
    logits = model(x).detach()
    expected = logits[:, 0] - logits.gather(1, found.against[:, None])[:, 0]
    torch.testing.assert_close(found.logits, expected)
    assert found.against.tolist() == [1 + int(row[2] > row[1]) for row in logits]  # the best of the others
    assert bool(found.complete.all())


def test_of_one_quadratic_logit_it_is_the_closed_form():
    model, x = QuadraticDiscriminator().eval(), images()
    found = GanmexAttribution(Counterfactuals()).explain(model, x, runtime=QUIET)
    b = found.baseline
    expected = (x - b) * (model.linear + model.curvature * (x + b) / 2).detach()
    torch.testing.assert_close(found.maps, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.maps.flatten(1).sum(1), model(x)[:, 0].detach(), rtol=0, atol=2e-3)  # f(B) ≈ 0
    assert found.against.tolist() == [0] * 5


def test_of_a_bent_classifier_it_is_the_literal_integral():
    model, x = Linear(bend=2.0), images(3)
    method = GanmexAttribution(Counterfactuals(margin=1.0), against=2)
    found = method.explain(model, x, target=1, runtime=QUIET)
    expected = literal(model, x, found.baseline, 1, found.against, 400)
    torch.testing.assert_close(found.maps, expected, rtol=0, atol=1e-3)


def test_the_baseline_is_across_the_boundary_of_the_two():
    model, x = Linear(), images(12)
    found = GanmexAttribution(Counterfactuals(), against=1).explain(model, x, target=0, runtime=QUIET)
    with torch.no_grad():
        before, after = model(x), model(found.baseline)
    rather = before[:, 0] >= before[:, 1]
    assert 0 < int(rather.sum()) < 12
    assert after.argmax(1).tolist() == [1 if r else 0 for r in rather.tolist()]
    sums = found.maps.flatten(1).sum(1)
    assert [s > 0 for s in sums.tolist()] == rather.tolist()  # what speaks for the target, or keeps from it


# -- completeness -------------------------------------------------------------------------------------------------


def bent(**more):
    return GanmexAttribution("noise", against=1, tolerance=1e-3, steps=2, **more)


def test_steps_are_doubled_image_by_image_until_the_sum_holds():
    model, x = Linear(bend=3.0), images(8)
    found = bent().explain(model, x, target=0, runtime=QUIET)
    with torch.no_grad():
        gap = [(lambda f: f[:, 0] - f[:, 1])(model(at)) for at in (x, found.baseline)]
    off = found.maps.double().flatten(1).sum(1) - (gap[0] - gap[1]).double()
    assert bool((off.abs() <= 1e-3 * (gap[0] - gap[1]).abs() + 1e-3 * 1e-2).all())
    torch.testing.assert_close(found.delta, off.float(), rtol=0, atol=1e-5)
    assert len(set(found.steps.tolist())) > 1  # not the worst image's steps for all
    for i in range(8):
        alone = bent().explain(model, x[i : i + 1], target=0, runtime=QUIET)
        assert int(alone.steps) == int(found.steps[i])
        torch.testing.assert_close(alone.maps[0], found.maps[i], rtol=0, atol=1e-5)
        fewer = int(found.steps[i]) // 2
        if fewer >= 2:  # with half the steps it did not hold
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GenxaiWarning)
                half = bent(max_steps=fewer).explain(model, x[i : i + 1], target=0, runtime=QUIET)
            assert not bool(half.complete)


def test_what_does_not_sum_up_is_told():
    with pytest.warns(GenxaiWarning, match=r"maps do not sum .* in 2 steps; raise max_steps"):
        found = bent(max_steps=2).explain(Linear(bend=3.0), images(8), target=0, runtime=QUIET)
    assert not bool(found.complete.all())
    assert found.summary()["complete"] == f"{int(found.complete.sum())} of 8"


def test_steps_that_the_method_sets_stay():
    method = Spec("explainer/integrated-gradients", {"steps": 6})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GenxaiWarning)
        found = GanmexAttribution("mid", method=method).explain(Linear(bend=3.0), images(), target=0, runtime=QUIET)
    assert found.notes["steps"] == 6
    assert found.steps is None


# -- methods and baselines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deeplift", "gradient-shap", "occlusion"])
def test_other_methods_get_the_same_baseline(name):
    model, x = Linear(), images(4)
    counterfactual = Counterfactuals()
    method = Spec(f"explainer/{name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GenxaiWarning)
        found = GanmexAttribution(counterfactual, against=1, method=method).explain(model, x, target=0, runtime=QUIET)
    with torch.no_grad():
        goal = torch.where(model(x)[:, 0] >= model(x)[:, 1], 1, 0)
    made = counterfactual.make(model, x, goal)
    for i in range(4):
        alone = create(f"explainer/{name}", baseline=made[i])
        expected = alone.explain(Pair(model, 0, 1), x[i : i + 1], target=0, runtime=QUIET)
        torch.testing.assert_close(found.maps[i], expected.maps[0], rtol=0, atol=1e-4)
    assert (found.complete is None) == (name == "occlusion")


def test_samples_are_the_references_of_deeplift_shap():
    model, x = Linear(), images(3)
    references = Samples(images(4, seed=5), value_range=(-1.0, 1.0))
    method = GanmexAttribution(references, against=2, method=Spec("explainer/deeplift-shap"))
    found = method.explain(model, x, target=0, runtime=QUIET)
    w = (model.weight[0] - model.weight[2]).detach().view(1, 16, 16)
    torch.testing.assert_close(found.maps, (x - references.images.mean(0)) * w, rtol=0, atol=1e-4)
    assert found.failures is None


def test_failed_counterfactuals_are_told():
    class Away(nn.Module):
        value_range = (-1.0, 1.0)

        def translate(self, images, target):
            return images.flip(3)

    model, x = Linear(), images(6)
    found = GanmexAttribution(Counterfactuals("ganmex", Away())).explain(model, x, target=0, runtime=QUIET)
    assert NOT_FLIPPED in found.failures
    assert found.table()[found.failures.index(NOT_FLIPPED)]["failure"] == NOT_FLIPPED
    assert found.summary()["baselines that failed"] == f"{sum(map(bool, found.failures))} of 6"


def test_a_result_is_saved_with_all_that_it_tells(tmp_path):
    found = GanmexAttribution(Counterfactuals()).explain(Linear(), images(), target=0, runtime=QUIET)
    again = Explanation.load(found.save(tmp_path / "maps"))
    assert again.failures == found.failures
    assert again.against.tolist() == found.against.tolist()
    assert again.notes["baseline"] == "Counterfactuals (gradient)"


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"tolerance": 0.0}, "tolerance 0.0 must be above 0"),
        ({"steps": 8, "max_steps": 4}, "at most max_steps 4"),
        ({"method": Spec("explainer/saliency")}, "takes no baseline"),
        ({"method": Spec("explainer/deeplift", {"baseline": "zero"})}, "sets a baseline of its own"),
    ],
)
def test_what_does_not_fit_is_refused(params, said):
    with pytest.raises(ValueError, match=said):
        GanmexAttribution(**params)


@pytest.mark.parametrize("against", [0, 3, -1])
def test_another_class_is_needed_on_the_other_side(against):
    with pytest.raises(TargetError, match=r"must be another of 0…2"):
        GanmexAttribution("mid", against=against).explain(Linear(), images(), target=0, runtime=QUIET)


def test_a_single_logit_has_no_class_to_name():
    with pytest.raises(TargetError, match="only logit's opposite"):
        GanmexAttribution("mid", against=0).explain(QuadraticDiscriminator().eval(), images(), runtime=QUIET)


def test_a_method_that_is_not_installed_is_named_with_its_command():
    with isolated(), pytest.raises(NotInstalled, match=r"genxai-attribution, .* pip install"):
        GanmexAttribution("mid")


def test_known_references_serve_their_own_images_only():
    with pytest.raises(InputError, match="one reference per image"):
        Given(images(3)).baseline(images(2))


def test_a_result_needs_integers_for_classes():
    found = GanmexAttribution("mid").explain(Linear(), images(), target=0, runtime=QUIET)
    with pytest.raises(ExplainerError, match="against must be integers"):
        type(found)(maps=found.maps, against=found.logits)


# -- the truth ----------------------------------------------------------------------------------------------------


def test_it_finds_the_change_that_was_planted_and_zero_does_not():
    bench = create(
        "explainer/bench",
        contestants=(
            Spec("explainer/ganmex-attribution"),
            Spec("explainer/ganmex-attribution", {"baseline": "zero"}),
            Spec("explainer/ganmex-attribution", {"baseline": "blur"}),
        ),
        tasks=("counterfactual-attribution",),
        seeds=2,
    )
    board = bench.explain(runtime=QUIET)
    task = "counterfactual-attribution"
    ours, zero, blur = (
        next(n for n in board.contestants(task) if "ganmex" in n and mark(n))
        for mark in (lambda n: "zero" not in n and "blur" not in n, lambda n: "zero" in n, lambda n: "blur" in n)
    )
    for seed, iou in board.scores(task, ours, "iou").items():
        assert iou >= 2 * board.scores(task, zero, "iou")[seed]
        assert iou >= 2 * board.scores(task, blur, "iou")[seed]
    assert min(board.scores(task, ours, "correlation").values()) > 0.999
