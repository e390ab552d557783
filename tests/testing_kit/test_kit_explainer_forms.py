"""Explainers of latents, samples, datasets, of nothing, and within training steps; models and inputs of one's own."""

from __future__ import annotations

import pytest
import torch

from genxai_core import Attribution, Explainer, Samples
from genxai_core.errors import InputError
from genxai_core.testing import ConstantDiscriminator, ExplainerTests, PatchDataset, PatchDiscriminator

EQUAL = "test_attribute_equals_explain"
UNHOOKED = "test_attribute_leaves_no_trace_when_the_model_raises"


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


class OfNothing(Explainer):
    """Of a model of its own: maps [1, 4, 4], which are 1 everywhere."""

    explains, accepts, returns = "nothing", "nothing", Attribution

    def _explain(self, model, inputs, target):
        return Attribution(maps=torch.ones(1, 4, 4))


@pytest.mark.parametrize("cls", [OfLatents, OfSamples, OfWhole, OfWeights, OfNothing])
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


# -- attribute ----------------------------------------------------------------------------------------------------


def attributing(attribute):
    return type("Mutant", (OfImages,), {"__doc__": OfImages.__doc__, "attribute": attribute})


def attributes(change):
    return attributing(lambda self, model, images, target: change(self._maps(model, images, target), model, images))


def hooked(maps, model, images):
    model.register_forward_hook(lambda *_: None)
    return maps


def writing(maps, model, images):
    images.mul_(0)
    return maps


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda maps, model, images: maps, None),
        (lambda maps, model, images: 2 * maps, "attribute and explain differ"),
        (hooked, "attribute changed the hooks of PatchDiscriminator"),
        (writing, "wrote into the images"),
        (lambda maps, model, images: maps.requires_grad_(), "no detached Tensor"),
    ],
    ids=["good", "doubled", "hooked", "writes", "attached"],
)
def test_attribute(conforms, failures, change, text):
    found = failures(conforms(ExplainerTests, attributes(change)))
    assert set(found) - {UNHOOKED} == ({EQUAL} if text else set())
    assert (UNHOOKED in found) is (change is hooked)
    assert text is None or text in found[EQUAL]


def unhooks(self, model, images, target):
    handle = model.register_forward_hook(lambda *_: None)
    try:
        return self._maps(model, images, target)
    finally:
        handle.remove()


def leaves_its_hook(self, model, images, target):
    handle = model.register_forward_hook(lambda *_: None)
    maps = self._maps(model, images, target)
    handle.remove()
    return maps


@pytest.mark.parametrize(("attribute", "fails"), [(unhooks, False), (leaves_its_hook, True)])
def test_hooks_of_attribute(conforms, failures, attribute, fails):
    found = failures(conforms(ExplainerTests, attributing(attribute)))
    assert set(found) == ({UNHOOKED} if fails else set())
    assert all("when the model raised at its call 1: the hooks of Patch" in text for text in found.values())
