"""Class activation maps: against literal formulas, against pytorch-grad-cam, and at the layers that have no map."""

import numpy as np
import pytest
import torch
from genxai_attribution.cam import Cam
from genxai_attribution.layers import find, observe
from pytorch_grad_cam import EigenCAM, GradCAM, LayerCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn.functional import leaky_relu

import genxai_core as gx
from genxai_core.errors import BadParameter, ExplainerError, InputError, TargetError

METHODS = ("gradcam", "layercam", "eigencam")
LAYERS = ("features.0", "features.1", "features.2", "features.4")


def taken_apart(model, images, layer, target=0):
    """Activations of a layer of SmallDCGAN and the gradient of the logit by them, without any hook."""
    last = int(layer.split(".")[1]) + 1
    activations = model.features[:last](images).detach().requires_grad_()
    logits = model.final(model.features[last:](activations)).flatten(1)
    return activations.detach(), torch.autograd.grad(logits[:, target].sum(), activations)[0]


def literal(method, activations, gradients):
    n, channels, height, width = activations.shape
    maps = torch.zeros(n, height, width)
    for i in range(n):
        for k in range(channels):
            alpha = sum(gradients[i, k, y, x] for y in range(height) for x in range(width)) / (height * width)
            for y in range(height):
                for x in range(width):
                    weight = alpha if method == "gradcam" else max(gradients[i, k, y, x], 0.0)
                    maps[i, y, x] += weight * activations[i, k, y, x]
    return maps


# -- the formulas -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_equals_the_literal_formula(make_dcgan, images, method, layer):
    model = make_dcgan(classes=3).eval()
    for target in (0, 2):
        ours = Cam(method, layer).at_layer(model, images, target)
        torch.testing.assert_close(ours.maps, literal(method, *taken_apart(model, images, layer, target)))
        assert torch.equal(ours.logits, model(images)[:, target].detach())


@pytest.mark.parametrize("layer", LAYERS)
def test_eigencam_is_the_first_principal_component(make_dcgan, images, layer):
    model = make_dcgan().eval()
    maps = Cam("eigencam", layer).at_layer(model, images, 0).maps
    activations, _ = taken_apart(model, images, layer)
    for ours, of_image in zip(maps, activations):
        points = of_image.flatten(1).T.double()
        centred = points - points.mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        projection = centred @ vectors[:, -1]
        torch.testing.assert_close(ours.flatten().double().abs(), projection.abs(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close((ours.double() ** 2).sum(), values[-1], rtol=1e-4, atol=1e-8)
        assert np.corrcoef(ours.flatten(), points.sum(1))[0, 1] > 0


@pytest.mark.parametrize(
    ("method", "ends"),
    [("gradcam", ["against", "for"]), ("layercam", ["against", "for"]), ("eigencam", ["less active", "more active"])],
)
def test_the_scale_of_a_picture_says_what_its_ends_mean(make_dcgan, images, tmp_path, method, ends):
    found = Cam(method).explain(make_dcgan().eval(), images)
    for attribution in (found, gx.Attribution.load(found.save(tmp_path / method))):
        bar = attribution.plot().axes[1]
        assert [label.get_text() for label in bar.get_yticklabels()] == [ends[0], "0", ends[1]]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("method", METHODS)
def test_equals_the_library_after_its_clipping_and_scaling(make_dcgan, method, layer, channels):
    model = make_dcgan(channels=channels).eval()
    images = torch.rand(4, channels, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    maps = Cam(method, layer).at_layer(model, images, 0).maps.numpy()
    reference = {"gradcam": GradCAM, "layercam": LayerCAM, "eigencam": EigenCAM}[method]

    class AtTheLayersResolution(reference):
        raw = None

        def get_target_width_height(self, input_tensor):
            return maps.shape[2], maps.shape[1]

        def get_cam_image(self, *arguments):
            self.raw = super().get_cam_image(*arguments)
            return self.raw

    with AtTheLayersResolution(model, [model.get_submodule(layer)]) as library:
        theirs = library(images, [ClassifierOutputTarget(0)] * len(images))
        raw = library.raw
    if method == "eigencam":  # the library's sign is that of its SVD
        sign = np.sign((maps * raw).sum((1, 2), keepdims=True))
        np.testing.assert_allclose(maps, sign * raw, atol=1e-5)  # its SVD is in single precision
        maps = sign * maps
    else:
        np.testing.assert_allclose(maps, raw, atol=1e-7)
        assert (maps < 0).any()  # the sign that the library drops
    np.testing.assert_allclose(scale_cam_image(scale_cam_image(np.maximum(maps, 0))), theirs, atol=1e-5)


def test_upsampling_is_bilinear_without_aligned_corners(make_dcgan, images):
    model = make_dcgan().eval()
    cam = Cam("gradcam", "features.4")
    small, large = cam.at_layer(model, images, 0).maps, cam.explain(model, images).maps
    assert large.shape == (5, 16, 16)
    for y, x in [(0, 0), (0, 15), (15, 15), (1, 7), (6, 9)]:
        v, u = (min(max((p + 0.5) * 4 / 16 - 0.5, 0.0), 3.0) for p in (y, x))
        top, left = min(int(v), 2), min(int(u), 2)
        a, b = v - top, u - left
        value = (
            (1 - a) * (1 - b) * small[:, top, left]
            + (1 - a) * b * small[:, top, left + 1]
            + a * (1 - b) * small[:, top + 1, left]
            + a * b * small[:, top + 1, left + 1]
        )
        torch.testing.assert_close(large[:, y, x], value)


def test_maps_are_not_clipped_and_not_scaled(make_dcgan, images):
    model = make_dcgan().eval()
    double = make_dcgan().eval()
    double.forward = lambda x: 2 * model(x)
    double.features = model.features
    once, twice = (Cam("gradcam", "features.4").explain(m, images).maps for m in (model, double))
    torch.testing.assert_close(twice, 2 * once)
    assert (once < 0).any()
    assert len({round(float(v), 5) for v in once.flatten(1).amax(1)}) == 5


class Head(gx.Discriminator):
    """Activations are the image's two channels; each position has its own weight."""

    def __init__(self, weight):
        super().__init__()
        self.layer, self.weight = nn.Identity(), nn.Parameter(weight)

    def forward(self, images):
        return (self.layer(images) * self.weight).sum((1, 2, 3))[:, None]


def test_gradcam_is_exact_under_global_pooling_and_not_under_weights_by_position():
    images = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    pooled = Head(torch.tensor([1.5, -2.0])[:, None, None].expand(2, 4, 4).clone())
    torch.testing.assert_close(Cam().explain(pooled, images).maps, (images * pooled.weight).sum(1).detach())
    weight = torch.zeros(2, 4, 4)
    weight[0, 0, 0], weight[0, 3, 3] = 3.0, -1.0  # the mean is positive, so Grad-CAM has (3, 3) speak for the target
    maps = Cam().explain(Head(weight), torch.ones(1, 2, 4, 4)).maps
    torch.testing.assert_close(maps, torch.full((1, 4, 4), 2 / 16))
    layercam = Cam("layercam").explain(Head(weight), torch.ones(1, 2, 4, 4)).maps
    torch.testing.assert_close(layercam, weight.clamp(min=0).sum(0)[None])


# -- the layer ----------------------------------------------------------------------------------------------------


def test_auto_takes_the_last_map_with_spatial_extent_and_says_so(make_dcgan, images):
    result = Cam().explain(make_dcgan(), images)
    assert result.notes == {"method": "gradcam", "layer": "features.4", "resolution": "4x4"}
    named = Cam(layer="features.4").explain(make_dcgan(), images)
    assert torch.equal(result.maps, named.maps)


@pytest.mark.parametrize("name", ["final", "features.0.parametrizations.weight.0", "features.9", "feature.4"])
def test_a_layer_without_a_map_is_refused(make_dcgan, images, name):
    reason = "1x1: one value" if name == "final" else "has no such layer"
    with pytest.raises(InputError, match=rf"{name}.*{reason}.*features\.2 \(4x4\)") as caught:
        Cam(layer=name).explain(make_dcgan(), images)
    assert "final (" not in str(caught.value)
    if name.startswith("feature") and "param" not in name:
        assert "did you mean 'features." in str(caught.value)


class Odd(gx.Discriminator):
    """What hand-written discriminators do: one activation object used twice, a spare layer, in-place operations."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.act = nn.LeakyReLU(0.2, inplace=True)
        self.spare = nn.Conv2d(4, 4, 3, 1, 1)
        self.aside = nn.Conv2d(4, 4, 3, 1, 1)
        self.head = nn.Linear(4 * 4 * 4, 1)

    def forward(self, images):
        hidden = self.act(self.conv2(self.act(self.conv1(images))))
        self.aside(hidden)
        return self.head(hidden.flatten(1))


@pytest.fixture
def odd():
    torch.manual_seed(0)
    return Odd().eval()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("act", "it runs 2 times in one forward pass"),
        ("spare", "takes no part in the forward pass"),
        ("head", r"its output is \[N, 1\], not a map \[N, C, H, W\]"),
        ("aside", "the logit does not depend on it"),
    ],
)
def test_layers_that_have_no_single_differentiable_map_are_refused(odd, images, name, reason):
    with pytest.raises(InputError, match=f"layer '{name}' cannot be used: .*{reason}"):
        Cam(layer=name).explain(odd, images)


def test_in_place_activations_do_not_change_what_is_recorded(odd, images):
    conv = Cam("gradcam", "conv2").at_layer(odd, images, 0).maps
    with torch.no_grad():
        hidden = odd.conv2(leaky_relu(odd.conv1(images), 0.2))
    leaf = hidden.requires_grad_()
    gradient = torch.autograd.grad(odd.head(leaky_relu(leaf, 0.2).flatten(1)).sum(), leaf)[0]
    torch.testing.assert_close(conv, (gradient.mean((2, 3), keepdim=True) * hidden).sum(1).detach())
    assert (hidden < 0).any()  # the in-place activation would have changed these


@pytest.mark.parametrize("layer", ["auto", *LAYERS])
@pytest.mark.parametrize("method", METHODS)
def test_in_place_equals_out_of_place(make_dcgan, images, method, layer):
    here, there = (Cam(method, layer).explain(make_dcgan(inplace=flag), images) for flag in (True, False))
    assert here.notes == there.notes
    torch.testing.assert_close(here.maps, there.maps)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(x + self.conv(self.relu(x)))


class ResNetLike(gx.Discriminator):
    """Adds in the forward and pools to 1x1: the last map is the output of a block, not of a leaf."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(1, 4, 3, 2, 1), nn.Sequential(Residual(), Residual())
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 1)

    def forward(self, images):
        return self.head(self.pool(self.blocks(self.stem(images))).flatten(1))


def test_auto_finds_a_block_whose_activation_runs_twice(images):
    model = ResNetLike().eval()
    result = Cam().explain(model, images)
    assert result.notes["layer"] == "blocks.1"
    assert observe(model, images[:1])["blocks.1.relu"].calls == 2


class Upwards(gx.Discriminator):
    """A transposed convolution and a permuted, non-contiguous map."""

    def __init__(self):
        super().__init__()
        self.down, self.up, self.head = nn.Conv2d(1, 3, 4, 4), nn.ConvTranspose2d(3, 3, 2, 2), nn.Linear(192, 1)
        self.turn = nn.Identity()

    def forward(self, images):
        return self.head(self.turn(self.up(self.down(images)).permute(0, 1, 3, 2)).flatten(1))


@pytest.mark.parametrize("method", METHODS)
def test_transposed_maps(images, method):
    torch.manual_seed(0)
    model = Upwards().eval()
    turned, straight = (Cam(method, layer).at_layer(model, images, 0) for layer in ("auto", "up"))
    assert (turned.layer.name, turned.layer.resolution) == ("turn", "8x8")
    torch.testing.assert_close(turned.maps, straight.maps.permute(0, 2, 1), atol=1e-6, rtol=1e-4)


class Dense(gx.Discriminator):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(256, 1))

    def forward(self, images):
        return self.net(images)


def test_a_model_without_maps_is_refused_with_an_alternative(images):
    with pytest.raises(InputError, match=r"Dense has no layer.*explainer/saliency"):
        Cam().explain(Dense(), images)


def test_finding_a_layer_moves_no_statistics_of_a_model_in_training(make_dcgan, images, fingerprint):
    model = make_dcgan(batchnorm=True).train()
    before = fingerprint(model)
    assert find(model, images[:1], "auto").name == "features.4"
    assert fingerprint(model) == before


def test_wrong_parameters_and_targets_are_refused(make_dcgan, images):
    with pytest.raises(ValueError, match="gradcan"):
        Cam("gradcan")
    with pytest.raises(BadParameter, match=r"layr.*did you mean 'layer'"):
        gx.create("explainer/cam", layr="x")
    for target in (1, -1):
        with pytest.raises(TargetError):
            Cam().attribute(make_dcgan().eval(), images, target)


@pytest.mark.parametrize("method", METHODS)
def test_activations_that_are_not_finite_are_an_error_not_a_zero(make_dcgan, images, method):
    model = make_dcgan()
    model.features[0].bias.data[0] = float("nan")
    with pytest.raises(ExplainerError, match=r"features\.4.*NaN"):
        Cam(method).explain(model, images)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16(make_dcgan, images, method):
    full = Cam(method).explain(make_dcgan(), images).maps
    half = Cam(method).explain(make_dcgan(), images, runtime=gx.Runtime(precision="bfloat16", device="cpu")).maps
    assert half.dtype == torch.float32
    assert (half - full).norm() < 0.05 * full.norm()
