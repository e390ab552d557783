"""Guided backpropagation, deconvolution and DeepLIFT: literal rules, captum, and networks that captum gets wrong."""

import captum.attr
import pytest
import torch
from genxai_attribution.deeplift import DeepLift, DeepLiftShap
from genxai_attribution.gradients import InputXGradient, Saliency
from genxai_attribution.rectified import Deconvolution, GuidedBackprop
from torch import nn
from torch.nn import functional as F

import genxai_core as gx
from genxai_core.errors import InputError, TargetError


class Net(gx.Discriminator):
    """Two convolutions and a head; ``act`` is what is done between them, by module or by function."""

    def __init__(self, act, pool=None):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.class_names = ("a", "b")
        self.one, self.two, self.head = nn.Conv2d(1, 5, 3, 2, 1), nn.Conv2d(5, 6, 3, 2, 1), nn.Linear(96, 2)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.3
        self.acts = nn.ModuleList([act() for _ in range(2)]) if isinstance(act, type) else act
        self.pool = pool or nn.Identity()

    def forward(self, images):
        first, second = self.acts if isinstance(self.acts, nn.ModuleList) else (self.acts, self.acts)
        return self.head(self.pool(second(self.two(first(self.one(images))))).flatten(1))


def leaky(x):
    return F.leaky_relu(x, 0.2)


def leaky_in_place(x):
    F.leaky_relu_(x, 0.2)  # the result is not taken, the tensor changed
    return x


FORMS = {
    "modules": nn.ModuleList([nn.LeakyReLU(0.2), nn.LeakyReLU(0.2)]),
    "one module twice": nn.LeakyReLU(0.2),
    "in place": nn.ModuleList([nn.LeakyReLU(0.2, inplace=True), nn.LeakyReLU(0.2, inplace=True)]),
    "one module twice in place": nn.LeakyReLU(0.2, inplace=True),
    "function": leaky,
    "function in place": leaky_in_place,
    "sum": lambda x: 0.2 * x + 0.8 * x.relu(),
}
forms = pytest.mark.parametrize("form", list(FORMS))


@pytest.fixture
def pictures():
    return torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def literal(model, images, target, back):
    """Go through the two layers by hand; ``back(gradient, derivative)`` is the rule."""
    with torch.no_grad():
        one = model.one(images)
        two = model.two(leaky(one))
        gradient = model.head.weight[target].expand(len(images), -1).reshape(two.shape)
        gradient = back(gradient, torch.where(two > 0, 1.0, 0.2))
        gradient = F.conv_transpose2d(gradient, model.two.weight, stride=2, padding=1, output_padding=1)
        gradient = back(gradient, torch.where(one > 0, 1.0, 0.2))
        return F.conv_transpose2d(gradient, model.one.weight, stride=2, padding=1, output_padding=1)


@forms
@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize(
    ("explainer", "back"),
    [
        (GuidedBackprop(), lambda gradient, slope: gradient.clamp(min=0) * slope),
        (Deconvolution(), lambda gradient, slope: gradient.clamp(min=0)),
    ],
)
def test_leaky_rectifiers_go_by_the_stated_rule_in_every_form(pictures, explainer, back, target, form):
    model = Net(FORMS[form]).eval()
    if form == "sum":  # two functions: the rule is applied to the rectifier alone
        assert not torch.allclose(explainer.explain(model, pictures, target=target).maps, pictures)
        return
    maps = explainer.explain(model, pictures, target=target).maps
    torch.testing.assert_close(maps, literal(model, pictures, target, back))
    plain = Saliency().explain(model, pictures, target=target).maps
    assert not torch.allclose(maps, plain, atol=1e-2)  # which is what captum returns


@pytest.mark.parametrize("ours", [GuidedBackprop, Deconvolution])
def test_rectified_gradients_equal_captum_on_relu(pictures, ours):
    model = Net(nn.ReLU, nn.MaxPool2d(1)).eval()
    theirs = getattr(captum.attr, ours.__name__)(model).attribute(pictures.clone().requires_grad_(), target=1)
    torch.testing.assert_close(ours().explain(model, pictures, target=1).maps, theirs.detach())
    net = Net(nn.LeakyReLU).eval()
    unaware = getattr(captum.attr, ours.__name__)(net).attribute(pictures.clone().requires_grad_(), target=1)
    torch.testing.assert_close(unaware.detach(), Saliency().explain(net, pictures, target=1).maps)  # silently


def test_deconvolution_is_the_same_map_for_every_image(make_dcgan, images):
    maps = Deconvolution().explain(make_dcgan(), images).maps
    torch.testing.assert_close(maps, maps[:1].expand_as(maps))


@pytest.mark.parametrize("ours", [GuidedBackprop, Deconvolution])
def test_a_network_without_rectifiers_is_refused(pictures, ours):
    with pytest.raises(InputError, match=r"Net has no rectifier.*explainer/saliency"):
        ours().explain(Net(nn.Tanh), pictures, target=0)


# -- DeepLIFT -----------------------------------------------------------------------------------------------------


@forms
@pytest.mark.parametrize("baseline", ["mid", "blur", "noise"])
def test_deeplift_is_complete_and_the_same_in_every_form(pictures, baseline, form):
    model = Net(FORMS[form]).eval()
    result = DeepLift(baseline).explain(model, pictures, target=1)
    gap = (model(pictures) - model(result.baseline))[:, 1].detach()
    torch.testing.assert_close(result.maps.flatten(1).sum(1), gap, atol=1e-5, rtol=1e-5)
    assert result.delta.abs().max() < 1e-5
    reference = DeepLift(baseline).explain(Net(FORMS["modules"]).eval(), pictures, target=1)
    torch.testing.assert_close(result.maps, reference.maps, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("act", [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.Softplus])
def test_deeplift_equals_captum(pictures, act):
    model = Net(act).eval()
    for baseline, value in (("mid", 0.0), ("low", -1.0)):
        theirs = captum.attr.DeepLift(model).attribute(pictures, torch.full_like(pictures, value), target=1)
        ours = DeepLift(baseline).explain(model, pictures, target=1).maps
        torch.testing.assert_close(ours, theirs.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("act", [nn.GELU, nn.SiLU, nn.Mish, nn.ReLU6, nn.SELU, nn.PReLU, nn.Hardswish])
def test_deeplift_is_complete_where_captum_has_no_rule(pictures, act):
    result = DeepLift("low").explain(Net(act), pictures, target=0)
    assert result.delta.abs().max() < 1e-5


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(1), lambda x: F.max_pool2d(x, 3, 1, 1)])
def test_max_pooling_is_complete(pictures, pool):
    model = Net(nn.ReLU).eval()
    model.head.register_forward_pre_hook(lambda module, given: (pool(given[0].view(-1, 6, 4, 4)).flatten(1),))
    assert DeepLift("low").explain(model, pictures, target=0).delta.abs().max() < 1e-5


def test_max_pooling_equals_captum_where_captum_is_complete(pictures):
    model = Net(nn.Tanh, nn.MaxPool2d(2, 1, 1)).eval()
    model.head = nn.Linear(150, 2)
    library = captum.attr.DeepLift(model)
    theirs, delta = library.attribute(pictures, torch.full_like(pictures, -1), target=1, return_convergence_delta=True)
    ours = DeepLift("low").explain(model, pictures, target=1)
    assert ours.delta.abs().max() < 1e-5
    complete = delta.abs() < 1e-5  # windows that overlap overwrite each other in captum
    torch.testing.assert_close(ours.maps[complete], theirs[complete].detach(), atol=1e-5, rtol=1e-4)


def test_deeplift_by_hand_on_one_unit():
    """y = relu(x₁ + 2 x₂ − 1): from (0, 0) to (1, 2) the output goes 0 -> 4 and the input by 5: multiplier 0.8."""

    class Unit(gx.Discriminator):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))

        def forward(self, images):
            return torch.relu(images.flatten(1) @ self.weight - 1)[:, None]

    maps = DeepLift("zero").attribute(Unit(), torch.tensor([[[[1.0, 2.0]]]]), 0)
    torch.testing.assert_close(maps, torch.tensor([[[[0.8, 3.2]]]]))


class Gated(Net):
    def __init__(self):
        super().__init__(nn.ReLU)

    def forward(self, images):
        hidden = self.two(self.one(images))
        return self.head((hidden * hidden.sigmoid()).flatten(1))


class Normed(Net):
    def __init__(self):
        super().__init__(nn.ReLU)
        self.norm = nn.InstanceNorm2d(5)

    def forward(self, images):
        return self.head(self.two(self.norm(self.one(images)).relu()).flatten(1))


class Written(Net):
    def __init__(self):
        super().__init__(lambda x: torch.where(x > 0, x, 0.2 * x))


@pytest.mark.parametrize(("model", "operation"), [(Gated(), "mul"), (Normed(), "instance_norm"), (Written(), "where")])
def test_what_has_no_rule_is_refused_and_not_wrong(pictures, model, operation):
    for explainer in (DeepLift("low"), DeepLiftShap()):
        with pytest.raises(InputError, match=rf"DeepLIFT does not apply.*{operation}.*integrated-gradients"):
            explainer.explain(model, pictures, target=0)
        with pytest.raises(InputError, match="DeepLIFT does not apply"):
            explainer.attribute(model.eval(), pictures, 0)


def test_deeplift_shap_is_the_mean_over_references_and_equals_captum(pictures):
    model = Net(nn.LeakyReLU).eval()
    references = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(4)) * 2 - 1
    ours = DeepLiftShap(references).explain(model, pictures, target=1)
    each = [DeepLift(r).explain(model, pictures, target=1).maps for r in references]
    torch.testing.assert_close(ours.maps, torch.stack(each).mean(0))
    theirs = captum.attr.DeepLiftShap(model).attribute(pictures, references, target=1)
    torch.testing.assert_close(ours.maps, theirs.detach(), atol=1e-6, rtol=1e-4)
    gap = (model(pictures)[:, 1] - model(references)[:, 1].mean()).detach()
    torch.testing.assert_close(ours.maps.flatten(1).sum(1), gap, atol=1e-5, rtol=1e-5)
    assert ours.notes == {"baseline": "tensor", "references": 3}
    as_samples = gx.Samples(references, value_range=(-1.0, 1.0))
    assert torch.equal(DeepLiftShap(as_samples).explain(model, pictures, target=1).maps, ours.maps)


def test_one_reference_is_refused_by_deeplift_shap():
    for wrong in ({"baseline": "mid"}, {"baseline": torch.zeros(1, 4, 4)}, {"references": 1}):
        with pytest.raises(ValueError, match="explainer/deeplift"):
            DeepLiftShap(**wrong)


def test_no_more_than_a_batch_passes_through_deeplift(pictures, make_dcgan):
    model, seen = make_dcgan().eval(), []
    forward = model.forward
    model.forward = lambda x: (seen.append(len(x)), forward(x))[1]
    for explainer in (DeepLift(), DeepLiftShap(references=3)):
        seen.clear()
        bounded = explainer.explain(model, pictures, runtime=gx.Runtime(batch_size=4)).maps
        assert max(seen) == 4
        torch.testing.assert_close(bounded, explainer.attribute(model, pictures, 0), atol=1e-6, rtol=1e-4)
        assert max(seen) == 8


@pytest.mark.parametrize("explainer", [DeepLift(), GuidedBackprop(), Deconvolution()])
def test_bfloat16(make_dcgan, images, explainer):
    full = explainer.explain(make_dcgan(), images).maps
    half = explainer.explain(make_dcgan(), images, runtime=gx.Runtime(precision="bfloat16", device="cpu")).maps
    assert half.dtype == torch.float32
    assert (half - full).norm() < 0.1 * full.norm()
    for target in (1, -1):
        with pytest.raises(TargetError):
            explainer.attribute(make_dcgan().eval(), images, target)


def test_input_x_gradient(pictures):
    model = Net(nn.ReLU).eval()
    ours = InputXGradient().explain(model, pictures, target=1).maps
    torch.testing.assert_close(ours, pictures * Saliency().explain(model, pictures, target=1).maps)
    for layer in (model.one, model.two, model.head):
        layer.bias.data.zero_()
    without = InputXGradient().explain(model, pictures, target=1)
    torch.testing.assert_close(without.maps.flatten(1).sum(1), without.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(without.maps, DeepLift("zero").explain(model, pictures, target=1).maps, atol=1, rtol=1)
