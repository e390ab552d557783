"""Explainers of latents, samples, datasets and of nothing conform; capabilities, models and inputs of one's own."""

from __future__ import annotations

import pytest
import torch

from genxai_core import Attribution, Explainer, Samples
from genxai_core.errors import InputError
from genxai_core.testing import ConstantDiscriminator, ExplainerTests, PatchDataset, PatchDiscriminator


class OfImages(Explainer):
    """Input times gradient: maps [N, H, W], in logits."""

    explains, accepts, returns = "discriminator", "images", Attribution

    def _maps(self, model, images, target):
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(images)[:, target].sum(), images)
        return (images * gradient).sum(1).detach()

    def _explain(self, model, images, target):
        return Attribution(maps=self._maps(model, images, target), target=target)


class OfLatents(Explainer):
    """How far each latent [N, 4] is from zero, drawn on its image: maps [N, H, W]."""

    explains, accepts, returns = "HasLatents", "latents", Attribution

    def _explain(self, model, latents, target):
        images = model(latents)
        return Attribution(maps=images[:, 0] * latents.norm(dim=1)[:, None, None], images=images)


class OfSamples(OfImages):
    """Input times gradient inside the masks: maps [N, H, W]."""

    accepts = "samples"

    def _explain(self, model, samples, target):
        maps = self._maps(model, samples.images, target)
        return Attribution(maps=maps if samples.masks is None else maps * samples.masks[:, 0], target=target)


class OfWhole(OfImages):
    """The mean map [1, H, W] of a dataset."""

    accepts = "dataset"

    def _explain(self, model, data, target):
        images = data[:].images
        if not torch.isfinite(images).all():
            raise InputError("explainer/tested: the dataset holds NaN; remove those images")
        return Attribution(maps=self._maps(model, images, target).mean(0, keepdim=True), target=target)


class OfWeights(Explainer):
    """The generator's first weights: maps [1, H, W]."""

    explains, accepts, returns = "generator", "nothing", Attribution

    def _explain(self, model, inputs, target):
        return Attribution(maps=model.layers.weight[0])


@pytest.mark.parametrize("cls", [OfLatents, OfSamples, OfWhole, OfWeights])
def test_explainers_of_other_things_conform(conforms, failures, cls):
    assert failures(conforms(ExplainerTests, cls)) == {}


def test_a_capability_without_tiny_model_is_asked_for(conforms, failures):
    tests = conforms(ExplainerTests, type("Strange", (OfImages,), {"explains": "Denoises"}))
    assert "override model(self)" in failures(tests, "test_its_numbers_are_finite")["test_its_numbers_are_finite"]


class OfEight(OfImages):
    """Input times gradient of 8 px images: maps [N, 8, 8]."""

    def _explain(self, model, images, target):
        if images.shape[-1] != 8:
            raise InputError("images must be 8 px")
        return super()._explain(model, images, target)


def test_own_planted_model(conforms, failures):
    small = torch.rand(3, 1, 8, 8)
    masks = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    masks[..., :4, :4] = True

    def planted(self, sign):
        samples = Samples(small, masks=masks, value_range=(-1.0, 1.0), concepts=("corner",))
        return PatchDiscriminator(8, patch=(0, 0, 4), sign=sign), samples

    members = {"model": lambda self: PatchDiscriminator(8, patch=(0, 0, 4)), "inputs": lambda self: small}
    members |= {"planted": planted, "constant": lambda self: ConstantDiscriminator(8)}
    assert failures(conforms(ExplainerTests, OfEight, **members)) == {}
    members["planted"] = lambda self, sign: (planted(self, sign)[0], Samples(small, value_range=(-1.0, 1.0)))
    found = failures(conforms(ExplainerTests, OfEight, **members))
    assert list(found) == ["test_positive_speaks_for_the_target"]
    assert "planted returned samples without masks" in found["test_positive_speaks_for_the_target"]


def test_own_model_and_inputs(conforms, failures):
    members = {"inputs": lambda self: PatchDataset(4)[:].images, "target_index": 0}
    assert failures(conforms(ExplainerTests, OfImages, **members)) == {}
