"""Explainers that are right on one gray, square logit alone fail the checks of what a map says."""

from __future__ import annotations

import pytest
import torch

from genxai_core import Attribution, Explainer
from genxai_core.errors import InputError
from genxai_core.testing import ExplainerTests
from genxai_core.testing.planted import PAINTS, TwoPatches

SIGNED = "test_positive_speaks_for_the_target"
PLACED = "test_the_map_is_of_its_target_at_its_place"


class Good(Explainer):
    """Input times gradient: maps [N, H, W], in logits."""

    explains, accepts, returns = "discriminator", "images", Attribution

    def score(self, logits, target):
        return logits[:, target]

    def reduce(self, terms):
        return terms.sum(1)

    def _explain(self, model, images, target):
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.score(model(images), target).sum(), images)
        return Attribution(maps=self.reduce((images * gradient).detach()), target=target)


def mutant(base=Good, **members):
    return type("Mutant", (base,), {"__doc__": Good.__doc__, **members})


def gray_only(self, terms):
    assert terms.shape[1:] == (1, 16, 16)
    return terms[:, 0]


def turned(self, terms):
    square = terms.shape[2] == terms.shape[3]
    return terms.sum(1).transpose(1, 2) if square else terms.sum(1)


MUTANTS = {
    "the first logit always": ({"score": lambda self, f, k: f[:, 0]}, {PLACED: "only 0% of a map's energy"}),
    "all logits": ({"score": lambda self, f, k: f.sum(1)}, {PLACED: "patch that moves logit 0 of two"}),
    "the probability": (
        {"score": lambda self, f, k: f[:, k].sigmoid()},
        {PLACED: "not of a probability, which saturates"},
    ),
    "turned": ({"reduce": turned}, {SIGNED: "only 0% of a map's energy"}),
    "a pixel to the right": (
        {"reduce": lambda self, terms: terms.sum(1).roll(1, 2)},
        {SIGNED: "moved by 0 down and 1 right", PLACED: "moved by 0 down and 1 right"},
    ),
    "a pixel up": (
        {"reduce": lambda self, terms: terms.sum(1).roll(-1, 1)},
        {SIGNED: "moved by -1 down and 0 right", PLACED: "moved by -1 down and 0 right"},
    ),
    "the first channel": ({"reduce": lambda self, terms: terms[:, 0]}, {PLACED: "of a map's energy lies in"}),
    "the second channel": (
        {"reduce": lambda self, terms: terms[:, terms.shape[1] // 2]},
        {PLACED: "logit 0 of two sums up to -"},
    ),
    "the last channel": ({"reduce": lambda self, terms: terms[:, -1]}, {PLACED: "only 0% of a map's energy"}),
    "gray and square alone, without a word": ({"reduce": gray_only}, {PLACED: "[3, 32, 16] with two logits raised"}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails_its_check_and_no_other(conforms, failures, name):
    members, expected = MUTANTS[name]
    found = failures(conforms(ExplainerTests, mutant(**members)), SIGNED, PLACED)
    assert found.keys() == expected.keys()
    for check, text in expected.items():
        assert text in found[check]


def test_what_a_loose_author_lets_pass_still_is_of_its_target_and_of_the_logit(conforms, failures):
    both = mutant(score=lambda self, f, k: f.sum(1))
    assert "100% as much energy in the patch" in failures(conforms(ExplainerTests, both, inside=0.2), PLACED)[PLACED]
    faint = mutant(score=lambda self, f, k: (f[:, k] / 4).sigmoid())  # saturates, but not to zero
    found = failures(conforms(ExplainerTests, faint), PLACED)[PLACED]
    assert "the map of logit 0 of two vanishes where the logit is large" in found


def refusing(shapes):
    def explain(self, model, images, target):
        if tuple(images.shape[1:]) in shapes:
            raise InputError(f"takes no images of {list(images.shape[1:])}")
        return Good._explain(self, model, images, target)

    return {"_explain": explain}


def test_who_refuses_in_words_is_held_to_what_is_left(conforms, failures, run):
    square = refusing([(3, 32, 16)])
    assert failures(conforms(ExplainerTests, mutant(**square)), PLACED) == {}
    found = failures(conforms(ExplainerTests, mutant(mutant(reduce=turned), **square)), PLACED)
    assert "only 0% of a map's energy" in found[PLACED]
    one = conforms(ExplainerTests, mutant(**refusing([(3, 32, 16), (3, 16, 16)])))
    assert "refuses images [3, 32, 16] with two logits: " in run(one, PLACED)[PLACED]


def test_an_honest_method_of_cells_passes(conforms, failures):
    def cells(self, terms):
        maps = torch.nn.functional.avg_pool2d(terms.sum(1, keepdim=True), 8, 4, 2)
        return torch.nn.functional.interpolate(maps, terms.shape[2:], mode="bilinear", align_corners=False)[:, 0]

    assert failures(conforms(ExplainerTests, mutant(reduce=cells), inside=0.2), SIGNED, PLACED) == {}


@pytest.mark.parametrize("shape", [(32, 16), (16, 16)])
def test_the_two_logits_are_what_their_docstring_says(shape):
    model = TwoPatches(*shape)
    samples = model.images(5)
    size = shape[0] * shape[1] // 16
    assert 0 < sum(p.numel() for p in model.parameters()) < 10_000
    assert samples.masks.sum((0, 2, 3)).tolist() == [5 * size, 5 * size]
    images = samples.images.clone().requires_grad_()
    for k, colour in enumerate([(2.0, 1.0, 0.0), (0.0, 1.0, 2.0)]):
        (gradient,) = torch.autograd.grad(model(images)[:, k].sum(), images)
        expected = torch.tensor(colour)[:, None, None] * model.inside[k]
        torch.testing.assert_close(gradient, expected.expand_as(gradient))
        clean = (torch.tensor(PAINTS[1 - k]) * torch.tensor(colour)).sum()
        assert abs(float(clean)) < 1e-6  # the other's patch does not look like its own
        torch.testing.assert_close(model(samples.images)[0, k].item(), 1.2 * size, rtol=0.05, atol=0)
