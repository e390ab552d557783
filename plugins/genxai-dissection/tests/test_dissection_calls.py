"""A diffusion model runs its U-Net once per timestep: units are read, and edited, at the timestep that is chosen."""

import itertools

import pytest
import torch
from genxai_dissection.calls import in_call
from genxai_dissection.paired import FIRST
from torch import nn

import genxai_core as gx
from genxai_core import Generator, Runtime, Samples, Segmenter, draws, units
from genxai_core.errors import BadParameter, InputError

STEPS, CHANNELS = 4, 3
RUNTIME = Runtime(device="cpu", quiet=True, batch_size=5)
FEW = {"samples": 11, "mean_samples": 9}


class Denoiser(Generator):
    """Samples ``[N, 1, 8, 8]`` in four steps x ← 0.8 x + 0.4 paint(units(x + t / 4)) from noise."""

    value_range = (-1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.units = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(1, CHANNELS, 1), nn.ReLU())
        self.paint = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(CHANNELS, 1, 1), nn.Tanh())
        for i, p in enumerate(self.parameters()):
            p.data = draws.normal(5, [i], p.shape, stream="denoiser")[0].reshape(p.shape) * (p.ndim > 1)  # no bias

    def step(self, x, t, change=lambda r: r):
        return 0.8 * x + 0.4 * self.paint(change(self.units(x + t / 4)))

    @torch.no_grad()
    def sample(self, n, seed, labels=None, start=0):
        x = draws.normal(seed, range(start, start + n), (1, 8, 8))
        for t in range(STEPS):
            x = self.step(x, t)
        return Samples(x.clamp(-1, 1), value_range=self.value_range)


class Bright(Segmenter):
    """Masks ``[N, 1, H, W]``: where images are above 0.1."""

    concepts = ("bright",)

    def _segment(self, samples):
        return samples.images > 0.1


@torch.no_grad()
def literal(model, first, n, call, unit=None, value=0.0):
    """Make the images step by step, the unit set to a value in one call, or in each; and keep what units returned."""
    x, seen = draws.normal(0, range(first, first + n), (1, 8, 8)), []
    for t in range(STEPS):

        def change(r, t=t):
            seen.append(r.clone())
            if unit is not None and call in (None, t):
                r[:, unit] = value
            return r

        x = model.step(x, t, change)
    return x.clamp(-1, 1), seen


def share(images):
    return (images > 0.1).double().mean((1, 2, 3))


def literal_k(model, call):
    images, seen = literal(model, FIRST, FEW["mean_samples"], None)
    part = nn.functional.avg_pool2d((images > 0.1).double(), 2)
    r = seen[-1 if call is None else call].double()
    return ((r * part).sum((0, 2, 3)) / part.sum()).float()


@pytest.mark.parametrize("call", [None, 0, 2, 3])
def test_effects_are_those_of_an_edit_in_the_chosen_call(call):
    model = Denoiser()
    found = gx.create("explainer/unit-effects", segmenter=Bright(), layers=("units",), call=call, **FEW).explain(
        model, runtime=RUNTIME
    )
    k, first = literal_k(model, call), FIRST + FEW["mean_samples"]
    for unit in range(CHANNELS):
        off, put = (share(literal(model, first, 11, call, unit, v)[0]) for v in (0.0, float(k[unit])))
        assert float(found.scores["units"][unit]) == pytest.approx(float((put - off).mean()), abs=1e-9)
    assert found.notes.get("edited in") == (None if call is None else f"call {call} of the layer")
    assert float(found.scores["units"].abs().max()) > 0.01


def test_a_set_is_edited_in_the_chosen_call_and_its_edits_say_so():
    model = Denoiser()
    how = {"concept": "bright", "layer": "units", "units": (0, 2), "alpha_samples": 2, "draws": 2, "examples": 3, **FEW}
    found = gx.create("explainer/unit-intervention", segmenter=Bright(), call=1, **how).explain(model, runtime=RUNTIME)
    first = FIRST + 9 + 2
    assert torch.allclose(found.means, literal_k(model, 1), atol=1e-6)
    off = literal(model, first, 11, 1, [0, 2])[0]
    put = literal(model, first, 11, 1, [0, 2], found.means[[0, 2]][None, :, None, None])[0]
    plain = literal(model, first, 11, 1)[0]
    assert torch.allclose(found.shares[:, 0], torch.stack([share(x).mean() for x in (plain, off, put)]), atol=1e-9)
    change = (share(literal(model, first, 11, 1, 0)[0]) - share(plain)).mean()
    assert float(found.curves["given"][1, 0]) == pytest.approx(float(change), abs=1e-9)
    assert found.notes["edited in"] == "call 1 of the layer; generator/edited edits in every call"
    shown = share(plain).argsort(descending=True, stable=True)[:3]
    assert torch.allclose(found.ablated, off[shown], atol=1e-6)
    everywhere = gx.create("generator/edited", base=model, edits=found).sample(11, 0, start=first).images
    assert torch.allclose(everywhere, literal(model, first, 11, None, [0, 2])[0], atol=1e-6)
    assert not torch.allclose(everywhere, off, atol=1e-3)
    every = gx.create("explainer/unit-intervention", segmenter=Bright(), **how).explain(model, runtime=RUNTIME)
    assert "edited in" not in every.notes


@pytest.mark.parametrize(
    ("name", "how"),
    [("unit-effects", {"layers": ("units",)}), ("unit-intervention", {"layer": "units", "units": (0,)})],
)
def test_a_call_that_never_comes_is_refused(name, how):
    how = how if name == "unit-effects" else {"concept": "bright", **how}
    explainer = gx.create(f"explainer/{name}", segmenter=Bright(), call=4, **how, **FEW)
    with pytest.raises(InputError, match="'units' has no call 4 when a batch of images is made: it runs 4 times at"):
        explainer.explain(Denoiser(), runtime=RUNTIME)
    with pytest.raises(BadParameter, match="call -1 cannot be negative"):
        gx.create(f"explainer/{name}", segmenter=Bright(), call=-1, **how)


def test_an_edit_in_one_call_leaves_no_hook_behind():
    model, z = Denoiser(), torch.ones(1, 1, 8, 8)

    def off():
        return units.edit(model, "units", [0, 1, 2])

    plain = [model.units(z + t) for t in range(3)]
    with units.edit(model, "units", [0], factor=2.0), in_call(model, "units", 1, off):  # beside another edit
        found = [model.units(z + t) for t in range(3)]
    assert torch.equal(found[0][:, 0], 2 * plain[0][:, 0])
    assert not found[1].any()
    assert torch.equal(found[2][:, 1:], plain[2][:, 1:])
    with pytest.raises(InputError, match="has no call 1"), in_call(model, "units", 1, off):
        model.units(z)
    with pytest.raises(RuntimeError), in_call(model, "units", 0, off):
        model.units(torch.ones(1, 2, 8, 8))  # the layer itself fails while it is edited
    assert not model.units._forward_hooks
    assert not model.units._forward_pre_hooks


def test_of_a_diffusion_model_of_diffusers(tmp_path):
    """Its layers run once per step: an edit in the last step changes less than an edit in all."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "add_attention": False}
    small = {"layers_per_block": 1, "block_out_channels": (8, 8), "norm_num_groups": 4, **blocks}
    unet = diffusers.UNet2DModel(sample_size=8, in_channels=1, out_channels=1, **small)
    diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler(num_train_timesteps=100)).save_pretrained(tmp_path)
    model = gx.create("generator/diffusers", folder=tmp_path, steps=4).eval()
    how = {"segmenter": Bright(), "concept": "bright", "layer": "module.conv_in", "units": tuple(range(8))}
    how |= {"samples": 6, "mean_samples": 6, "draws": 0, "alpha_samples": 2, "examples": 2}
    found = [
        gx.create("explainer/unit-intervention", call=call, **how).explain(model, runtime=RUNTIME)
        for call in (0, 3, None)
    ]
    assert torch.equal(found[0].before, found[2].before)
    assert not any(torch.equal(a.ablated, b.ablated) for a, b in itertools.pairwise(found))
    dissected = gx.create(
        "explainer/gan-dissection",
        **{"segmenter": Bright(), "layers": ("module.conv_in",), "call": 0, "examples": 0},
        **{"samples": 6, "threshold_samples": 6, "quantile": 0.9},
    ).explain(model, runtime=RUNTIME)
    assert dissected.notes["call of the layers"] == 0
