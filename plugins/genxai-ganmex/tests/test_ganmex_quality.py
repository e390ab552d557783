"""The quality of baselines against literal loops; what each figure tells, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from genxai_ganmex import quality
from genxai_ganmex.contrast import OneVsOne
from genxai_ganmex.counterfactual import Counterfactuals
from genxai_ganmex.quality import BaselineQuality
from torch import nn

from genxai_core import Attribution, Counterfactual, Discriminator, Runtime, Samples, create, draws
from genxai_core.errors import InputError, MissingCapability
from genxai_core.testing.data import PatchDataset
from genxai_core.testing.models import PatchDiscriminator

QUIET = Runtime(device="cpu", quiet=True)


class Three(Discriminator):
    """Three logits, linear in the pixels."""

    class_names = ("a", "b", "c")
    image_shape = (1, 4, 4)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(draws.normal(0, range(3), (16,), "weights"))

    def forward(self, images):
        return images.flatten(1) @ self.weight.T

    def features(self, images):
        return images.flatten(1)[:, :5] * 2


class Bowl(nn.Module):
    """A density in (0, 1)."""

    value_range = (0.0, 1.0)

    def log_prob(self, images):
        return -(images - 0.4).flatten(1).square().sum(1)


class Real(Discriminator):
    image_shape = (1, 4, 4)

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, images):
        return (images * self.scale).flatten(1).sum(1, keepdim=True)


def small(n, seed):
    return draws.uniform(seed, range(n), (1, 4, 4)) * 2 - 1


def counterfactual(model, n=7):
    images, made = small(n, 1), small(n, 2)
    with torch.no_grad():
        before, after = model(images), model(made)
    return Counterfactual(images, made, torch.arange(n) % 3, before.argmax(1), before, after)


def rank(value, among):
    return sum(1.0 if a < value else 0.5 if a == value else 0.0 for a in among) / len(among)


def rms(a, b):
    return float((a.double() - b.double()).square().mean().sqrt())


def nearest(row, rows):
    return min(float((row.double() - other.double()).norm()) for other in rows)


@pytest.mark.parametrize("by", ["pixels", "features", "density", "discriminator"])
def test_every_figure_is_that_of_a_literal_loop(by):
    model, real = Three(), small(20, 3)
    judge = {"pixels": None, "features": model, "density": Bowl(), "discriminator": Real()}[by]
    found = counterfactual(model)
    metric = BaselineQuality(by, judge)
    with torch.no_grad():
        metric.update(explanation=found, real=Samples(real, value_range=(-1.0, 1.0)), model=model)
        rows = metric.per_image()

        def said(image, among):
            if by == "pixels":
                return -nearest(image.flatten(), [o.flatten() for o in among]) / 4 / 2
            if by == "features":
                return -nearest(model.features(image[None])[0], [model.features(o[None])[0] for o in among])
            if by == "density":
                return float(judge.log_prob((image[None] + 1) / 2))
            return float(judge(image[None]))

        for i in range(7):
            x, b, t = found.images[i], found.counterfactuals[i], int(found.target[i])
            of_t = [r for r in real if int(model(r[None]).argmax()) == t]
            assert float(rows["distance"][i]) == pytest.approx(rms(x, b) / 2)
            assert float(rows["distance_rank"][i]) == pytest.approx(rank(rms(x, b), [rms(x, r) for r in of_t]))
            others = [said(r, [o for j, o in enumerate(real) if j != k]) for k, r in enumerate(real)]
            assert float(rows["realism"][i]) == pytest.approx(said(b, real), rel=1e-5)
            assert float(rows["realism_rank"][i]) == pytest.approx(rank(said(b, real), others))
            score = float(model(b[None]).softmax(1)[0, t])
            assert float(rows["target_score"][i]) == pytest.approx(score, abs=1e-6)
            scores = [float(model(r[None]).softmax(1)[0, t]) for r in of_t]
            assert float(rows["target_rank"][i]) == pytest.approx(rank(score, scores))
            assert bool(rows["flip_rate"][i]) == (int(model(b[None]).argmax()) == t)
    figures = metric.compute()
    for name, values in rows.items():
        assert figures[name] == pytest.approx(float(values.mean()))
        assert figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"]


def test_intervals_are_those_of_the_mean():
    values = draws.normal(0, range(400), ()).double()
    low, high = quality._resampled(values)
    error = float(values.std()) / 20
    assert low == pytest.approx(float(values.mean()) - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(float(values.mean()) + 1.96 * error, abs=0.2 * error)
    assert quality._resampled(values.flip(0)) == (low, high)
    # E. Wilson's interval, as tables have it
    assert quality._wilson(torch.tensor([0.0] * 10)) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert quality._wilson(torch.tensor([1.0, 0.0] * 5).double()) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_the_class_is_that_across_the_boundary():
    model, images = Three(), small(9, 4)
    maps, real = images[:, 0], Samples(small(60, 3), value_range=(-1.0, 1.0))
    with torch.no_grad():
        logits = model(images)
    order = logits.argsort(1, descending=True)

    def scores(explanation):
        metric = BaselineQuality()
        metric.update(explanation=explanation, real=real, model=model)
        return metric.per_image()["target_score"]

    plain = Attribution(maps=maps, target=0, images=images, baseline=torch.zeros_like(images))
    torch.testing.assert_close(scores(plain), torch.full((9,), 1 / 3).double())  # S of an image of zeros
    plain = replace(plain, baseline=images)
    p = logits.softmax(1).double()
    torch.testing.assert_close(scores(plain), p.gather(1, order[:, 1:2])[:, 0], rtol=0, atol=1e-6)
    against = torch.full((9,), 2)
    pair = OneVsOne(maps=maps, target=0, images=images, baseline=images, against=against)
    expected = torch.where(logits[:, 0] >= logits[:, 2], p[:, 2], p[:, 0])
    torch.testing.assert_close(scores(pair), expected, rtol=0, atol=1e-6)


def test_each_term_alone_can_be_had_and_only_together_they_tell():
    digits = PatchDataset(40, seed=7)[:]
    data, x, model = digits[:30], digits[30:].images, PatchDiscriminator().eval()

    def judged(explainer):
        metric = BaselineQuality()
        metric.update(explanation=explainer.explain(model, x, runtime=QUIET), real=data, model=model)
        return metric.compute()

    copy, least = judged(Counterfactuals("mdts", data=data)), judged(Counterfactuals())
    assert copy["realism"] == 0  # it is one of the real images
    assert copy["realism_rank"] == 1
    assert copy["flip_rate"] == 1
    assert least["flip_rate"] == 1
    assert least["distance"] < copy["distance"]
    assert least["distance_rank"] == 0
    assert least["realism_rank"] < 0.1
    assert least["target_rank"] == 0  # the boundary is less of the class than any real image


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"by": "taste"}, "not one of pixels, features"),
        ({"by": "density"}, "all others need one"),
        ({"judge": Bowl()}, "takes no judge"),
        ({"by": "density", "judge": Real()}, "of which is known its log odds"),
        ({"by": "discriminator", "judge": Bowl()}, "of which is known its log p"),
    ],
)
def test_a_judge_must_fit(params, said):
    with pytest.raises(ValueError, match=said):
        BaselineQuality(**params)


def test_what_does_not_fit_is_refused():
    model, real = Three(), Samples(small(20, 3), value_range=(-1.0, 1.0))
    found = counterfactual(model)
    with pytest.raises(MissingCapability, match="HasFeatures"):
        BaselineQuality("features", Bowl())
    plain = Attribution(maps=found.images, target=0, images=found.images)
    for explanation, said in (
        (plain, "no baseline"),
        (create("explainer/counterfactual"), "judges a Counterfactual or an Attribution"),
        (replace(found, value_range=(0.0, 1.0)), "the model expects"),
        (found[:0], "empty"),
    ):
        with pytest.raises(InputError, match=said):
            BaselineQuality().update(explanation=explanation, real=real, model=model)
    with pytest.raises(InputError, match="real images are"):
        BaselineQuality().update(explanation=found, real=PatchDataset(4)[:], model=model)
    only = real[(model(real.images).argmax(1) == 0).nonzero()[:, 0].tolist()]
    metric = BaselineQuality()
    metric.update(explanation=found, real=only, model=model)
    with pytest.raises(InputError, match="no real image for class 1"):
        metric.compute()
    with pytest.raises(InputError, match="of another realism"):
        metric.merge(BaselineQuality("density", Bowl()))
