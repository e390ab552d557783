"""What every explainer of this distribution promises: the model untouched, batches without effect, signs, truth."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, max_pool2d

import genxai_core as gx
from genxai_core.interfaces import Attributes

EXPLAINERS = [
    ("saliency", {}),
    ("integrated-gradients", {"steps": 8}),
    ("integrated-gradients", {"steps": 8, "baseline": "blur"}),
    ("integrated-gradients", {"steps": 8, "baseline": "noise"}),
    ("input-x-gradient", {}),
    ("guided-backprop", {}),
    ("deconvolution", {}),
    ("deeplift", {}),
    ("deeplift-shap", {}),
    ("gradient-shap", {}),
    ("gradient-shap", {"samples": 8, "stdev": 0.1, "baseline": "mid"}),
    ("lime", {}),
    ("kernel-shap", {}),
    ("shapley-sampling", {"orders": 4}),
    ("occlusion", {}),
    ("noise-tunnel", {"stdev": 0.02}),
    ("noise-tunnel", {"explainer": gx.Spec("explainer/input-x-gradient"), "method": "vargrad", "samples": 4}),
    ("noise-tunnel", {"explainer": gx.Spec("explainer/deeplift"), "samples": 4, "stdev": 0.02}),
    ("fullgrad", {}),
    ("cam", {"method": "gradcam"}),
    ("cam", {"method": "layercam"}),
    ("cam", {"method": "gradcam++"}),
    ("cam", {"method": "hirescam"}),
    ("cam", {"method": "xgradcam"}),
    ("cam", {"method": "eigengradcam"}),
    ("cam", {"method": "scorecam"}),
    ("cam", {"method": "ablationcam"}),
    ("cam", {"method": "eigencam"}),
]
each = pytest.mark.parametrize(
    ("name", "params"), EXPLAINERS, ids=lambda v: "-".join(map(str, v.values())) if isinstance(v, dict) else v
)


WITHOUT_GRADIENT = ("lime", "kernel-shap", "shapley-sampling", "occlusion")
RECTIFYING = ("guided-backprop", "deconvolution", "layercam", "gradcam++")
UNSIGNED = ("vargrad", "scorecam")  # of which the negated logit gives no negated map
FORWARDS_ALONE = (*WITHOUT_GRADIENT, "eigencam", "scorecam", "ablationcam")


def kind(name, params):
    return params.get("method", name)


def create(name, params):
    return gx.create(f"explainer/{name}", **params)


class Raising(gx.Discriminator):
    """Raises in the middle of its n-th forward."""

    def __init__(self, inner, at):
        super().__init__()
        self.inner, self.at, self.calls = inner, at, 0

    def forward(self, images):
        hidden = self.inner.features(images)
        if images.requires_grad or torch.is_grad_enabled() or self.at == 0:
            raise RuntimeError("in the middle")
        return self.inner.final(hidden).flatten(1)


@each
def test_a_model_that_raises_is_left_without_hooks(make_dcgan, images, fingerprint, name, params):
    for at in (0, 1):  # 0: already while layers are looked for; 1: in the pass that is explained
        if at == 1 and kind(name, params) in FORWARDS_ALONE:
            continue  # needs no gradient, so that its passes are all alike
        model = Raising(make_dcgan(), at).eval()
        before = fingerprint(model)
        with pytest.raises(RuntimeError, match="in the middle"):
            create(name, params).attribute(model, images, 0)
        assert fingerprint(model) == before


@each
def test_attribute_works_inside_a_training_step(make_dcgan, images, fingerprint, name, params):
    model, explainer = make_dcgan().eval(), create(name, params)
    assert isinstance(explainer, Attributes)
    generated = (images * nn.Parameter(torch.tensor(0.9))).tanh()
    model(images).sum().backward()
    loss = model(generated).sum()  # a graph that must stay valid
    before = fingerprint(model)
    maps = explainer.attribute(model, generated, 0)
    assert fingerprint(model) == before
    assert all(p.requires_grad for p in model.parameters() if p.is_leaf)
    assert not maps.requires_grad
    torch.testing.assert_close(maps, explainer.explain(model, generated.detach()).maps, atol=1e-6, rtol=1e-4)
    loss.backward()
    with torch.no_grad():
        torch.testing.assert_close(explainer.attribute(model, generated, 0), maps)


class Negated(gx.Discriminator):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return -self.inner(images)


@each
def test_the_map_of_the_negated_logit(make_dcgan, images, name, params):
    model, explainer = make_dcgan(), create(name, params)
    real, fake = (explainer.explain(m, images).maps for m in (model, Negated(model)))
    if kind(name, params) == "eigencam":  # does not know the logit
        assert torch.equal(fake, real)
    elif kind(name, params) == "vargrad":
        torch.testing.assert_close(fake, real)
    elif kind(name, params) in (*RECTIFYING, *UNSIGNED):
        assert not torch.allclose(fake, -real, atol=1e-3 * float(real.abs().max()))
    else:
        torch.testing.assert_close(fake, -real)


# -- planted truth ------------------------------------------------------------------------------------------------

MOTIF = torch.tensor([[1, -1, 1, -1], [-1, 1, -1, 1], [1, -1, -1, 1], [-1, 1, 1, -1]]).float()


class FindsTheMotif(gx.Discriminator):
    """Its logit counts the places that match the motif better than a threshold: nothing else moves it."""

    def __init__(self):
        super().__init__()
        self.detect = nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(1, 2, 4), nn.ReLU())
        with torch.no_grad():
            self.detect[1].weight[:] = MOTIF / MOTIF.numel()
            self.detect[1].bias.copy_(torch.tensor([-0.6, -0.7]))
        self.pool = nn.AvgPool2d(16)

    def forward(self, images):
        return 256 * self.pool(self.detect(images)).sum(1).flatten(1)


@pytest.fixture
def planted():
    """Images with hard bars, faint noise and the motif; and where the motif is."""
    generator = torch.Generator().manual_seed(7)
    images = 0.05 * torch.randn(12, 1, 16, 16, generator=generator)
    masks = torch.zeros(12, 16, 16, dtype=torch.bool)
    for i in range(12):
        column = int(torch.randint(0, 5, (), generator=generator))
        images[i, :, :, column : column + 3] = 1.0
        images[i, :, 1 + column : 4 + column] = -1.0
        y, x = (int(v) for v in torch.randint(8, 13, (2,), generator=generator))
        images[i, 0, y : y + 4, x : x + 4] = MOTIF
        masks[i, y : y + 4, x : x + 4] = True
    return images.clamp(-1, 1), masks


def as_cells(masks, size=2):
    """What a method that works on cells of ``size`` pixels can know of the masks."""
    return max_pool2d(masks[:, None].float(), size).repeat_interleave(size, 2).repeat_interleave(size, 3)[:, 0].bool()


def share_inside(maps, masks):
    energy = (maps.sum(1) if maps.ndim == 4 else maps) ** 2
    return (energy * masks).flatten(1).sum(1) / energy.flatten(1).sum(1)


def sobel(images):
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    across, down = (conv2d(images, k[None, None], padding=1) for k in (kernel, kernel.T))
    return (across**2 + down**2).sqrt()[:, 0]


BAR = 0.9


@each
def test_the_map_lies_where_the_logit_comes_from(planted, name, params):
    images, masks = planted
    model = FindsTheMotif()
    assert (model(images) > 0.5).all()
    assert (model(images * ~masks[:, None]) == 0).all()
    seen = as_cells(masks) if name in (*WITHOUT_GRADIENT, "lime") else masks
    shares = share_inside(create(name, params).explain(model, images).maps, seen)
    if name == "deconvolution":  # forgets which detectors fired, so it fails, as documented
        assert shares.max() < BAR / 2
    else:
        assert shares.min() > BAR, shares


def test_controls_fail_the_bar_of_planted_truth(planted):
    images, masks = planted
    noise = torch.randn(masks.shape, generator=torch.Generator().manual_seed(0))
    for seen in (masks, as_cells(masks)):
        assert share_inside(noise, seen).max() < BAR / 2
        assert share_inside(sobel(images), seen).max() < BAR / 2
        assert share_inside(images, seen).max() < BAR / 2


# -- the plugin ---------------------------------------------------------------------------------------------------


def test_the_plugin_imports_neither_torch_nor_what_it_wraps():
    code = (
        "import sys, genxai_attribution.plugin as p; names = [c.full_name for c in p.genxai_components()]; "
        "heavy = {'torch', 'captum', 'pytorch_grad_cam', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy; print(*names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {f"explainer/{name}" for name, _ in EXPLAINERS}


@each
def test_results_save_load_and_plot(tmp_path, make_dcgan, images, name, params):
    result = create(name, params).explain(make_dcgan(), images)
    shown = {k: v if not isinstance(v, gx.Spec) else {"use": v.use, "with": {}} for k, v in params.items()}
    assert result.provenance["explainer"] == {"use": f"explainer/{name}", "with": shown}
    loaded = gx.Explanation.load(result.save(tmp_path / "maps"))
    assert torch.equal(loaded.maps, result.maps)
    assert loaded.notes == result.notes
    assert len(loaded.to_dataframe()) == len(images)
    assert loaded.plot(n=2) is not None
