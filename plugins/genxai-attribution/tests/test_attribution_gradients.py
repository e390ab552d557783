"""Saliency and integrated gradients against closed forms and against captum."""

import captum.attr
import pytest
import torch
from genxai_attribution.baselines import baseline_of
from genxai_attribution.gradients import Saliency
from genxai_attribution.integrated import IntegratedGradients
from torch import nn

import genxai_core as gx
from genxai_core.errors import BadParameter, InputError, TargetError


class Linear(gx.Discriminator):
    class_names = ("a", "b")

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        return torch.einsum("nchw,kchw->nk", images, self.weight) + 0.7


class Quadratic(gx.Discriminator):
    """f(x) = xᵀ A x."""

    def __init__(self, size=3):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.A = nn.Parameter(torch.randn(size * size, size * size, generator=generator, dtype=torch.float64))

    def forward(self, images):
        x = images.flatten(1)
        return torch.einsum("ni,ij,nj->n", x, self.A, x)[:, None]


def noise(*shape, seed=5, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def test_saliency_of_a_linear_model_is_its_weight():
    model, images = Linear(), noise(3, 2, 4, 4)
    for target in (0, 1):
        result = Saliency().explain(model, images, target=target)
        assert torch.equal(result.maps, model.weight[target].detach().expand(3, -1, -1, -1))
        assert result.target.tolist() == [target] * 3
        assert torch.allclose(result.logits, model(images)[:, target].detach())


def test_saliency_takes_one_target_per_image():
    model, images = Linear(), noise(3, 2, 4, 4)
    result = Saliency().explain(model, images, target=[1, 0, 1])
    assert torch.equal(result.maps, model.weight.detach()[[1, 0, 1]])


def test_saliency_equals_captum_with_its_sign(make_dcgan, images):
    model = make_dcgan().eval()
    ours = Saliency().explain(model, images).maps
    theirs = captum.attr.Saliency(model).attribute(images.clone().requires_grad_(), target=0, abs=False)
    assert (ours < 0).any()
    torch.testing.assert_close(ours, theirs.detach())


def test_saliency_is_the_finite_difference(make_dcgan, images):
    model = make_dcgan().eval().double()
    images = images.double()
    maps = Saliency().attribute(model, images, 0)
    for y, x in [(0, 0), (7, 3), (15, 15)]:
        step = torch.zeros_like(images)
        step[:, :, y, x] = 1e-6
        difference = (model(images + step) - model(images - step))[:, 0] / 2e-6
        torch.testing.assert_close(maps[:, 0, y, x], difference.detach(), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("baseline", ["low", "mid", "mean", "blur"])
@pytest.mark.parametrize("method", ["gausslegendre", "riemann_middle"])
def test_integrated_gradients_of_a_linear_model(baseline, method):
    model, images = Linear(), noise(3, 2, 4, 4)
    result = IntegratedGradients(steps=4, method=method, baseline=baseline).explain(model, images, target=1)
    torch.testing.assert_close(result.maps, model.weight[1].detach() * (images - result.baseline))
    assert result.delta.shape == (3,)
    assert result.delta.abs().max() < 1e-5
    assert result.notes == {"baseline": baseline, "steps": 4, "method": method}


def test_integrated_gradients_of_a_quadratic_are_exact_with_two_steps():
    model, images = Quadratic(), noise(4, 1, 3, 3, dtype=torch.float64)
    result = IntegratedGradients(steps=2, baseline="low").explain(model, images)
    x, b = images.flatten(1), -torch.ones(4, 9, dtype=torch.float64)
    A = model.A.detach()
    closed = (x - b) * ((x + b) / 2 @ (A + A.T))
    # captum keeps its weights in single precision
    torch.testing.assert_close(result.maps.flatten(1), closed, atol=1e-6, rtol=1e-6)
    assert result.delta.abs().max() < 1e-5


def test_integrated_gradients_equal_a_literal_riemann_sum_and_captum(make_dcgan, images):
    model, steps = make_dcgan().eval(), 16
    result = IntegratedGradients(steps=steps, method="riemann_middle").explain(model, images)
    total = torch.zeros_like(images)
    for k in range(steps):
        point = ((k + 0.5) / steps * images).requires_grad_()
        total += torch.autograd.grad(model(point).sum(), point)[0]
    torch.testing.assert_close(result.maps, images * total / steps, atol=1e-6, rtol=1e-4)
    theirs, delta = captum.attr.IntegratedGradients(model).attribute(
        images, 0.0 * images, target=0, n_steps=steps, method="riemann_middle", return_convergence_delta=True
    )
    torch.testing.assert_close(result.maps, theirs.detach().float(), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(result.delta, delta.float(), atol=2e-6, rtol=1e-3)


def test_delta_is_the_completeness_error_and_falls_with_more_steps(make_dcgan, images):
    model = make_dcgan().eval()
    errors = []
    for steps in (2, 64):
        result = IntegratedGradients(steps=steps, baseline="low").explain(model, images)
        gap = (model(images) - model(torch.full_like(images, -1.0)))[:, 0].detach()
        torch.testing.assert_close(result.delta, result.maps.flatten(1).sum(1) - gap, atol=1e-6, rtol=1e-4)
        errors.append(float(result.delta.abs().max()))
    assert errors[1] < errors[0] / 5


def test_no_more_than_a_batch_passes_through_the_model_at_once(make_dcgan, images):
    model, seen = make_dcgan().eval(), []
    forward = model.forward
    model.forward = lambda x: (seen.append(len(x)), forward(x))[1]
    runtime = gx.Runtime(batch_size=3)
    bounded = IntegratedGradients(steps=8).explain(model, images, runtime=runtime).maps
    assert max(seen) == 3
    seen.clear()
    free = IntegratedGradients(steps=8).explain(model, images).maps
    assert max(seen) == 8 * len(images)
    torch.testing.assert_close(bounded, free, atol=1e-6, rtol=1e-4)
    seen.clear()
    torch.testing.assert_close(IntegratedGradients(steps=8).attribute(model, images, 0), free, atol=1e-6, rtol=1e-4)
    assert max(seen) == len(images)


def test_baselines():
    images = torch.stack([torch.full((1, 6, 6), 0.2), torch.full((1, 6, 6), 0.8)])
    images[1, 0, 0, 0] = 0.1
    assert baseline_of(images, "low", (0.0, 1.0)).unique().tolist() == [0.0]
    assert baseline_of(images, "mid", (0.0, 1.0)).unique().tolist() == [0.5]
    assert baseline_of(images, "mid", (-1.0, 1.0)).unique().tolist() == [0.0]
    mean = baseline_of(images, "mean", (0.0, 1.0))
    torch.testing.assert_close(mean[:, 0, 2, 3], torch.tensor([0.2, (35 * 0.8 + 0.1) / 36]))
    blur = baseline_of(images, "blur", (0.0, 1.0))
    torch.testing.assert_close(blur[0], images[0])
    assert blur[1].std() < images[1].std()


def test_blur_is_the_literal_gaussian_away_from_the_border():
    images = noise(2, 3, 33, 16)
    blurred = baseline_of(images, "blur", (-1.0, 1.0))
    sigma, radius = 33 / 8, int(3 * 33 / 8)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    tall = torch.exp(-(offsets**2) / (2 * sigma**2))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    wide = torch.exp(-(offsets**2) / (2 * sigma**2))
    y, x, total = 16, 8, 0.0
    for i, a in zip(range(y - radius, y + radius + 1), tall / tall.sum()):
        for j, b in zip(range(x - radius, x + radius + 1), wide / wide.sum()):
            mirrored = -j if j < 0 else 30 - j if j > 15 else j
            total = total + a * b * images[:, :, i, mirrored].double()
    torch.testing.assert_close(blurred[:, :, y, x].double(), total, atol=1e-5, rtol=1e-5)


def test_wrong_parameters_are_refused():
    for wrong in ({"steps": 1}, {"method": "riemann_trapezoid"}, {"baseline": "zeero"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            IntegratedGradients(**wrong)
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            gx.create("explainer/integrated-gradients", **wrong)


def test_a_target_that_the_model_lacks_is_refused(images, make_dcgan):
    for explainer in (Saliency(), IntegratedGradients(steps=2)):
        for target in (1, -1):
            with pytest.raises(TargetError, match=str(target)):
                explainer.attribute(make_dcgan().eval(), images, target)


class Detached(gx.Discriminator):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return (images.detach().mean((1, 2, 3)) * self.scale)[:, None]


def test_a_model_that_detaches_its_input_is_refused_by_name(images):
    for name in ("saliency", "integrated-gradients", "cam"):
        with pytest.raises(InputError, match=r"Detached"):
            gx.create(f"explainer/{name}").explain(Detached(), images)


class StartsInPlace(gx.Discriminator):
    def __init__(self):
        super().__init__()
        self.act = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, images):
        return self.act(images).sum((1, 2, 3))[:, None]


def test_a_model_that_starts_with_an_in_place_operation(images):
    before = images.clone()
    slope = torch.where(images > 0, 1.0, 0.2)
    assert torch.equal(Saliency().attribute(StartsInPlace(), images, 0), slope)
    torch.testing.assert_close(IntegratedGradients(steps=2).attribute(StartsInPlace(), images, 0), slope * images)
    assert torch.equal(images, before)
