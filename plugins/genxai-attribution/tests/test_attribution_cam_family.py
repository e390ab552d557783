"""The other class activation maps and the fast path: literal formulas, pytorch-grad-cam, training steps."""

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from genxai_attribution.cam import Cam
from genxai_attribution.fast import cams
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn.functional import interpolate

import genxai_core as gx
from genxai_core.errors import ExplainerError, InputError, TargetError

LIBRARY = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "hirescam": "HiResCAM",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "eigengradcam": "EigenGradCAM",
    "eigencam": "EigenCAM",
}
EIGEN = ("eigengradcam", "eigencam")
LAYERS = ("features.0", "features.1", "features.2", "features.4")


def rectified(model):
    """With ReLU for LeakyReLU: no negative activation, for which formulas are corrected."""
    model.features[1], model.features[4] = nn.ReLU(), nn.ReLU()
    return model.eval()


def the_librarys(method, model, images, layer, size, **more):
    """Its map at the layer's resolution, and the same before it is clipped and scaled."""

    class AtTheLayersResolution(getattr(pytorch_grad_cam, method)):
        raw = None

        def get_target_width_height(self, input_tensor):
            return size[1], size[0]

        def get_cam_image(self, *arguments):
            self.raw = super().get_cam_image(*arguments)
            return self.raw

    with AtTheLayersResolution(model, [model.get_submodule(layer)], **more) as library:
        return library(images, [ClassifierOutputTarget(0)] * len(images)), library.raw


def taken_apart(model, images, layer, target=0):
    last = int(layer.split(".")[1]) + 1
    activations = model.features[:last](images).detach().requires_grad_()
    logits = model.final(model.features[last:](activations)).flatten(1)
    return activations.detach(), torch.autograd.grad(logits[:, target].sum(), activations)[0]


def positions(a):
    return [(y, x) for y in range(a.shape[1]) for x in range(a.shape[2])]


def weight_of(method, a, g):
    """The weight of one channel ``[h, w]``, by hand."""
    a, g = a.double().numpy(), g.double().numpy()
    if method == "gradcam++":
        total, weight = max(a.sum(), 0.0), 0.0
        for value in g.flatten():
            if value > 0:
                weight += value * value**2 / (2 * value**2 + total * value**3 + 1e-6)
        return weight
    quotient = (g * a).sum() / a.sum() if a.sum() != 0 else g.mean()
    return min(max(quotient, g.min()), g.max())


# -- the fast path ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_every_method_and_layer_of_one_pass_equals_the_library(make_dcgan, channels):
    model = rectified(make_dcgan(channels=channels))
    images = torch.rand(4, channels, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    layers = ("features.1", "features.4")
    found = cams(model, images, 0, methods=list(LIBRARY), layers=layers)
    assert set(found) == {(m, layer) for m in LIBRARY for layer in layers}
    for (method, layer), maps in found.items():
        maps = maps.numpy()
        theirs, raw = the_librarys(LIBRARY[method], model, images, layer, maps.shape[1:])
        if method in EIGEN:  # the library's sign is that of its SVD
            sign = np.sign((maps * raw).sum((1, 2), keepdims=True))
            maps = sign * maps
        np.testing.assert_allclose(maps, raw, atol=1e-5 if method in EIGEN else 1e-6, err_msg=method)
        np.testing.assert_allclose(scale_cam_image(scale_cam_image(np.maximum(maps, 0))), theirs, atol=1e-4)


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam"])
@pytest.mark.parametrize("layer", LAYERS)
def test_linear_formulas_equal_the_library_on_leaky_activations_too(make_dcgan, images, method, layer):
    model = make_dcgan().eval()
    maps = cams(model, images, 0, methods=[method], layers=[layer])[method, layer].numpy()
    theirs, raw = the_librarys(LIBRARY[method], model, images, layer, maps.shape[1:])
    np.testing.assert_allclose(maps, raw, atol=1e-6)
    np.testing.assert_allclose(scale_cam_image(scale_cam_image(np.maximum(maps, 0))), theirs, atol=1e-5)


@pytest.mark.parametrize("method", ["gradcam++", "xgradcam"])
@pytest.mark.parametrize("layer", LAYERS)
def test_corrected_formulas_are_the_literal_ones(make_dcgan, images, method, layer):
    model = make_dcgan(classes=3).eval()
    maps = cams(model, images, 2, methods=[method], layers=[layer])[method, layer]
    a, g = taken_apart(model, images, layer, 2)
    literal = torch.zeros_like(maps)
    for i in range(len(images)):
        for k in range(a.shape[1]):
            weight = weight_of(method, a[i, k], g[i, k])
            for y, x in positions(a[i]):
                literal[i, y, x] += weight * a[i, k, y, x]
    torch.testing.assert_close(maps, literal, atol=1e-6, rtol=1e-4)


def test_xgradcam_is_bounded_where_activations_cancel():
    """Sum of activations 1e-6, gradient 1 and 0: the library's weight is of the order 1e6, ours at most 1."""

    class Cancels(gx.Discriminator):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 1, bias=False)
            self.layer.weight.data.fill_(1.0)
            self.weight = nn.Parameter(torch.tensor([[1.0, 0.0]]))

        def forward(self, images):
            return (self.layer(images) * self.weight).sum((1, 2, 3))[:, None]

    images = torch.tensor([[[[1.0, -1.0 + 1e-6]]]])
    _, raw = the_librarys("XGradCAM", Cancels(), images, "layer", (1, 2))
    assert np.abs(raw).max() > 1e5
    torch.testing.assert_close(Cam("xgradcam").attribute(Cancels(), images, 0), images[:, 0])


def test_one_pass_equals_the_explainer_and_only_runs_once(make_dcgan, images):
    model, passes = make_dcgan().eval(), []
    model.final.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    found = cams(model, images, 0, methods=["gradcam", "layercam", "xgradcam"], layers=LAYERS)
    assert passes == [5]
    for (method, layer), maps in found.items():
        torch.testing.assert_close(maps, Cam(method, layer).at_layer(model, images, 0).maps)
    auto = cams(model, images, 0, methods=["gradcam"], layers=["auto"])
    torch.testing.assert_close(auto["gradcam", "auto"], found["gradcam", "features.4"])


def test_no_graph_is_kept_before_the_first_layer_and_none_of_the_weights(make_dcgan, images):
    model, modes = make_dcgan().train(), []
    for name in ("features.0", "features.2", "features.4"):
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output: modes.append((torch.is_grad_enabled(), output.requires_grad))
        )
    cams(model, images, 0, methods=["gradcam"], layers=["features.2"])
    assert modes[0] == (False, False)
    assert modes[-1] == (True, True)
    assert torch.is_grad_enabled()
    assert all(p.grad is None for p in model.parameters())


def test_inside_a_training_step_nothing_of_the_model_moves(make_dcgan, images, fingerprint):
    model = make_dcgan().eval()
    generated = (images * nn.Parameter(torch.tensor(0.9))).tanh()
    model(images).sum().backward()
    loss = model(generated).sum()
    before = fingerprint(model)
    found = cams(model, generated, 0, methods=list(LIBRARY), layers=LAYERS)
    assert fingerprint(model) == before
    assert not any(maps.requires_grad for maps in found.values())
    loss.backward()
    with torch.no_grad():
        again = cams(model, generated, 0, methods=list(LIBRARY), layers=LAYERS)
    assert torch.is_grad_enabled()
    for key, maps in found.items():
        assert torch.equal(maps, again[key])


def test_layers_side_by_side():
    """Two branches, neither of which depends on the other, and the sum of both."""

    class Branches(gx.Discriminator):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.both = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 3, 3), nn.Conv2d(5, 2, 3)

        def forward(self, images):
            joined = torch.cat([self.left(images), self.right(images)], 1)
            return self.both(joined).tanh().sum((1, 2, 3))[:, None]

    torch.manual_seed(0)
    model, images = Branches(), torch.rand(2, 1, 8, 8)
    together = cams(model, images, 0, methods=["hirescam"], layers=["left", "right", "both"])
    for name in ("left", "right", "both"):
        (alone,) = cams(model, images, 0, methods=["hirescam"], layers=[name]).values()
        torch.testing.assert_close(together["hirescam", name], alone)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_bfloat16(make_dcgan, images, weights):
    full = cams(make_dcgan().eval(), images, 0, methods=list(LIBRARY), layers=["features.4"])
    with torch.autocast("cpu", torch.bfloat16, enabled=weights is torch.float32):
        half = cams(
            make_dcgan().eval().to(weights), images.to(weights), 0, methods=list(LIBRARY), layers=["features.4"]
        )
    for key, maps in half.items():
        assert maps.dtype == torch.float32
        assert (maps - full[key]).norm() < 0.1 * full[key].norm(), key


def test_errors_name_the_layer_or_the_method(make_dcgan, images):
    model = make_dcgan().eval()
    with pytest.raises(ValueError, match="gradcan"):
        cams(model, images, 0, methods=["gradcan"])
    with pytest.raises(InputError, match=r"'feature\.4'.*did you mean"):
        cams(model, images, 0, layers=["features.4", "feature.4"])
    with pytest.raises(InputError, match=r"'final' cannot be used: its map is 1x1"):
        cams(model, images, 0, layers=["final"])
    with pytest.raises(TargetError):
        cams(model, images, 1, layers=["features.4"])
    model.features[0].bias.data[0] = float("nan")
    with pytest.raises(ExplainerError, match=r"features\.0.*NaN"):
        cams(model, images, 0, layers=["features.0"])
    assert all(not m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_finer_cam_equals_the_library(make_dcgan, images, classes):
    model = make_dcgan(classes=classes).eval()
    maps = Cam("finer-cam", "features.4").at_layer(model, images, 1).maps
    raw = []

    class Base(pytorch_grad_cam.GradCAM):
        def get_cam_image(self, *arguments):
            raw.append(super().get_cam_image(*arguments))
            return raw[-1]

    with pytorch_grad_cam.FinerCAM(model, [model.features[4]], base_method=Base) as library:
        library(images, target_idx=1)
    np.testing.assert_allclose(maps, raw[0], atol=1e-6)
    if classes == 2:  # of two classes, it is the Grad-CAM of the difference
        one, other = (Cam("gradcam", "features.4").at_layer(model, images, t).maps for t in (1, 0))
        torch.testing.assert_close(maps, one - other, atol=1e-6, rtol=1e-4)


def test_finer_cam_of_a_single_logit_is_refused(make_dcgan, images):
    with pytest.raises(TargetError, match="a single logit; use gradcam"):
        Cam("finer-cam").explain(make_dcgan(), images)


# -- by masking and by ablation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["features.1", "features.4"])
def test_scorecam_is_the_literal_formula_and_the_librarys_but_for_aligned_corners(
    make_dcgan, images, layer, monkeypatch
):
    model = make_dcgan().eval()
    maps = Cam("scorecam", layer).at_layer(model, images, 0).maps
    a, _ = taken_apart(model, images, layer)
    for i, image in enumerate(images):
        scores = []
        for channel in a[i]:
            mask = interpolate(channel[None, None], size=(16, 16), mode="bilinear", align_corners=False)[0]
            mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-8)
            with torch.no_grad():
                scores.append(model((image * mask)[None])[0, 0])
        literal = torch.einsum("k,khw->hw", torch.stack(scores).softmax(0), a[i])
        torch.testing.assert_close(maps[i], literal, atol=1e-6, rtol=1e-4)
    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size, mode="bilinear"))
    theirs, raw = the_librarys("ScoreCAM", model, images, layer, maps.shape[1:])
    np.testing.assert_allclose(maps, raw, atol=1e-5)
    np.testing.assert_allclose(scale_cam_image(scale_cam_image(np.maximum(maps.numpy(), 0))), theirs, atol=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_ablationcam_sets_one_channel_to_zero_at_a_time(make_dcgan, images, layer):
    model = make_dcgan(classes=2).eval()
    maps = Cam("ablationcam", layer).at_layer(model, images, 1).maps
    last = int(layer.split(".")[1]) + 1
    with torch.no_grad():
        a = model.features[:last](images)
        whole, literal = model(images)[:, 1], torch.zeros_like(maps)
        for k in range(a.shape[1]):
            off = a.clone()
            off[:, k] = 0
            drop = whole - model.final(model.features[last:](off)).flatten(1)[:, 1]
            literal += drop[:, None, None] * a[:, k]
    torch.testing.assert_close(maps, literal, atol=1e-6, rtol=1e-4)


def test_ablationcam_is_the_librarys_where_that_is_right(images):
    """One channel, ReLU, a positive logit: no order of channels, zero instead of min - 1e7, no map turned round."""

    class One(gx.Discriminator):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.ReLU())

        def forward(self, images):
            return self.net(images).mean((2, 3))

    torch.manual_seed(1)
    model = One().eval()
    assert (model(images) > 0).all()
    assert (model.net(images).amin((1, 2, 3)) == 0).all()
    maps = Cam("ablationcam", "net.1").at_layer(model, images, 0).maps
    whole = model(images).detach()
    theirs, raw = the_librarys("AblationCAM", model, images, "net.1", maps.shape[1:])
    torch.testing.assert_close(maps, whole[..., None] * torch.from_numpy(raw))  # it divides by the logit
    np.testing.assert_allclose(scale_cam_image(scale_cam_image(np.maximum(maps.numpy(), 0))), theirs, atol=1e-5)


@pytest.mark.parametrize("method", ["scorecam", "ablationcam"])
def test_channels_share_a_pass_and_no_more_than_a_batch(make_dcgan, images, method):
    model, seen = make_dcgan().eval(), []
    forward = model.forward
    model.forward = lambda x: (seen.append(len(x)), forward(x))[1]
    bounded = Cam(method).explain(model, images, runtime=gx.Runtime(batch_size=6)).maps
    assert max(seen) <= 6
    seen.clear()
    free = Cam(method).explain(model, images).maps
    assert max(seen) == 50  # ten channels of five images
    torch.testing.assert_close(bounded, free, atol=1e-6, rtol=1e-4)
