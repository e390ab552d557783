"""Counterfactuals against closed forms and literal loops; what fails is told; baselines of attributions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from genxai_ganmex import classes
from genxai_ganmex.counterfactual import (
    ALREADY,
    COLLAPSED,
    DECEIVED,
    INVISIBLE,
    NOT_FLIPPED,
    Counterfactuals,
)
from torch import nn

from genxai_core import Discriminator, Runtime, Samples, Spec, create, draws
from genxai_core.errors import BadParameter, GenxaiError, GenxaiWarning, InputError, MissingCapability, NotInstalled
from genxai_core.testing.data import PatchDataset
from genxai_core.testing.models import LinearDiscriminator, LinearGenerator, PatchDiscriminator
from genxai_core.testing.states import changed, state_of

QUIET = Runtime(device="cpu", quiet=True)
DATA = PatchDataset(16)[:]


def images(n=5, seed=0, channels=1):
    return 0.3 * draws.normal(seed, range(n), (channels, 16, 16)).clamp(-3, 3)


class Linear(Discriminator):
    """Logits that are linear in the pixels, random and of no special order."""

    def __init__(self, classes=3, seed=0, value_range=(-1.0, 1.0)):
        super().__init__()
        self.class_names = tuple(f"class {k}" for k in range(classes))
        self.value_range, self.image_shape = value_range, (1, 16, 16)
        self.weight = nn.Parameter(draws.normal(seed, range(classes), (256,), "weights") / 8)

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


CALLS = []
"""Least and largest pixel, and number of images, of each call of a translator; a module's own list is put back."""


class Shift(nn.Module):
    """Translates by adding a number where the target is 1, and taking it away where it is not; in its own range."""

    value_range = (0.0, 1.0)

    def __init__(self, by):
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def translate(self, images, target):
        CALLS.append((float(images.min()), float(images.max()), len(images)))
        return images + self.by * (2.0 * target.view(-1, 1, 1, 1) - 1)


# -- what logits say ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 5])
def test_leads_and_runners_up_are_those_of_a_literal_loop(k):
    logits = draws.normal(1, range(20), (k,))
    target = torch.arange(20) % max(2, k)
    seen = classes.seen(logits).tolist()
    other = classes.best_other(logits, torch.tensor(seen)).tolist()
    for i, row in enumerate(logits.tolist()):
        full = [-row[0] / 2, row[0] / 2] if k == 1 else row  # one logit is the difference of two
        order = sorted(range(len(full)), key=lambda c: -full[c])
        assert (seen[i], other[i]) == (order[0], order[1])
        t = int(target[i])
        lead = full[t] - max(v for c, v in enumerate(full) if c != t)
        assert float(classes.lead(logits, target)[i]) == pytest.approx(lead, abs=1e-5)
        p = np.exp(full[t]) / sum(np.exp(full))
        assert float(classes.log_odds(logits, target)[i]) == pytest.approx(np.log(p / (1 - p)), abs=1e-4)


# -- makers -------------------------------------------------------------------------------------------------------


def test_gradient_of_two_linear_classes_is_the_projection_on_their_boundary():
    model, x = Linear(2), images()
    result = Counterfactuals().explain(model, x, runtime=QUIET)
    w = (model.weight[1] - model.weight[0]).detach()
    assert bool(result.valid.all())
    for before, after in zip(x.flatten(1), result.counterfactuals.flatten(1)):
        expected = before - (before @ w) / (w @ w) * w
        torch.testing.assert_close(after, expected, rtol=0, atol=2e-3)


def test_margin_is_the_log_odds_that_are_reached():
    model, x = Linear(4), images()
    result = Counterfactuals(margin=3.0).explain(model, x, target=2, runtime=QUIET)
    odds = classes.log_odds(result.logits_after, torch.full((5,), 2))
    assert 3.0 <= float(odds.min()) <= float(odds.max()) < 3.1


def test_realism_pulls_as_far_as_the_multiplier_says():
    # ½|z − x|² − λ(1 − |z|²)… with R of a quadratic bowl: without the class the answer is x / (1 + 2λ)
    class Bowl(nn.Module):
        value_range = (-1.0, 1.0)

        def log_prob(self, images):
            return -images.flatten(1).square().sum(1)

    model, x, weight = Linear(2), images(), 0.2
    plain = Counterfactuals().explain(model, x, runtime=QUIET)
    found = Counterfactuals(realism=Bowl(), realism_weight=weight, steps=80).explain(model, x, runtime=QUIET)
    w = (model.weight[1] - model.weight[0]).detach()
    for before, after in zip(x.flatten(1), found.counterfactuals.flatten(1)):
        pulled = before / (1 + 2 * weight)
        expected = pulled - (pulled @ w) / (w @ w) * w
        torch.testing.assert_close(after, expected, rtol=0, atol=5e-3)
    torch.testing.assert_close(found.realism, -found.counterfactuals.flatten(1).square().sum(1))
    assert bool((found.realism > -plain.counterfactuals.flatten(1).square().sum(1)).all())
    assert found.notes["realism"] == "log p(x), in nats, which made them too"


def test_mdts_is_the_nearest_of_the_class_by_a_literal_loop():
    x = images()
    result = Counterfactuals("mdts", data=DATA).explain(PatchDiscriminator().eval(), x, runtime=QUIET)
    for i in range(len(x)):
        rows = [r for r in range(len(DATA)) if int(DATA.labels[r]) == int(result.target[i])]
        best = min(rows, key=lambda r: float((DATA.images[r] - x[i]).square().sum()))
        assert torch.equal(result.counterfactuals[i], DATA.images[best])
    assert torch.equal(result.realism, torch.zeros(5))  # it is one of the data
    assert result.target.tolist() == [1 - s for s in result.source.tolist()]  # one logit: the opposite


def test_class_mean_is_the_mean_whatever_range_the_data_are_in():
    data = DATA.rescale((0.0, 1.0))
    result = Counterfactuals("class-mean", data=data).explain(PatchDiscriminator().eval(), images(), runtime=QUIET)
    for i in range(5):
        expected = DATA.images[DATA.labels == result.target[i]].mean(0)
        torch.testing.assert_close(result.counterfactuals[i], expected, rtol=0, atol=1e-6)


def test_ganmex_translates_in_the_generators_range_in_one_pass():
    generator, x = Shift(0.1), images()
    CALLS.clear()
    result = Counterfactuals("ganmex", generator).explain(Linear(2), x, target=1, runtime=QUIET)
    torch.testing.assert_close(result.counterfactuals, x + 0.2)  # 0.1 of (0, 1) is 0.2 of (-1, 1)
    assert len(CALLS) == 1
    assert CALLS[0][0] == pytest.approx(float((x.min() + 1) / 2), abs=1e-6)


def test_vae_is_the_least_change_of_the_latent():
    generator, model = LinearGenerator(), LinearDiscriminator().eval()
    z = generator.sample_latents(6, seed=2)
    x = generator(z).detach()
    result = Counterfactuals("vae", generator).explain(model, x, runtime=QUIET)
    with torch.no_grad():
        at = model(generator(torch.cat([torch.zeros(1, 4), torch.eye(4)])))[:, 0]
    slope, offset = at[1:] - at[0], at[0]  # of the logit by the latent, which is linear
    for row, made in zip(z, result.counterfactuals):
        expected = row - (row @ slope + offset) / (slope @ slope) * slope
        torch.testing.assert_close(generator.encode(made[None])[0], expected, rtol=0, atol=1e-2)
    assert bool(result.valid.all())


def test_all_targets_are_made_in_one_pass():
    generator, x = Shift(0.1), images(3)
    method = Counterfactuals("ganmex", generator, classifier=Linear(2))
    CALLS.clear()
    found = method.all_targets(x)
    assert found.shape == (3, 2, 1, 16, 16)
    torch.testing.assert_close(found[:, 0], x - 0.2)
    torch.testing.assert_close(found[:, 1], x + 0.2)
    assert [n for _, _, n in CALLS] == [6]


# -- what is asked, and what is told ------------------------------------------------------------------------------


def test_no_target_is_the_second_class_of_each():
    model, x = Linear(4), images(9)
    result = Counterfactuals().explain(model, x, runtime=QUIET)
    with torch.no_grad():
        order = model(x).argsort(1, descending=True)
    assert result.target.tolist() == order[:, 1].tolist()
    assert result.source.tolist() == order[:, 0].tolist()
    assert len(set(result.target.tolist())) > 1


def test_what_is_refused_on_the_way_to_the_second_class_is_refused_by_name():
    with pytest.raises(InputError, match=r"^explainer/counterfactual: inputs hold NaN"):
        create("explainer/counterfactual").explain(Linear(3), images() * float("nan"))


def planted(by, **more):
    """Counterfactuals by brightness, of a classifier of a patch's brightness."""
    return Counterfactuals("ganmex", Shift(by), **more)


def test_each_failure_is_named_and_counted():
    model = PatchDiscriminator(patch=(0, 0, 16)).eval()
    dark = torch.full((1, 1, 16, 16), -0.1)
    assert planted(0.1).explain(model, dark, runtime=QUIET).reasons == ("",)
    assert planted(0.03).explain(model, dark, runtime=QUIET).failures == (NOT_FLIPPED,)
    assert planted(0.005).explain(model, dark, runtime=QUIET).failures == (COLLAPSED,)
    assert planted(0.005).explain(model, dark / 20, runtime=QUIET).failures == (INVISIBLE,)
    both = planted(0.1).explain(model, torch.cat([dark, dark / 20, dark]), runtime=QUIET)
    assert both.summary()["valid"] == "3 of 3"


def test_a_witness_that_is_not_convinced_tells_who_is_deceived():
    model, x = Linear(3), images(8)
    alike = Counterfactuals(witness=Linear(3)).explain(model, x, target=1, runtime=QUIET)
    other = Counterfactuals(witness=Linear(3, seed=9)).explain(model, x, target=1, runtime=QUIET)
    with torch.no_grad():
        sees = Linear(3, seed=9)(other.counterfactuals).argmax(1) == 1
    meant = alike.source != 1
    assert [r == DECEIVED for r in other.failures] == (meant & ~sees).tolist()
    assert DECEIVED in other.failures
    assert DECEIVED not in alike.failures
    assert [r == ALREADY for r in alike.failures] == (~meant).tolist()
    assert any(name.startswith("failed") for name in other.summary())


def test_a_witness_of_another_range_sees_the_same_image():
    model, x = Linear(3), images(8)

    class Other(Linear):
        def forward(self, images):
            return super().forward(images * 2 - 1)

    here = Counterfactuals(witness=Linear(3, seed=9)).explain(model, x, target=1, runtime=QUIET)
    there = Counterfactuals(witness=Other(3, seed=9, value_range=(0.0, 1.0))).explain(model, x, target=1, runtime=QUIET)
    assert here.failures == there.failures


def test_realism_without_a_model_is_the_distance_to_the_data():
    result = Counterfactuals(data=DATA).explain(PatchDiscriminator().eval(), images(), runtime=QUIET)
    for made, realism in zip(result.counterfactuals, result.realism):
        away = min(float((made - known).square().mean().sqrt()) for known in DATA.images)
        assert float(realism) == pytest.approx(-away / 2, abs=1e-6)
    assert Counterfactuals().explain(PatchDiscriminator().eval(), images(), runtime=QUIET).realism is None


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"maker": "magic"}, "not one of gradient, ganmex"),
        ({"maker": "ganmex"}, "needs generator"),
        ({"maker": "mdts"}, "needs data"),
        ({"generator": LinearGenerator()}, "uses no generator"),
        ({"steps": 0}, "steps 0 must be at least 1"),
        ({"visible": 1.0}, "visible 1.0 at least 0 and below 1"),
        ({"realism_weight": 0.1}, "realism_weight belongs to"),
        ({"realism": nn.Identity()}, "neither a model with log_prob"),
        ({"witness": nn.Identity()}, "witness: a Identity is no classifier"),
    ],
)
def test_what_does_not_fit_is_refused(params, said):
    with pytest.raises(ValueError, match=said):
        Counterfactuals(**params)


def test_a_maker_is_refused_in_a_pipelines_words():
    with pytest.raises(BadParameter, match="maker"):
        create("explainer/counterfactual", maker="magic")


@pytest.mark.parametrize(
    ("method", "error", "said"),
    [
        (lambda: Counterfactuals("ganmex", LinearGenerator()), MissingCapability, "Translates"),
        (lambda: Counterfactuals("vae", Shift(0.1)), MissingCapability, "HasEncoder"),
        (
            lambda: Counterfactuals("mdts", data=DATA[::2]),
            InputError,
            "no image of the data is of class 0",
        ),
        (lambda: Counterfactuals("mdts", data=Samples(DATA.images, value_range=(-1, 1))), InputError, "have no labels"),
        (lambda: Counterfactuals("mdts", data=PatchDataset(8, size=20)), InputError, "bring them to one size"),
        (lambda: planted(float("nan")), InputError, "made NaN"),
        (lambda: Counterfactuals(witness=Linear(3)), InputError, "must know the same classes"),
    ],
)
def test_what_cannot_be_made_is_refused(method, error, said):
    bright = PatchDataset(6)[:].images
    with pytest.raises(error, match=said):
        method().explain(PatchDiscriminator().eval(), bright, runtime=QUIET)


# -- as a baseline ------------------------------------------------------------------------------------------------


def test_a_baseline_needs_the_classifier_and_tells_what_failed():
    x = images()
    with pytest.raises(InputError, match="needs the classifier that is explained"):
        Counterfactuals().baseline(x)
    model = Linear(3)
    method = Counterfactuals(classifier=model, visible=0.0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        made = method.baseline(x)
        second = model(x).argsort(1, descending=True)[:, 1]
        assert model(made).argmax(1).tolist() == second.tolist()
    with pytest.warns(GenxaiWarning, match="of 5 baselines failed is the target already"):
        Counterfactuals(classifier=model, toward=int(model(x)[0].argmax())).baseline(x)
    with pytest.raises(InputError, match="target 7 is outside"):
        Counterfactuals(classifier=model, toward=7).baseline(x)


def test_a_baseline_leaves_its_models_as_they_were():
    model, generator = Linear(2).train(), Shift(0.2)
    model.weight.grad = torch.ones_like(model.weight)
    before = state_of(model, generator)
    method = Counterfactuals("ganmex", generator, classifier=model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GenxaiWarning)
        method.baseline(images())
    assert not changed(before, state_of(model, generator))


def test_attributions_take_it_as_their_baseline_by_name():
    model, x = Linear(2), images()
    spec = Spec("explainer/counterfactual", {"maker": "mdts", "data": DATA, "classifier": model})
    try:
        method = create("explainer/integrated-gradients", baseline=spec, steps=4)
    except NotInstalled:
        pytest.skip("genxai-attribution is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GenxaiWarning)
        found = method.explain(model, x, target=0, runtime=QUIET)
        made = spec.build().baseline(x)
    assert torch.equal(found.baseline, made)
    torch.testing.assert_close(found.maps, (x - made) * model.weight[0].detach().view(1, 16, 16), rtol=0, atol=1e-5)


# -- the truth ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["counterfactual-linear", "counterfactual-quadratic"])
def test_the_planted_least_change_is_found(task):
    try:
        bench = create(
            "explainer/bench",
            contestants=(Spec("explainer/counterfactual"), Spec("explainer/counterfactual", {"maker": "mdts"})),
            tasks=(task,),
            seeds=2,
        )
    except GenxaiError as error:
        pytest.skip(str(error))
    board = bench.explain(runtime=QUIET)
    names = board.contestants(task)
    gradient = next(name for name in names if "mdts" not in name and "counterfactual" in name)
    nearest = next(name for name in names if "mdts" in name)
    assert min(board.scores(task, gradient, "quality").values()) > 0.999
    assert max(board.scores(task, gradient, "off-target").values()) < 1e-6
    assert min(board.scores(task, nearest, "validity").values()) == 1.0
    assert max(board.scores(task, nearest, "off-target").values()) > 0.9
