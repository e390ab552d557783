"""Decoders, GANs and edited generators are dissected and edited alike: whatever samples, and has layers in space."""

import pytest
import torch
from genxai_dissection.paired import FIRST
from torch.nn import functional as F

import genxai_core as gx
from genxai_core import Runtime, Segmenter, UnitEdits, units

RUNTIME = Runtime(device="cpu", quiet=True, batch_size=16)


class Bright(Segmenter):
    """Masks ``[N, 1, H, W]``: where images are above 0."""

    concepts = ("bright",)

    def _segment(self, samples):
        return samples.images.mean(1, keepdim=True) > 0


def made(name):
    if name == "edited":
        edits = UnitEdits.ablate({"layers.0": [0, 1]})
        return gx.create("generator/edited", base=made("generator/dcgan"), edits=edits).eval()
    return gx.create(name, pretrained="digits").eval()


@pytest.mark.parametrize("name", ["generator/dcgan", "generator/vae", "edited"])
def test_a_generator_is_dissected_as_it_samples(name):
    """The counts are those of the pictures and activations of the samples themselves, thresholded by hand."""
    model, n = made(name), 24
    how = {"segmenter": Bright(), "samples": n, "threshold_samples": 40, "quantile": 0.9, "examples": 0}
    found = gx.create("explainer/gan-dissection", **how).explain(model, runtime=RUNTIME)
    assert len(found.layers) >= 2
    assert not any(layer.startswith("encoder") for layer in found.layers)  # it takes no part in sampling
    with units.record(model, found.layers, detach=True) as seen:
        images = model.sample(n, 0, start=40).images
    mask = images.mean(1) > 0
    for layer in found.layers:
        large = F.interpolate(seen[layer].double(), images.shape[2:], mode="bilinear", align_corners=False)
        on = large > found.thresholds[layer].double()[:, None, None]
        both, either = (on & mask[:, None]).sum((0, 2, 3)), (on | mask[:, None]).sum((0, 2, 3))
        assert found.scores[layer][:, 0].tolist() == pytest.approx((both / either.clamp(min=1)).tolist(), abs=2e-3)
    assert max(float(scores.max()) for scores in found.scores.values()) > 0.2


@pytest.mark.parametrize("name", ["generator/dcgan", "generator/vae", "edited"])
def test_units_of_a_generator_are_switched_off(name):
    model = made(name)
    first = gx.create(
        "explainer/gan-dissection", segmenter=Bright(), samples=24, threshold_samples=24, quantile=0.9, examples=0
    ).explain(model, runtime=RUNTIME)
    how = {"segmenter": Bright(), "concept": "bright", "scores": first, "count": 3, "draws": 0, "examples": 1}
    how |= {"samples": 10, "mean_samples": 10, "alpha_samples": 2}
    found = gx.create("explainer/unit-intervention", **how).explain(model, runtime=RUNTIME)
    with torch.no_grad(), units.edit(model, found.layer, found.chosen):
        off = model.sample(10, 0, start=FIRST + 12).images
    assert float(found.shares[1, 0]) == pytest.approx(float((off.mean(1) > 0).double().mean()), abs=1e-9)
    assert float(found.shares[1, 0]) != float(found.shares[0, 0])
