"""Randomisation: an edge filter is caught, a gradient is not; literal cascade; norms, layers, refusals, models left."""

import copy

import pytest
import scipy.stats
import torch
from genxai_metrics.randomisation import resolved
from torch import nn
from torch.nn.utils import parametrizations

import genxai_core as gx
from genxai_core.errors import InputError
from genxai_core.testing import LinearDiscriminator

QUIET = gx.Runtime(device="cpu", quiet=True)
SALIENCY = gx.Spec("explainer/saliency")


class Edges(gx.Explainer):
    """What looks like an explanation and never sees the model."""

    explains, accepts, returns = "discriminator", "images", gx.Attribution

    def _explain(self, model, images, target):
        return gx.Attribution((images - images.roll(1, 3)).abs().sum(1), target)


def measured(explainer, model, images, target=1, runtime=QUIET, **params):
    built = explainer.build() if isinstance(explainer, gx.Spec) else explainer
    metric = gx.create("metric/randomisation", explainer=explainer, **params)
    made = built.explain(model, images, target=target, runtime=runtime)
    return metric.measure(model=model, explanation=made, runtime=runtime), metric


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_an_edge_filter_is_caught_and_a_gradient_passes(oracles, mode):
    model, images = oracles.Curved(size=12), oracles.images_of(12, size=12)
    edges, _ = measured(Edges(), model, images, mode=mode)
    assert edges["similarity"] == edges["similarity_all"] == pytest.approx(1)
    gradient, _ = measured(SALIENCY, model, images, mode=mode)
    assert gradient["similarity_all"] < 0.3
    assert gradient["similarity"] < 0.9


def literal(model, images, target, mode, seed, explain):
    """Mean |ρ| after each stage, with parameters drawn as the docstring says."""

    def forget(module, name):
        for own, p in module.named_parameters(recurse=False):
            drawn = gx.draws.normal(seed, [0], p.shape, f"randomisation {name}.{own}")[0]
            p.data = drawn * p.detach().square().mean().sqrt()

    names = ["first", "norm", "last"]
    before = explain(model)
    stages = [names[2:], names[1:], names] if mode == "cascading" else [["last"], ["norm"], ["first"], names]
    rows = []
    for stage in stages:
        changed = copy.deepcopy(model)
        for name in stage:
            forget(getattr(changed, name), name)
        after = explain(changed)
        rows.append([abs(scipy.stats.spearmanr(a.flatten(), b.flatten()).statistic) for a, b in zip(before, after)])
    return torch.tensor(rows).mean(1).tolist()


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_it_is_the_literal_version(oracles, mode):
    model, images = oracles.Curved(2).eval(), oracles.images_of(5, 2)

    def explain(some):
        return gx.create("explainer/saliency").explain(some, images, target=1).maps.sum(1)

    expected = literal(model, images, 1, mode, 3, explain)
    found, metric = measured(SALIENCY, model, images, mode=mode, runtime=QUIET.with_(seed=3))
    layers = metric.per_layer()
    assert list(layers) == ["last", "norm", "first"]
    assert list(layers.values()) == pytest.approx(expected[:3], abs=1e-6)
    assert found["similarity"] == pytest.approx(sum(expected[:3]) / 3, abs=1e-6)
    assert found["similarity_all"] == pytest.approx(expected[-1], abs=1e-6)


def test_a_linear_models_gradient_is_compared_with_the_random_weights(oracles):
    """Closed form: the map is w, and then it is w′."""
    model, images = LinearDiscriminator(12), oracles.images_of(3, size=12)
    found, metric = measured(SALIENCY, model, images, target=0)
    drawn = gx.draws.normal(0, [0], model.head.weight.shape, "randomisation head.weight")
    expected = abs(scipy.stats.spearmanr(model.weights.flatten(), drawn.flatten()).statistic)
    assert found["similarity"] == pytest.approx(expected, abs=1e-6)
    assert metric.per_layer() == pytest.approx({"head": expected}, abs=1e-6)


def test_the_model_is_left_as_it_was(oracles):
    model, images = oracles.Curved().train(), oracles.images_of(3)
    before = copy.deepcopy(model.state_dict())
    measured(SALIENCY, model, images, mode="independent")
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("mode", ["cascading", "independent"])
@pytest.mark.parametrize("name", ["saliency", "noise-tunnel"])
def test_it_does_not_depend_on_batches_and_can_be_merged(oracles, mode, name):
    explainer = gx.create(f"explainer/{name}", **({"samples": 3} if name == "noise-tunnel" else {}))
    model, images = oracles.Curved().eval(), oracles.images_of(6)
    made = explainer.explain(model, images, target=torch.tensor([0, 1, 2, 1, 0, 0]), runtime=QUIET)
    metric = gx.create("metric/randomisation", explainer=explainer, mode=mode)
    found = metric.measure(model=model, explanation=made, runtime=QUIET)
    layers = metric.per_layer()
    again = metric.measure(model=model, explanation=made[::-1], runtime=QUIET.with_(batch_size=2))
    assert again == pytest.approx(found, abs=1e-6)
    parts = [copy.deepcopy(metric) for _ in range(2)]
    for part, rows in zip(parts, (slice(0, 2), slice(2, 6))):
        part.reset()
        part.update(model=model, explanation=made[rows])
    parts[0].merge(parts[1])
    assert parts[0].compute() == pytest.approx(found, abs=1e-6)
    assert parts[0].per_layer() == pytest.approx(layers, abs=1e-6)


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, nn.utils.spectral_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_norms_are_resolved_into_the_weight(oracles, norm):
    class Normed(oracles.Curved):
        def __init__(self):
            super().__init__()
            self.first = norm(self.first)

    model, images = Normed().eval(), oracles.images_of(3)
    with torch.no_grad():
        plain = resolved(model)
        torch.testing.assert_close(plain(images), model(images))
    assert "first.weight" in dict(plain.named_parameters())
    assert "first.weight" not in dict(model.named_parameters())
    torch.testing.assert_close(resolved(model)(images), model(images))  # the model has kept its norm
    with torch.no_grad():
        plain.first.weight.mul_(2)  # which a norm would undo
        assert not torch.allclose(plain(images), model(images))
    found, metric = measured(SALIENCY, model, images)
    assert list(metric.per_layer()) == ["last", "norm", "first"]
    assert 0 <= found["similarity_all"] <= 1


class Shortcut(gx.Discriminator):
    """Registered from the top down, with a parameter of its own, and a layer of which only the weight is used."""

    def __init__(self):
        super().__init__()
        self.top = nn.Linear(4, 1)
        self.unused_call = nn.Linear(4, 4)
        self.bottom = nn.Conv2d(1, 1, 3)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, images):
        hidden = nn.functional.adaptive_avg_pool2d(torch.tanh(self.bottom(images)), 2).flatten(1)
        return self.top(hidden @ self.unused_call.weight) * self.gain


def test_layers_are_ordered_by_their_first_call_the_top_first(oracles):
    _, metric = measured(SALIENCY, Shortcut(), oracles.images_of(3), target=0)
    assert list(metric.per_layer()) == ["unused_call", "top", "bottom", ""]


def test_a_dead_random_model_is_no_agreement_and_no_warning(oracles):
    """Its maps are constant: 0, not NaN."""

    class Dead(oracles.Sum):
        def forward(self, images):
            return super().forward(images) * (self.gain > 0.99)

    images = oracles.images_of(3)
    gain = gx.draws.normal(0, [0], (1,), "randomisation .gain")
    assert float(gain) < 0.99
    found, _ = measured(gx.Spec("explainer/input-x-gradient"), Dead(), images, target=0)
    assert found["similarity_all"] == 0


class Fixed(gx.Discriminator):
    def forward(self, images):
        return images.flatten(1).sum(1, keepdim=True)


def test_what_does_not_fit_is_refused(oracles):
    images = oracles.images_of(3)
    with pytest.raises(InputError, match="no parameters to randomise"):
        measured(gx.Spec("explainer/input-x-gradient"), Fixed(), images, target=0)
    model = oracles.Curved()
    metric = gx.create("metric/randomisation", explainer=SALIENCY)
    with pytest.raises(InputError, match="not what Saliency makes of this model"):
        metric.measure(model=model, explanation=oracles.explained(images[:, 0], images))
    one, other = (gx.create("metric/randomisation", explainer=SALIENCY) for _ in range(2))
    saliency = SALIENCY.build()
    one.update(model=model, explanation=saliency.explain(model, images, target=0))
    linear = LinearDiscriminator(8)
    other.update(model=linear, explanation=saliency.explain(linear, oracles.images_of(3, size=8)))
    with pytest.raises(InputError, match="other layers than the one before"):
        one.merge(other)
    with pytest.raises(InputError, match="has seen no explanation"):
        metric.per_layer()
