"""Alpha finds the units that cause a concept among those that look the same."""

import dataclasses

import pytest
import torch
from genxai_dissection.alpha import loss, optimised, probabilities_of, start_of
from genxai_dissection.paired import FIRST, Paired, given
from planted_painter import CONCEPTS, Channels, Hard, Painter, iou

import genxai_core as gx
from genxai_core import Runtime, Samples, UnitScores, draws
from genxai_core.errors import InputError, MissingCapability

RUNTIME = Runtime(device="cpu", quiet=True, batch_size=16)
FEW = {"samples": 12, "mean_samples": 16, "alpha_samples": 16}


def intervention(model, segmenter, concept, **how):
    explainer = gx.create("explainer/unit-intervention", segmenter=segmenter, concept=concept, **{**FEW, **how})
    return explainer.explain(model, runtime=RUNTIME)


@pytest.mark.parametrize(("concept", "causes"), [("whole", (0,)), ("twice", (1, 2))])
def test_alpha_finds_the_causes_among_decoys_that_look_the_same(concept, causes):
    """A decoy starts where its cause does, at the same IoU, and ends at 0."""
    found = intervention(Painter(), Channels(), concept, layer="units", scores=iou(), steps=40, count=2)
    others = [u for u in range(8) if u not in causes]
    assert found.alpha[list(causes)].tolist() == [1.0] * len(causes)
    assert float(found.alpha[others].max()) < 0.05
    assert found.orders["alpha"][0, : len(causes)].tolist() == list(causes)
    assert found.notes["units by"] == "alpha"
    decoy = {"whole": 5, "twice": 6}[concept]
    assert start_of(iou().scores["units"][:, CONCEPTS.index(concept)], 8)[decoy] == 1.0
    assert len(found.history) == 40


def paired(model, segmenter, concept=0, locations="all", samples=6):
    return Paired(model, segmenter, "units", locations, concept, RUNTIME, samples=samples)


def literal_loss(model, segmenter, alpha, k, latents, share, penalty, concept):
    """−(E[s_c(x_i)] − E[s_c(x_a)]) / E[s_c] + λ Σ α², by the painter's own parts."""
    added, removed = [], []
    for z in latents:
        r = model.activations(z[None])
        for value, found in ((alpha * k, added), (torch.zeros(8), removed)):
            changed = (1 - alpha)[:, None, None] * r + value[:, None, None]
            drawn = [changed[0, 0], changed[0, 1:3].amax(0), changed[0, 3:5].amax(0)]
            pixels = drawn[concept].clamp(0, 1).repeat_interleave(2, 0).repeat_interleave(2, 1)
            found.append(float(torch.sigmoid(10 * (pixels - 0.5)).mean()))
    return -(sum(added) - sum(removed)) / len(added) / share + penalty * float((alpha**2).sum())


@pytest.mark.parametrize("concept", [0, 2])
def test_the_first_step_goes_down_the_literal_loss(concept):
    """Adam's first step is the rate times the gradient's sign; the gradient is that of the formula written out."""
    model, segmenter = Painter().requires_grad_(False), Channels()
    k = given(model, segmenter, ["units"], RUNTIME, samples=16)[0]["units"][:, concept].float()
    pair, start, rate, penalty = paired(model, segmenter, concept), torch.linspace(0.2, 0.7, 8), 0.01, 0.02
    share = float(pair.shares()[:, concept].mean())
    alpha, _, history = optimised(pair, concept, k, start, steps=1, batch=6, rate=rate, penalty=penalty)
    latents = model.sample_latents(6, 0, start=FIRST)

    def at(vector):
        return literal_loss(model, segmenter, vector, k, latents, share, penalty, concept)

    for unit in range(8):
        step = 1e-2 * torch.eye(8)[unit]
        slope = (at(start + step) - at(start - step)) / 2e-2
        assert float(alpha[unit] - start[unit]) == pytest.approx(-rate * (1 if slope > 0 else -1), abs=1e-5)
    wanted = -(at(start) - penalty * float((start**2).sum()))
    assert float(history[0]) == pytest.approx(wanted, abs=1e-5)


def test_of_equal_alpha_the_one_comes_first_on_which_more_depends():
    """All of it, drawn by one unit, matters more than a half; what matters not comes last."""

    class Both(Channels):
        concepts = ("either",)

        def forward(self, images):
            return 10 * (images[:, 0] + images[:, 2] - 0.5)[:, None]

    model = Painter().requires_grad_(False)
    k = torch.tensor([0.9, 0.0, 0.0, 0.45, 0.45, 0.9, 0.0, 0.0])
    alpha, order, _ = optimised(
        paired(model, Both(), samples=12), 0, k, torch.ones(8), steps=3, batch=6, rate=0.05, penalty=0.0
    )
    assert alpha.tolist() == [1.0] * 8  # nothing pulls them down
    assert order[0] == 0
    assert set(order[1:3].tolist()) == {3, 4}


def test_the_loss_is_the_papers():
    added, removed, alpha = torch.tensor([0.5, 0.3]), torch.tensor([0.1, 0.1]), torch.tensor([1.0, 0.5])
    assert float(loss(added, removed, alpha, 0.2, 0.1)) == pytest.approx(-0.3 / 0.2 + 0.1 * 1.25)


def test_a_unet_has_probabilities():
    """They are above one half where its masks are, and carry gradients."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = gx.create("segmenter/unet", concepts=("a", "b"), channels=3, width=8, depth=1, value_range=(0.0, 1.0))
    samples = Samples(draws.normal(0, range(3), (3, 8, 8), stream="images").clamp(-1, 1), value_range=(-1.0, 1.0))
    samples.images.requires_grad_()
    soft = probabilities_of(unet)(samples)
    detached = dataclasses.replace(samples, images=samples.images.detach())
    assert torch.equal(soft > 0.5, unet.segment(detached, RUNTIME))
    assert 0 < int((soft > 0.5).sum()) < soft.numel()
    (slope,) = torch.autograd.grad(soft.sum(), samples.images)
    assert slope.any()


@pytest.mark.parametrize("size", [16, 32, 128])
def test_probabilities_are_of_the_segmentation_at_sizes_that_are_resized(size):
    drawn = gx.create("generator/dcgan", pretrained="scenes-32").sample(4, 0)
    images = torch.nn.functional.interpolate(drawn.images, (size, size), mode="bilinear")
    samples = Samples(images, value_range=drawn.value_range)
    masks = gx.create("segmenter/scenes").segment(samples, RUNTIME)
    for segmenter in (gx.create("segmenter/scenes"), gx.create("segmenter/unet", pretrained="scenes-32")):
        images.requires_grad_()
        soft = probabilities_of(segmenter)(samples)
        assert torch.equal(soft > 0.5, masks)
        (slope,) = torch.autograd.grad(soft.sum(), images)
        assert slope.any()


def test_alpha_is_found_on_the_shipped_generator_by_the_shipped_segmenter():
    gan = gx.create("generator/dcgan", pretrained="scenes-32")
    found = intervention(gan, gx.Spec("segmenter/scenes"), "sky", layer="layers.1", steps=2, batch=4, count=2, draws=0)
    assert len(found.history) == 2
    assert float(found.history[1]) != float(found.history[0])
    assert not torch.equal(found.alpha, torch.full_like(found.alpha, 0.5))


def test_alpha_starts_from_scores():
    assert start_of(torch.tensor([0.2, -1.0, 0.4, 0.0]), 4).tolist() == [0.5, 0.0, 1.0, 0.0]
    assert start_of(None, 3).tolist() == [0.5] * 3
    assert start_of(torch.zeros(2), 2).tolist() == [0.5] * 2


def test_steps_do_not_depend_on_the_batches_that_pass_at_once():
    model, segmenter = Painter().requires_grad_(False), Channels()
    k = torch.full((8,), 0.8)
    of = []
    for size in (2, 64):
        pair = Paired(model, segmenter, "units", "cell", 1, Runtime(quiet=True, batch_size=size), samples=9)
        of.append(optimised(pair, 1, k, torch.full((8,), 0.5), steps=5, batch=6, rate=0.05, penalty=0.01)[0])
    assert torch.allclose(of[0], of[1], atol=1e-5)


def test_alpha_asks_for_gradients():
    with pytest.raises(InputError, match=r"Hard has no probabilities .* give it a method probabilities\(samples\)"):
        intervention(Painter(), Hard(), "whole", layer="units", steps=3)

    class Softmax(torch.nn.Module, gx.Segmenter):
        """A network whose output are no logits."""

        value_range = (0.0, 1.0)
        concepts = CONCEPTS

        def forward(self, images):
            return images.softmax(1)

        def _segment(self, samples):
            return self(samples.images) > 0.5

    with pytest.raises(InputError, match="Softmax has no probabilities"):
        intervention(Painter(), Softmax(), "whole", layer="units", steps=3)

    class Drawer(gx.Generator):
        value_range = (0.0, 1.0)

        def __init__(self):
            super().__init__()
            self.inner = Painter()
            self.units = self.inner.units

        def sample(self, n, seed, labels=None, start=0):
            drawn.append(n)
            return self.inner.sample(n, seed, labels, start)

    drawn = []
    assert intervention(Drawer(), Channels(), "whole", layer="units", units=(0,)).effects[0] == 1
    drawn.clear()
    with pytest.raises(MissingCapability, match=r"explainer/unit-intervention with steps > 0 needs .* HasLatents"):
        intervention(Drawer(), Channels(), "whole", layer="units", steps=3)
    assert drawn == []

    class Flat(Channels):
        def probabilities(self, samples):
            return self._segment(samples).float()

    with pytest.raises(InputError, match="neither the images nor the segmenter's probabilities have a gradient"):
        intervention(Painter(), Flat(), "whole", layer="units", steps=3)


@pytest.mark.parametrize(
    ("classes", "how", "said"),
    [
        (0, {"units": (99,)}, "layer 'layers.0' has 16 units; unit 99 is none of them"),
        (0, {"steps": 3, "units": (99,)}, "layer 'layers.0' has 16 units; unit 99 is none of them"),
        (0, {"steps": 3, "scores": UnitScores({"layers.0": torch.ones(3, 1)}, concepts=("whole",))}, "of 3 units"),
        (3, {"steps": 3}, "conditional on 3 classes: .* fix a class"),
    ],
)
def test_what_cannot_be_done_is_told_before_the_work(classes, how, said):
    gan = gx.create("generator/dcgan", size=16, channels=3, num_classes=classes, width=8)
    drawn, sample = [], gan.sample
    gan.sample = lambda n, seed, labels=None, start=0: drawn.append(n) or sample(n, seed, labels, start)
    with pytest.raises(InputError, match=said):
        intervention(gan, Channels(), "whole", layer="layers.0", **how)
    assert sum(drawn) <= 1
