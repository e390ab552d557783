"""Every explainer on every kind of head of a discriminator, through the adapters: "why real" against "why fake"."""

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

import genxai_core as gx

EXPLAINERS = [
    ("saliency", {}),
    ("input-x-gradient", {}),
    ("integrated-gradients", {"steps": 8, "baseline": "low"}),
    ("deeplift", {"baseline": "low"}),
    ("deeplift-shap", {"references": 2}),
    ("gradient-shap", {"samples": 4}),
    ("guided-backprop", {}),
    ("deconvolution", {}),
    ("lime", {"grid": 4, "samples": 64}),
    ("kernel-shap", {"grid": 2, "samples": 14}),
    ("shapley-sampling", {"grid": 4, "orders": 2}),
    ("occlusion", {"window": 4, "stride": 4}),
    ("noise-tunnel", {"samples": 4}),
    ("noise-tunnel", {"samples": 4, "method": "smoothgrad-sq"}),
    ("noise-tunnel", {"samples": 4, "method": "vargrad"}),
    ("fullgrad", {}),
    *(("cam", {"method": m}) for m in ("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam")),
    *(("cam", {"method": m}) for m in ("eigengradcam", "eigencam", "scorecam", "ablationcam")),
]
NOT_OPPOSITE = {
    "rectified": {"guided-backprop", "deconvolution", "layercam", "gradcam++"},
    "target ignored": {"eigencam"},
    "unsigned": {"smoothgrad-sq", "vargrad", "scorecam"},
}
"""The lists of the documentation."""


def trunk(seed=0, channels=1):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(6, 8, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)
    )


class Sign(nn.Module):
    def __init__(self, sign):
        super().__init__()
        self.sign = sign

    def forward(self, x):
        return self.sign * x


class Scales(nn.Module):
    """Two discriminators, of the image and of half of it; a list of patch heads, as in pix2pixHD."""

    def __init__(self, sign):
        super().__init__()
        self.scales = nn.ModuleList(nn.Sequential(trunk(seed), nn.Conv2d(8, 1, 3, 1, 1), Sign(sign)) for seed in (0, 1))

    def forward(self, images):
        return [self.scales[0](images), self.scales[1](avg_pool2d(images, 2))]


class Projection(nn.Module):
    """Miyato and Koyama's head: the features against an embedding of the label."""

    def __init__(self, sign):
        super().__init__()
        self.trunk, self.embedding, self.head = trunk(), nn.Embedding(3, 8), nn.Linear(8, 1)
        self.sign = sign

    def forward(self, images, labels):
        pooled = self.trunk(images).sum((2, 3))
        return self.sign * (self.head(pooled) + (self.embedding(labels) * pooled).sum(1, keepdim=True))


def single(sign):
    net = nn.Sequential(trunk(), nn.Conv2d(8, 1, 4), nn.Flatten(), Sign(sign))
    return gx.adapt.discriminator(net)


def two(sign):
    net = nn.Sequential(trunk(), nn.Conv2d(8, 2, 4), nn.Flatten())
    return gx.adapt.discriminator(net, real=1 if sign > 0 else 0)


def patches(sign):
    return gx.adapt.discriminator(nn.Sequential(trunk(), nn.Conv2d(8, 1, 3, 1, 1), Sign(sign)))


def one_patch(sign):
    return gx.adapt.discriminator(nn.Sequential(trunk(), nn.Conv2d(8, 1, 3, 1, 1), Sign(sign)), patch=(2, 1))


def scales(sign):
    return gx.adapt.discriminator(Scales(sign), multiscale=True)


def projection(sign):
    return gx.adapt.discriminator(Projection(sign), extra="labels").given(labels=2)


HEADS = [single, two, patches, one_patch, scales, projection]
LAYER = {scales: "module.scales.0.0.3", projection: "module.trunk.3"}


def with_layer(name, params, head):
    """Class activation maps of the last activation: ``auto`` would take the patch logits themselves."""
    return {**params, "layer": LAYER.get(head, "module.0.3")} if name == "cam" else params


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("name", "params"), EXPLAINERS, ids=str)
def test_why_real_is_the_opposite_of_why_fake_but_for_those_listed(images, head, name, params):
    explainer = gx.create(f"explainer/{name}", **with_layer(name, params, head))
    real, fake = (explainer.explain(head(sign), images).maps for sign in (1, -1))
    scale = float(real.abs().max())
    assert scale > 0
    opposite = torch.allclose(fake, -real, atol=1e-4 * scale, rtol=1e-3)
    method = params.get("method", name)
    assert opposite == (not any(method in listed for listed in NOT_OPPOSITE.values()))
    if method in ("eigencam", "smoothgrad-sq", "vargrad"):
        torch.testing.assert_close(fake, real, atol=1e-4 * scale, rtol=1e-3)
    if method in ("smoothgrad-sq", "vargrad"):
        assert (real >= -1e-6 * scale).all()


WITHOUT_PLACE = ("gradcam", "gradcam++", "xgradcam", "ablationcam", "eigengradcam", "eigencam", "scorecam", "lime")
"""One weight for a whole channel, a centred map, a regression on all cells: they do not know which patch was chosen."""


@pytest.mark.parametrize(
    ("name", "params"), [(n, p) for n, p in EXPLAINERS if p.get("method", n) not in WITHOUT_PLACE], ids=str
)
def test_a_chosen_patch_is_explained_by_what_it_sees(images, name, params):
    """Patch (2, 1) of 4 x 4 sees 4 x 4 pixels and no others."""
    torch.manual_seed(0)
    model = gx.adapt.discriminator(
        nn.Sequential(nn.Conv2d(1, 4, 4, 4), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 1)), patch=(2, 1)
    )
    seen = torch.zeros(16, 16, dtype=torch.bool)
    seen[8:12, 4:8] = True
    if name == "cam":  # at the layer's resolution
        maps = gx.create("explainer/cam", **params, layer="module.1").at_layer(model, images, 0).maps
        seen = seen[::4, ::4]
    else:
        maps = gx.create(f"explainer/{name}", **params).explain(model, images).maps
    if name == "kernel-shap":  # grid 2: the cell that holds the patch
        seen[8:, :8] = True
    maps = maps.sum(1) if maps.ndim == 4 else maps
    assert maps[:, seen].abs().amax() > 0
    assert maps[:, ~seen].abs().amax() < 1e-5 * maps.abs().max()


def test_the_classes_of_a_classifier_are_explained_one_by_one(images):
    torch.manual_seed(0)
    net = nn.Sequential(trunk(), nn.Conv2d(8, 3, 4), nn.Flatten())
    model = gx.adapt.discriminator(net, class_names=["a", "b", "c"])
    for name, params in EXPLAINERS:
        explainer = gx.create(f"explainer/{name}", **with_layer(name, params, single))
        mixed = explainer.explain(model, images, target=[2, 0, 1, 0, 2]).maps
        for target in range(3):
            alone = explainer.explain(model, images, target=target).maps
            rows = [i for i, t in enumerate([2, 0, 1, 0, 2]) if t == target]
            torch.testing.assert_close(mixed[rows], alone[rows], atol=1e-5, rtol=1e-3)
