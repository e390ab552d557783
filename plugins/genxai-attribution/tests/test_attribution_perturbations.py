"""LIME, KernelSHAP, Shapley sampling, occlusion, GradientSHAP, noise tunnel: literal formulas and captum."""

from itertools import permutations
from math import factorial

import captum.attr
import numpy as np
import pytest
import torch
from genxai_attribution.baselines import Reference
from genxai_attribution.coalitions import cells, spread
from genxai_attribution.integrated import IntegratedGradients
from genxai_attribution.noise import GradientShap, NoiseTunnel
from genxai_attribution.perturbations import Occlusion, ShapleySampling
from genxai_attribution.surrogates import KernelShap, Lime, _half
from sklearn.linear_model import Ridge
from torch import nn

import genxai_core as gx
from genxai_core import draws, registry
from genxai_core.errors import InputError
from genxai_core.plugins import PluginHost


class Additive(gx.Discriminator):
    """Weights on the pixels and one product of two corners: Shapley values in closed form."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        return ((images * self.weight).sum((1, 2, 3)) + 5 * images[:, 0, 0, 0] * images[:, 0, -1, -1])[:, None]


@pytest.fixture
def pictures():
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def by_cell(maps, grid):
    of = cells(grid, *maps.shape[1:])
    return torch.stack([maps[:, of == i].sum(1) for i in range(grid**2)], 1)


def closed_form(model, images, grid):
    """From baseline 0: each cell its linear part, and half of the product for each of the two corner cells."""
    found = by_cell((images * model.weight).sum(1), grid).detach()
    product = 5 * images[:, 0, 0, 0] * images[:, 0, -1, -1]
    found[:, 0] += product / 2
    found[:, -1] += product / 2
    return found


def test_cells_divide_the_image_evenly_and_scores_are_shared():
    of = cells(3, 8, 7)
    assert of.unique().tolist() == list(range(9))
    assert {int(n) for n in torch.bincount(of.flatten())} == {4, 6, 9}
    scores = torch.arange(9.0)[None]
    maps = spread(scores, of)
    torch.testing.assert_close(by_cell(maps, 3), scores)
    with pytest.raises(InputError, match="grid 9"):
        cells(9, 8, 16)


@pytest.mark.parametrize("grid", [2, 3])
def test_kernel_shap_is_exact_where_all_sets_are_seen(pictures, grid):
    model = Additive()
    result = KernelShap(grid=grid).explain(model, pictures)
    torch.testing.assert_close(by_cell(result.maps, grid), closed_form(model, pictures, grid), atol=1e-5, rtol=1e-5)
    assert result.notes["exact"] is True
    assert result.notes["samples"] == 2 ** (grid**2) - 2
    assert result.delta.abs().max() < 1e-5


def test_kernel_shap_by_sampling_is_complete_and_near(pictures):
    model = Additive()
    result = KernelShap(grid=4, samples=400).explain(model, pictures)
    closed = closed_form(model, pictures, 4)
    assert result.notes["exact"] is False
    assert result.delta.abs().max() < 1e-5
    assert (by_cell(result.maps, 4) - closed).norm() < 0.1 * closed.norm()
    assert not torch.equal(result.maps, KernelShap(4, 400).explain(model, pictures, runtime=gx.Runtime(seed=1)).maps)


def test_exact_shapley_values_of_a_network_by_their_definition_and_by_captum(make_dcgan, images):
    model, of = make_dcgan().eval(), cells(2, 16, 16)

    def value(kept):
        with torch.no_grad():
            return model(torch.where(torch.isin(of, torch.tensor(kept, dtype=torch.long)), images, -1.0))[:, 0]

    literal = torch.zeros(len(images), 4)
    for order in permutations(range(4)):
        for place, cell in enumerate(order):
            literal[:, cell] += value(list(order[: place + 1])) - value(list(order[:place]))
    literal /= factorial(4)
    ours = KernelShap(grid=2, samples=14, baseline="low").explain(model, images)
    torch.testing.assert_close(by_cell(ours.maps, 2), literal, atol=1e-6, rtol=1e-4)
    theirs = captum.attr.ShapleyValues(model).attribute(images, baselines=-1.0, target=0, feature_mask=of[None, None])
    torch.testing.assert_close(64 * ours.maps, theirs[:, 0].detach(), atol=1e-6, rtol=1e-4)


def test_shapley_sampling_equals_captum_with_the_same_orders(make_dcgan, images):
    model, of = make_dcgan().eval(), cells(4, 16, 16)
    ours = ShapleySampling(grid=4, orders=3, baseline="low").explain(model, images, runtime=gx.Runtime(seed=7))
    library = captum.attr.ShapleyValueSampling(model)
    orders = [draws.permutation(7, i, 16, "shapley-sampling") for i in range(3)]
    library.permutation_generator = lambda features, count: (o.tolist() for o in orders[:count])
    theirs = library.attribute(images, baselines=-1.0, target=0, feature_mask=of[None, None], n_samples=3)
    torch.testing.assert_close(16 * ours.maps, theirs[:, 0].detach(), atol=1e-6, rtol=1e-4)
    assert ours.delta.abs().max() < 1e-6


def test_shapley_sampling_comes_near_the_closed_form(pictures):
    model = Additive()
    closed = closed_form(model, pictures, 4)
    result = ShapleySampling(grid=4, orders=200).explain(model, pictures)
    assert (by_cell(result.maps, 4) - closed).norm() < 0.1 * closed.norm()


@pytest.mark.parametrize("ridge", [0.1, 1.0])
def test_lime_is_scikit_learns_weighted_ridge_regression(make_dcgan, images, ridge):
    model, of = make_dcgan().eval(), cells(4, 16, 16)
    ours = Lime(grid=4, samples=60, ridge=ridge, baseline="low").explain(model, images, runtime=gx.Runtime(seed=2))
    z = np.stack([_half(2, s, 16).numpy() for s in range(60)])
    z[0] = True
    cosine = z.sum(1) / np.maximum(np.linalg.norm(z, axis=1) * np.sqrt(16), 1e-12)
    weights = np.sqrt(np.exp(-((1 - cosine) ** 2) / 0.25**2))
    for i, image in enumerate(images):
        mixed = torch.stack([torch.where(torch.from_numpy(row)[of], image, -1.0) for row in z])
        with torch.no_grad():
            outcome = model(mixed)[:, 0].numpy()
        fitted = Ridge(alpha=ridge).fit(z.astype(float), outcome, sample_weight=weights).coef_
        np.testing.assert_allclose(by_cell(ours.maps[i : i + 1], 4)[0], fitted, atol=1e-5)


@pytest.mark.parametrize(("window", "stride"), [(4, 4), (4, 2), (5, 3), (None, None)])
def test_occlusion_is_the_literal_mean_drop(make_dcgan, images, window, stride):
    model = make_dcgan().eval()
    ours = Occlusion(window, stride, "low").explain(model, images).maps
    window, stride = window or 2, stride or 1
    total, count = torch.zeros(5, 16, 16), torch.zeros(16, 16)
    starts = sorted({*range(0, 16 - window, stride), 16 - window})
    with torch.no_grad():
        for y in starts:
            for x in starts:
                hidden = images.clone()
                hidden[..., y : y + window, x : x + window] = -1.0
                total[:, y : y + window, x : x + window] += (model(images) - model(hidden))[:, :1, None]
                count[y : y + window, x : x + window] += 1
    torch.testing.assert_close(ours, total / count, atol=1e-6, rtol=1e-4)
    if (16 - window) % stride == 0:
        theirs = captum.attr.Occlusion(model).attribute(
            images, (1, window, window), (1, stride, stride), baselines=-1.0, target=0
        )
        torch.testing.assert_close(ours, theirs[:, 0].detach(), atol=1e-6, rtol=1e-4)


def test_gradient_shap_is_its_literal_formula(make_dcgan, images):
    model = make_dcgan().eval()
    references = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(4)) * 2 - 1
    ours = GradientShap(samples=5, stdev=0.1, baseline=references).explain(model, images, runtime=gx.Runtime(seed=3))
    total = torch.zeros_like(images)
    for s in range(5):
        noisy = images + 0.2 * draws.normal(3, [s], (1, 16, 16), "gradient-shap")
        t = draws.uniform(3, [s], (1,), "gradient-shap.t").item()
        point = (references[s % 2] + t * (noisy - references[s % 2])).requires_grad_()
        total += (noisy - references[s % 2]) * torch.autograd.grad(model(point).sum(), point)[0]
    torch.testing.assert_close(ours.maps, total / 5, atol=1e-6, rtol=1e-4)
    gap = model(images)[:, 0] - model(references).mean()
    torch.testing.assert_close(ours.delta, (ours.maps.flatten(1).sum(1) - gap).detach(), atol=1e-5, rtol=1e-3)


def test_gradient_shap_comes_near_integrated_gradients_and_captum(make_dcgan, images):
    model = make_dcgan().eval()
    ours = GradientShap(samples=500, baseline="low").explain(model, images)
    path = IntegratedGradients(steps=64, baseline="low").explain(model, images).maps
    assert (ours.maps - path).norm() < 0.05 * path.norm()
    np.random.seed(0)  # the library draws from both
    torch.manual_seed(0)
    theirs = captum.attr.GradientShap(model).attribute(
        images, torch.full((2, 1, 16, 16), -1.0), n_samples=500, stdevs=0.0, target=0
    )
    assert (ours.maps - theirs.detach()).norm() < 0.1 * path.norm()


@pytest.mark.parametrize("method", ["smoothgrad", "smoothgrad-sq", "vargrad"])
@pytest.mark.parametrize("inner", ["saliency", "deeplift", "cam"])
def test_noise_tunnel_is_its_literal_formula(make_dcgan, images, method, inner):
    model = make_dcgan().eval()
    tunnel = NoiseTunnel(gx.Spec(f"explainer/{inner}"), method, samples=6, stdev=0.1)
    ours = tunnel.explain(model, images, runtime=gx.Runtime(seed=3, batch_size=10))
    explainer, found = gx.create(f"explainer/{inner}"), []
    for s in range(6):
        noisy = images + 0.2 * draws.normal(3, [s], (1, 16, 16), "noise-tunnel")
        found.append(explainer.attribute(model, noisy, 0).double())
    maps = torch.stack(found)
    literal = {"smoothgrad": maps.mean(0), "smoothgrad-sq": (maps**2).mean(0), "vargrad": maps.var(0, correction=0)}
    torch.testing.assert_close(ours.maps.double(), literal[method], atol=1e-7, rtol=1e-3)
    assert ours.notes["of"] == f"explainer/{inner}"


def test_noise_tunnel_equals_captum_with_the_same_noise(make_dcgan, images, monkeypatch):
    model = make_dcgan().eval()
    ours = NoiseTunnel(samples=4, stdev=0.1).explain(model, images)
    noise = torch.cat([draws.normal(0, [s], (1, 16, 16), "noise-tunnel") for s in range(4)])
    monkeypatch.setattr(torch, "normal", lambda mean, std: mean + std * noise.repeat(len(images), 1, 1, 1))
    library = captum.attr.NoiseTunnel(captum.attr.Saliency(model))
    theirs = library.attribute(images, nt_type="smoothgrad", nt_samples=4, stdevs=0.2, target=0, abs=False)
    torch.testing.assert_close(ours.maps, theirs.detach(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "explainer",
    [Lime(4, 64), KernelShap(4, 64), ShapleySampling(4, 2), Occlusion(), GradientShap(8), NoiseTunnel(samples=8)],
    ids=lambda e: type(e).__name__,
)
def test_no_more_than_a_batch_passes_through_the_model_at_once(make_dcgan, images, explainer):
    model, seen = make_dcgan().eval(), []
    forward = model.forward
    model.forward = lambda x: (seen.append(len(x)), forward(x))[1]
    bounded = explainer.explain(model, images, runtime=gx.Runtime(batch_size=7)).maps
    assert max(seen) <= 7
    seen.clear()
    free = explainer.explain(model, images, runtime=gx.Runtime(batch_size=50)).maps
    assert 30 <= max(seen) <= 50  # perturbations share a pass
    torch.testing.assert_close(bounded, free, atol=1e-6, rtol=1e-3)


# -- baselines ----------------------------------------------------------------------------------------------------


COMPONENTS = '''
from genxai_core import Component, hookimpl


class Mirrored:
    """Each image turned round."""

    def baseline(self, images):
        return images.flip(3)


class Broken:
    """Not the images' shape."""

    def baseline(self, images):
        return images[:, :, :1]


class Silent:
    """Makes no baseline."""


@hookimpl
def genxai_components():
    found = {"mirrored": "Mirrored", "broken": "Broken", "silent": "Silent"}
    return [Component("generator", name, f"my_baselines:{kind}", "test") for name, kind in found.items()]
'''


@pytest.fixture
def with_components(tmp_path):
    """A registry that knows three more components, from a file as ``--plugin`` takes it."""
    (tmp_path / "my_baselines.py").write_text(COMPONENTS)
    more = registry.Registry(PluginHost())
    more.host.load_file(tmp_path / "my_baselines.py")
    with registry.using(more):
        yield


def test_a_baseline_may_be_a_component_by_name_or_a_tensor(make_dcgan, images, with_components):
    model = make_dcgan().eval()
    for name in ("integrated-gradients", "deeplift", "occlusion", "lime", "kernel-shap", "shapley-sampling"):
        by_name = gx.create(f"explainer/{name}", baseline=gx.Spec("generator/mirrored")).explain(model, images)
        assert torch.equal(by_name.baseline, images.flip(3))
        assert by_name.notes["baseline"] == "generator/mirrored"
        as_object = gx.create(f"explainer/{name}", baseline=gx.create("generator/mirrored")).explain(model, images)
        assert torch.equal(as_object.maps, by_name.maps)
        tensor = torch.full((1, 16, 16), -1.0)
        low, given = (gx.create(f"explainer/{name}", baseline=b).explain(model, images) for b in ("low", tensor))
        assert torch.equal(low.maps, given.maps)
        with pytest.raises(InputError, match=r"generator/broken made \[5, 1, 1, 16\]"):
            gx.create(f"explainer/{name}", baseline=gx.Spec("generator/broken")).explain(model, images)
        with pytest.raises(InputError, match="generator/silent has no method baseline"):
            gx.create(f"explainer/{name}", baseline=gx.Spec("generator/silent")).explain(model, images)
        with pytest.raises(InputError, match="2 references given"):
            gx.create(f"explainer/{name}", baseline=torch.zeros(2, 1, 16, 16)).explain(model, images)
        with pytest.raises(InputError, match=r"a reference is \(1, 8, 8\)"):
            gx.create(f"explainer/{name}", baseline=torch.zeros(1, 8, 8)).explain(model, images)


def test_noise_is_addressed_by_seed_and_the_same_for_all_images(images):
    noise = Reference("noise")
    first = noise(images, (0.0, 1.0), 5)
    assert torch.equal(first, first[:1].expand_as(first))
    assert torch.equal(first, noise(images, (0.0, 1.0), 5))
    assert not torch.equal(first, noise(images, (0.0, 1.0), 6))
    assert not torch.equal(first, noise.at(1, images, (0.0, 1.0), 5))
    assert 0 <= first.min() < 0.1 < 0.9 < first.max() <= 1


def test_samples_in_another_range_are_refused(make_dcgan, images):
    given = gx.Samples(torch.rand(1, 1, 16, 16), value_range=(0.0, 1.0))
    with pytest.raises(InputError, match=r"the samples are in \(0\.0, 1\.0\)"):
        gx.create("explainer/deeplift", baseline=given).explain(make_dcgan(), images)


@pytest.mark.parametrize(
    ("explainer", "wrong"),
    [
        (Lime, {"grid": 1}),
        (Lime, {"samples": 64}),
        (Lime, {"ridge": -1.0}),
        (KernelShap, {"samples": 100}),
        (ShapleySampling, {"orders": 0}),
        (Occlusion, {"window": 2, "stride": 3}),
        (GradientShap, {"stdev": 1.0}),
        (GradientShap, {"samples": 0}),
        (NoiseTunnel, {"method": "smooth"}),
        (NoiseTunnel, {"samples": 1, "method": "vargrad"}),
        (NoiseTunnel, {"stdev": 0.0}),
    ],
)
def test_wrong_parameters_are_refused(explainer, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        explainer(**wrong)


def test_noise_tunnel_over_what_has_no_attribute_is_refused(make_dcgan, images):
    with pytest.raises(InputError, match="discriminator/dcgan has no attribute"):
        NoiseTunnel(gx.Spec("discriminator/dcgan", {"size": 16, "channels": 1})).explain(make_dcgan(), images)
