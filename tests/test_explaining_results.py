"""What an explainer accepts and what it may return; metrics and trainers share its guard."""

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from explained_models import Grad, Linear, Makes, Numbers, explainer, images, same
from torch import nn

import genxai_core as gx
from genxai_core import (
    Attribution,
    Component,
    Explainer,
    Explanation,
    Runtime,
    Samples,
    explaining,
)
from genxai_core.errors import ExplainerError, GenxaiWarning, InputError, TargetError
from genxai_core.plugins import Plugin, PluginHost
from genxai_core.registry import Registry, using

# -- accepts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Score(Explanation):
    type_name: ClassVar[str] = "score"
    value: torch.Tensor


@dataclass(frozen=True, eq=False)
class Codes(Explanation):
    type_name: ClassVar[str] = "codes"
    per_sample: ClassVar[tuple[str, ...]] = ("codes",)
    codes: torch.Tensor


def test_nothing():
    mine = explainer(lambda m, i, t: Score(m.scale * 2), accepts="nothing", returns=Score)
    result = mine.explain(Linear())
    assert result.value.tolist() == [2.0]
    assert not result.value.requires_grad
    with pytest.raises(InputError, match="takes no inputs"):
        mine.explain(Linear(), images())
    with pytest.raises(ExplainerError, match="declares returns = Score, but returned Codes"):
        explainer(lambda m, i, t: Codes(m.scale), accepts="nothing", returns=Score).explain(Linear())
    with pytest.raises(TargetError):
        mine.explain(Linear(), target=[1])


def test_a_whole_dataset():
    seen = []

    def whole(model, data, target):
        seen.append((data, target))
        return Score(model(data[:].images).sum() + torch.zeros((), requires_grad=True))

    mine = explainer(whole, accepts="dataset", returns=Score)
    data = Numbers()
    result = mine.explain(Linear(), data)
    assert seen == [(data, 0)], "one logit: target 0, as everywhere"
    assert not result.value.requires_grad
    assert result.provenance["inputs"] == 5
    mine.explain(Linear(3), data, target=2)
    assert seen[-1][1] == 2
    for bad, error in (
        (None, "needs inputs"),
        (images(), "not a tensor"),
        ([1], "not list"),
        (Numbers(n=0), "empty"),
        (Numbers(value_range=(0.0, 1.0)), r"\(0\.0, 1\.0\)"),
    ):
        with pytest.raises(InputError, match=error):
            mine.explain(Linear(), bad)
    with pytest.raises(TargetError, match="3 outputs"):
        mine.explain(Linear(3), data)
    with pytest.raises(TargetError, match="out of range"):
        mine.explain(Linear(3), data, target=3)


def test_latents():
    mine = explainer(lambda g, z, t: Codes(z * 2), explains="HasLatents", accepts="latents", returns=Codes)
    z = torch.randn(5, 2)
    assert torch.equal(mine.explain(Makes(), z, runtime=Runtime(batch_size=2)).codes, z * 2)
    with_latents = Samples(images(), latents=z, value_range=(-1, 1))
    assert torch.equal(mine.explain(Makes(), with_latents).codes, z * 2)
    with pytest.raises(InputError, match=r"latents are \(3,\), the model takes"):
        mine.explain(Makes(), torch.zeros(2, 3))
    with pytest.raises(InputError, match="these samples have no latents"):
        mine.explain(Makes(), Samples(images(), value_range=(-1, 1)))
    with pytest.raises(InputError, match="NaN"):
        mine.explain(Makes(), z * math.nan)


def test_maps_made_from_latents_are_not_held_against_the_latents_shape():
    def maps(generator, z, target):
        return Attribution(generator(z)[:, 0], images=generator(z))

    mine = explainer(maps, explains="generator", accepts="latents")
    result = mine.explain(Makes(), torch.randn(5, 2))
    assert result.maps.shape == (5, 3, 3)
    assert result.images.shape == (5, 1, 3, 3)
    assert result.logits is None


def test_samples_bring_what_is_known_of_them():
    seen = []

    def labels(model, samples, target):
        seen.append(samples.labels.tolist())
        return Attribution(samples.images.sum(1))

    given = Samples(images(), labels=torch.arange(5), value_range=(-1, 1))
    explainer(labels, accepts="samples").explain(Linear(), given, runtime=Runtime(batch_size=2))
    assert seen == [[0, 1], [2, 3], [4]]
    with pytest.raises(InputError, match="takes samples, not a tensor; wrap it"):
        explainer(labels, accepts="samples").explain(Linear(), images())


# -- what comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda x: x.sum(1), "declares returns = Attribution, but returned Tensor"),
        (lambda x: None, "returned NoneType"),
        (lambda x: Codes(x), "returned Codes"),
        (lambda x: Attribution(x.sum(1)[:-1]), "returned 4 results for 5 inputs"),
        (lambda x: Attribution(x.mean(1)[:, :2]), r"returned maps \[5, 2, 6\] for images \[5, 3, 4, 6\]; bring them"),
        (lambda x: Attribution(x.sum(1) * math.nan), "NaN or infinity in its maps"),
        (lambda x: Attribution(x.sum(1) / 0), "NaN or infinity in its maps"),
        (lambda x: Attribution(x.sum((1, 2))), r"maps must be \[N, H, W\]"),
        (lambda x: Attribution(x.sum(1), logits=x[:2, 0, 0, 0]), "logits has 2 rows for 5 maps"),
    ],
)
def test_what_the_contract_forbids_is_an_explainer_error(returned, said):
    with pytest.raises(ExplainerError, match=said) as caught:
        explainer(lambda m, x, t: returned(x)).explain(Linear(), images())
    assert len(str(caught.value).splitlines()) == 1


def test_results_that_cannot_be_joined_are_told():
    mine = explainer(lambda m, x, t: Score(x.sum()), returns=Score)
    assert mine.explain(Linear(), images()).value.ndim == 0
    with pytest.raises(ExplainerError, match="declares no per_sample fields"):
        mine.explain(Linear(), images(), runtime=Runtime(batch_size=2))


def test_maps_that_are_all_zero_are_warned_about_and_others_are_not():
    with pytest.warns(GenxaiWarning, match="every map is exactly zero"):
        explainer(lambda m, x, t: Attribution(torch.zeros(len(x), 4, 6))).explain(Linear(), images())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Grad().explain(Linear(), images())


def test_results_are_detached_on_the_cpu_in_full_precision():
    def deep(model, x, target):
        x.requires_grad_()
        return Attribution(
            (x * x).sum(1).bfloat16(), notes={"inner": [x * 1, (x.half(),)]}, baseline=x * 0, delta=x.sum((1, 2, 3))
        )

    result = explainer(deep).explain(Linear(), images())
    inner, (half,) = result.notes["inner"]
    for t in (result.maps, result.baseline, result.delta, result.logits, result.images, inner, half):
        assert not t.requires_grad
        assert t.grad_fn is None
        assert t.dtype == torch.float32
    assert isinstance(result.notes["inner"][1], tuple)


def test_the_author_is_asked_with_gradients_on_and_gets_the_runtime_if_wanted():
    class Wants(Grad):
        def _explain(self, model, images, target, runtime):
            assert torch.is_grad_enabled()
            assert not any(p.requires_grad for p in model.parameters())
            assert not any(m.training for m in model.modules())
            self.seen = runtime
            return super()._explain(model, images, target)

    wants = Wants()
    with torch.no_grad():
        wants.explain(Linear().train(), images(), runtime=Runtime(seed=9, batch_size=3))
    assert (wants.seen.seed, wants.seen.batch_size, wants.seen.device) == (9, 3, "cpu")


def test_inference_mode_around_it_does_not_matter():
    model = Linear()
    with torch.inference_mode():
        result = Grad().explain(model, images())
    assert same(result, Grad().explain(Linear(), images()))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 64])
def test_one_at_a_time_equals_batched(batch_size):
    torch.manual_seed(0)
    whole = Grad().explain(Linear(2), images(), target=1)
    result = Grad().explain(Linear(2), images(), target=1, runtime=Runtime(batch_size=batch_size))
    assert torch.allclose(result.maps, whole.maps, atol=1e-7)
    assert torch.allclose(result.logits, whole.logits, atol=1e-6)
    assert torch.equal(result.images, whole.images)


def test_what_a_library_leaves_behind_does_not_reach_the_next_batch():
    class Dropping(Linear):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, images):
            return super().forward(self.drop(images))

    def careless(model, x, target):
        result = Grad()._explain(model, x, target)
        model.train().requires_grad_(True)
        return result

    model, runtime = Dropping(), Runtime(batch_size=1)
    result = explainer(careless).explain(model, images(), runtime=runtime)
    assert same(result, Grad().explain(model, images(), runtime=runtime))


def test_noise_is_seeded_and_leaves_the_callers_generators_alone():
    noisy = explainer(lambda m, x, t: Attribution(torch.rand(len(x), 4, 6) + float(np.random.rand())))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    one = noisy.explain(Linear(), images(), runtime=Runtime(seed=4, batch_size=2))
    assert torch.equal(torch.rand(3), expected)
    two = noisy.explain(Linear(), images(), runtime=Runtime(seed=4, batch_size=2))
    assert torch.equal(one.maps, two.maps)
    assert not torch.equal(noisy.explain(Linear(), images(), runtime=Runtime(seed=5, batch_size=2)).maps, one.maps)
    assert not torch.equal(one.maps[0], one.maps[2]), "every batch has noise of its own"


class Fails(Explainer):
    explains, accepts, returns = "discriminator", "images", Attribution

    def __init__(self, helper, error=None):
        self.helpers = {"nested": [helper]}
        self.error = error

    def _explain(self, model, images, target):
        for module in (model, self.helpers["nested"][0]):
            assert not module.training
            module.train()
            module.scale.data.fill_(7)
            module.scale.grad = torch.ones(1)
        if self.error:
            raise self.error
        return Attribution(images.sum(1))


@pytest.mark.parametrize("error", [None, RuntimeError("in the middle"), KeyboardInterrupt()])
def test_the_explainee_and_what_the_explainer_holds_are_left_as_they_were(error):
    model, helper = Linear(), Linear()
    mine = Fails(helper, error)
    if error:
        with pytest.raises(type(error)):
            mine.explain(model, images())
    else:
        mine.explain(model, images())
    for module in (model, helper):
        assert module.training
        assert module.scale.tolist() == [1.0]
        assert module.scale.grad is None
        assert module.scale.requires_grad


def test_a_bad_target_leaves_the_model_as_it_was():
    model = Linear(3).train()
    with pytest.raises(TargetError):
        Grad().explain(model, images(), target=9)
    assert model.training
    assert model.scale.requires_grad


def test_provenance_says_how_it_was_made():
    result = Grad().explain(Linear(), images(), runtime=Runtime(seed=3, batch_size=2))
    assert result.provenance == {
        "explainer": "Grad",
        "model": "Linear",
        "inputs": 5,
        "seed": 3,
        "batch_size": 2,
        "precision": "float32",
        "device": "cpu",
        "genxai": gx.__version__,
    }


def test_a_registered_explainer_is_named_with_its_parameters(monkeypatch):
    class Named(Grad):
        def __init__(self, steps: int = 1):
            self.steps = steps

    monkeypatch.setattr(explaining, "Named", Named, raising=False)
    host = PluginHost(entry_points=[])
    component = Component("explainer", "named", "genxai_core.explaining:Named", "x")
    host.plugins.append(Plugin("mine", "1", (component,)))
    with using(Registry(host)):
        built = gx.create("explainer/named", steps=3)
        result = built.explain(Linear(), images())
        assert result.provenance["explainer"] == {"use": "explainer/named", "with": {"steps": 3}}
        with pytest.raises(TargetError, match=r"^explainer/named: "):
            built.explain(Linear(2), images())


def test_bfloat16_is_asked_of_the_model():
    class Notes(Linear):
        def forward(self, images):
            self.seen = (images @ images.transpose(2, 3)).dtype
            return super().forward(images)

    seen = []
    mine = explainer(lambda m, x, t: seen.append((m(x), m.seen)[1]) or Attribution(x.sum(1)))
    mine.explain(Notes(), images(), runtime=Runtime(precision="bfloat16"))
    mine.explain(Notes(), images())
    assert seen == [torch.bfloat16, torch.float32]


# -- metrics and trainers share the guard -----------------------------------------------------------------------------


class Judge(gx.Metric):
    needs = frozenset({"model", "generated"})

    def __init__(self):
        self.helper = Linear()

    def update(self, *, model, generated):
        assert not model.training
        assert not self.helper.training
        model.scale.data.fill_(5)
        self.noise = float(torch.rand(1))
        self.n = len(generated)

    def compute(self):
        return {"noise": self.noise, "n": self.n}

    def merge(self, other): ...

    def reset(self):
        self.noise = self.n = None


def test_a_metric_is_seeded_and_leaves_the_model_that_it_is_given_as_it_was():
    model, judge = Linear(), Judge()
    first = judge.measure(model=model, generated=Numbers(), runtime=Runtime(seed=1))
    assert model.scale.tolist() == [1.0]
    assert model.training
    assert judge.helper.training
    assert first["n"] == 5
    assert judge.measure(model=model, generated=Numbers(), runtime=Runtime(seed=1)) == first
    assert judge.measure(model=model, generated=Numbers(), runtime=Runtime(seed=2)) != first
    for wrong in ({"model": model}, {"model": model, "generated": Numbers(), "real": Numbers()}):
        with pytest.raises(InputError, match="takes exactly generated, model; check: "):
            judge.measure(**wrong)


def test_a_trainer_is_seeded_refuses_other_data_and_leaves_the_generators_alone():
    class Draws(gx.Trainer):
        def _fit(self, data, runtime):
            return gx.Trained({}, {"draw": [float(torch.rand(1))]})

    state = torch.get_rng_state()
    first = Draws().fit(Numbers(), Runtime(seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert Draws().fit(Numbers(), Runtime(seed=1)).history == first.history
    assert Draws().fit(Numbers(), Runtime(seed=2)).history != first.history
    with pytest.raises(InputError, match="takes Samples or a Dataset, not Tensor; wrap"):
        Draws().fit(images())
    with pytest.raises(InputError, match="empty"):
        Draws().fit(Numbers(n=0))


def test_maps_of_another_target_or_of_strange_channels_are_refused():
    other = explainer(lambda d, x, t: Attribution(maps=x[:, 0], target=t + 3))
    with pytest.raises(ExplainerError, match="asked for target 0 and returned maps of another"):
        other.explain(Linear(), images())
    strange = explainer(lambda d, x, t: Attribution(maps=x.repeat(1, 5, 1, 1), target=t))
    with pytest.raises(ExplainerError, match="maps of 15 channels for images of 3"):
        strange.explain(Linear(), images())
