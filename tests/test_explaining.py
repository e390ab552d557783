"""What `Explainer.explain` promises an author and a caller."""

import math

import numpy as np
import pytest
import torch
from explained_models import Grad, Linear, Makes, Numbers, explainer, images, same
from torch import nn

from genxai_core import (
    Attribution,
    Runtime,
    Samples,
)
from genxai_core.errors import ExplainerError, InputError, MissingCapability, TargetError

# -- targets ---------------------------------------------------------------------------------------------------------


def test_one_logit_needs_no_target():
    result = Grad().explain(Linear(), images())
    assert result.target.tolist() == [0] * 5
    assert torch.allclose(result.logits, Linear()(images())[:, 0])
    assert torch.allclose(result.maps.sum((1, 2)), result.logits), "input times gradient is complete for this model"


def test_several_logits_need_one():
    with pytest.raises(TargetError, match=r"Grad: the model has 3 outputs; say which to explain: target=0…2"):
        Grad().explain(Linear(3), images())


@pytest.mark.parametrize(
    "target", [[2, 0, 1, 0, 2], (2, 0, 1, 0, 2), torch.tensor([2, 0, 1, 0, 2]), np.array([2, 0, 1, 0, 2])]
)
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_targets_per_image_are_explained_one_at_a_time_and_come_back_in_order(target, batch_size):
    seen = []

    def note(model, inputs, target):
        seen.append((len(inputs), target))
        return Grad()._explain(model, inputs, target)

    result = explainer(note).explain(Linear(3), images(), target=target, runtime=Runtime(batch_size=batch_size))
    assert all(type(t) is int for _, t in seen)
    assert sum(n for n, _ in seen) == 5
    assert result.target.tolist() == [2, 0, 1, 0, 2]
    assert torch.equal(result.images, images())
    expected = Linear(3)(images())[range(5), [2, 0, 1, 0, 2]]
    assert torch.allclose(result.logits, expected)
    for i, t in enumerate([2, 0, 1, 0, 2]):
        assert torch.allclose(result.maps[i], Grad().explain(Linear(3), images()[i : i + 1], target=t).maps[0])


@pytest.mark.parametrize("target", [1, torch.tensor(1), np.int64(1), torch.tensor([1] * 5), [torch.tensor(1)] * 5])
def test_one_target_stands_for_all(target):
    assert Grad().explain(Linear(3), images(), target=target).target.tolist() == [1] * 5


@pytest.mark.parametrize(
    ("target", "said"),
    [
        *[(t, "out of range; the model's outputs are 0…2") for t in (3, -1, [0, 1, 2, 3, 0], 10**9)],
        *[(t, "targets for 5 images") for t in ([0], [0] * 6, [], torch.zeros(0, dtype=torch.long))],
        *[(t, "is not a class index") for t in (True, 1.0, "1", "abcde", [0.5] * 5, [True] * 5, object())],
        (torch.ones(5), "is not a class index"),
        (torch.ones(5, dtype=torch.bool), "is not a class index"),
        ([[0]] * 5, "is not a class index"),
        ({"a": 1}, "is not a class index"),
    ],
)
def test_bad_targets_are_refused_in_one_line_before_anything_runs(target, said):
    ran = []
    broken = explainer(lambda model, inputs, target: ran.append(1))
    with pytest.raises(TargetError, match=said) as caught:
        broken.explain(Linear(3), images(), target=target)
    assert len(str(caught.value).splitlines()) == 1
    assert ran == []


# -- models ----------------------------------------------------------------------------------------------------------


def test_a_model_of_the_wrong_type_is_refused_with_the_adapter():
    with pytest.raises(InputError, match=r"Grad explains a discriminator, not a Conv2d; wrap it: genxai_core"):
        Grad().explain(nn.Conv2d(3, 1, 1), images())
    with pytest.raises(InputError, match=r"explains a discriminator, not a function$"):
        Grad().explain(lambda x: x, images())
    with pytest.raises(InputError, match=r"not a Makes; wrap it"):
        Grad().explain(Makes(), images())
    with pytest.raises(InputError, match=r"explains a generator, not a Linear; wrap it: genxai_core.adapt.generator"):
        explainer(None, explains="generator").explain(Linear(), images())


def test_a_missing_capability_is_named_with_the_model_and_what_to_use():
    with pytest.raises(MissingCapability, match=r"Mine needs the capability HasDensity, which Linear does not have"):
        explainer(None, explains="HasDensity").explain(Linear(), images())
    with pytest.raises(ExplainerError, match="'HasDensty' is neither"):
        explainer(None, explains="HasDensty").explain(Linear(), images())


def test_a_wrapped_model_is_unwrapped():
    seen = []
    mine = explainer(lambda m, x, t: seen.append(m) or Attribution(x.sum(1)))
    model = Linear()
    mine.explain(nn.DataParallel(model), images())
    assert seen == [model]


def test_a_discriminator_without_logits_n_k_is_refused_with_the_adapter():
    class Flat(Linear):
        def forward(self, images):
            return images.mean((1, 2, 3))

    class Two(Linear):
        def forward(self, images):
            return images, images

    for model, shape in ((Flat(), r"\[1\]"), (Two(), "tuple")):
        with pytest.raises(InputError, match=rf"returns {shape}, not logits \[N, K\]; adapt it"):
            Grad().explain(model, images())


def test_a_runtime_that_contradicts_the_model_is_refused():
    model = Linear().to("meta")
    with pytest.raises(InputError, match=r"is on meta, the runtime says cpu; move the model with \.to\('cpu'\)"):
        Grad().explain(model, images(), runtime=Runtime(device="cpu"))


# -- inputs ----------------------------------------------------------------------------------------------------------


def test_tensors_samples_and_datasets_are_the_same():
    wanted = Grad().explain(Linear(), images())
    assert same(Grad().explain(Linear(), Samples(images(), value_range=(-1, 1))), wanted)
    assert same(Grad().explain(Linear(), Numbers()), wanted)
    assert same(Grad().explain(Linear(), images().double()), wanted), "numpy's floats are double"


def test_double_samples_fit_a_float_model():
    mine = explainer(lambda m, s, t: Attribution(m(s.images)[:, t, None, None].expand(-1, 4, 6)), accepts="samples")
    result = mine.explain(Linear(), Samples(images().double(), value_range=(-1, 1)))
    assert result.maps.dtype == torch.float32


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (None, "needs inputs"),
        ([1], "not list"),
        (np.zeros((1, 3, 4, 6)), "not ndarray"),
        (images(0), "empty"),
        (torch.tensor(1.0), "empty"),
        (Numbers(n=0), "empty"),
        (images().int(), "torch.int32"),
        (images() > 0, "torch.bool"),
        (images() * math.nan, "NaN or infinity"),
        (images() / 0, "NaN or infinity"),
        (images()[0], r"\[N, C, H, W\]"),
        (images()[:, :, :2], r"\(3, 2, 6\), the model takes \(3, 4, 6\)"),
        (images()[:, :1], r"\(1, 4, 6\), the model takes"),
        (images() * 127 + 127, "pixel values reach from .* the model expects"),
        (Samples(images(), value_range=(0, 1)), r"are in \(0\.0, 1\.0\), .* use samples\.rescale\(\(-1\.0, 1\.0\)\)"),
        (Numbers(value_range=(0.0, 255.0)), r"are in \(0\.0, 255\.0\)"),
    ],
)
def test_bad_inputs_are_refused_in_one_line(inputs, said):
    with pytest.raises(InputError, match=said) as caught:
        Grad().explain(Linear(), inputs)
    assert len(str(caught.value).splitlines()) == 1


def test_one_bad_image_among_good_ones_is_found():
    batch = images()
    batch[4, 0, 0, 0] = math.nan
    with pytest.raises(InputError, match="NaN"):
        Grad().explain(Linear(), batch, runtime=Runtime(batch_size=2))


def test_the_callers_tensors_are_not_changed_by_an_author_who_writes_in_place():
    def rude(model, inputs, target):
        x = inputs.images if isinstance(inputs, Samples) else inputs
        logits = model(x)[:, target]
        x.zero_()
        return Attribution(logits[:, None, None].expand(-1, 4, 6))

    for accepts in ("images", "samples"):
        mine, kept = explainer(rude, accepts=accepts), images()
        given = Samples(kept, value_range=(-1, 1))
        result = mine.explain(Linear(), given, runtime=Runtime(batch_size=5))
        assert torch.equal(kept, images())
        assert torch.equal(result.images, images()), "the picture is of what was explained"
        assert torch.allclose(result.logits, Linear()(images())[:, 0])
    kept = images().requires_grad_()
    explainer(rude).explain(Linear(), kept)
    assert torch.equal(kept, images())
    assert kept.grad is None
