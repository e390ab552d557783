"""Every check of `GeneratorTests` fails on the generator that breaks it, and says how to mend it."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from genxai_core import Generator, Samples, draws
from genxai_core.errors import InputError
from genxai_core.testing import GeneratorTests, LinearGenerator

KIND = "test_it_is_a_model_of_its_kind"
SEEDED = "test_the_same_seed_builds_the_same_model"
SAVED = "test_a_saved_model_answers_the_same"
FINITE = "test_it_gives_finite_answers"
LEFT = "test_answering_leaves_it_as_it_was"
USEFUL = "test_it_can_do_something"
RANGE = "test_samples_are_in_its_range"
INDEXED = "test_image_i_depends_on_its_seed_and_index_alone"
GLOBAL = "test_sampling_draws_from_no_global_generator"
LABELS = "test_labels_are_kept_or_refused"
LATENTS = "test_latents_have_their_shape"
MADE = "test_samples_are_made_from_their_latents"
GRADIENTS = "test_gradients_reach_the_latents"
SHAPE = "test_latents_of_wrong_shape_are_refused"
OTHER = "test_its_other_capabilities_keep_their_shapes"


def mutant(**members):
    return type("Mutant", (LinearGenerator,), {"__doc__": LinearGenerator.__doc__, **members})


def drawing(change):
    """Whose `sample` makes samples of latents by a function of itself, n, seed and start."""

    def sample(self, n, seed, labels=None, start=0):
        if labels is not None:
            raise InputError("unconditional")
        with torch.no_grad():
            return change(self, n, seed, start)

    return mutant(sample=sample)


def forwarding(change):
    return mutant(forward=lambda self, latents: change(self, latents))


def built(change):
    def init(self, size: int = 16, channels: int = 1) -> None:
        LinearGenerator.__init__(self, size, channels)
        change(self)

    return init


def images(self, latents):
    return LinearGenerator.forward(self, latents)


def samples(self, latents, pixels=None, known=None):
    pixels = images(self, latents) if pixels is None else pixels
    return Samples(pixels, latents if known is None else known, value_range=self.value_range)


class Plain(nn.Module):
    """No Generator: latents [N, 4] to images."""

    value_range, latent_shape = (-1.0, 1.0), (4,)

    def __init__(self) -> None:
        super().__init__()
        self.inner = LinearGenerator()
        self.sample, self.sample_latents = self.inner.sample, self.inner.sample_latents

    def forward(self, latents):
        return self.inner(latents)


class Idle(Generator):
    """Makes [N, C, H, W] of nothing."""

    value_range = (-1.0, 1.0)


def salted(self):
    with torch.no_grad():
        self.to_image.bias.add_(1e-3 * random.SystemRandom().random())


def forgetful(self):
    self.shift = 0.1 * torch.rand(())


def counted(self):
    self.register_buffer("calls", torch.zeros(()))


def counting(self, latents):
    self.calls += 1
    return images(self, latents)


def settling(self, latents):
    self.eval()
    return images(self, latents)


def unguarded(self, n, seed, labels=None, start=0):
    if labels is not None:
        raise InputError("unconditional")
    return samples(self, self.sample_latents(n, seed, start))


def globally(self, n, seed, start):
    torch.rand(1)
    return samples(self, self.sample_latents(n, seed, start))


def any_shape(self, latents):
    return images(self, nn.functional.pad(latents, (0, 4 - latents.shape[1])))


MUTANTS = {
    "nothing is wrong": (LinearGenerator, {}),
    "no Generator": (Plain, {KIND: "builds a Plain, which is no Generator"}),
    "a list as range": (mutant(value_range=[-1.0, 1.0]), {KIND: "value_range is [-1.0, 1.0]"}),
    "unseeded weights": (mutant(__init__=built(salted)), {SEEDED: "one seed built two models: the value of to_image"}),
    "a tensor that is not saved": (
        mutant(__init__=built(forgetful), forward=lambda self, latents: images(self, latents) + self.shift),
        {SAVED: "after saving and loading, sample differs"},
    ),
    "NaN": (
        mutant(log_prob=lambda self, x: x.flatten(1).sum(1) * float("nan")),
        {FINITE: "NaN or infinity in log_prob (float32)"},
    ),
    "NaN in bfloat16": (
        mutant(log_prob=lambda self, x: x.sum((1, 2, 3)) / (0.0 if torch.is_autocast_enabled("cpu") else 1.0)),
        {FINITE: "NaN or infinity in log_prob (bfloat16)"},
    ),
    "counts in eval mode": (
        mutant(__init__=built(counted), forward=counting),
        {LEFT: "answering in eval mode changed the value of calls"},
    ),
    "switches itself to eval": (forwarding(settling), {LEFT: "answering switched parts of it to eval mode"}),
    "out of range": (
        forwarding(lambda self, z: 9 * images(self, z)),
        {RANGE: "the model says (-1, 1)"},
    ),
    "a graph": (mutant(sample=unguarded), {RANGE: "samples carry a graph"}),
    "start is ignored": (
        drawing(lambda self, n, seed, start: samples(self, self.sample_latents(n, seed))),
        {INDEXED: "images 2 and 3 depend on the batch"},
    ),
    "the seed is ignored": (
        drawing(lambda self, n, seed, start: samples(self, self.sample_latents(n, 0, start))),
        {INDEXED: "images [0, 1, 2, 3, 4] of seeds 3 and 4 are the same"},
    ),
    "unseeded samples": (
        drawing(lambda self, n, seed, start: samples(self, draws.normal(random.getrandbits(9), range(n), (4,)))),
        {INDEXED: "depend on the batch", GLOBAL: "sampling moved Python's", SAVED: "sample differs"},
    ),
    "moves the global generator": (drawing(globally), {GLOBAL: "sampling moved torch's random generator"}),
    "takes labels": (
        mutant(sample=lambda self, n, seed, labels=None, start=0: LinearGenerator.sample(self, n, seed, None, start)),
        {LABELS: "with labels: expected GenxaiError, but nothing was raised"},
    ),
    "latents of the batch": (
        mutant(
            sample_latents=lambda self, n, seed, start=0: (
                LinearGenerator.sample_latents(self, n, seed, start) + 0.01 * n
            )
        ),
        {LATENTS: "latents 2 and 3 depend on the batch", INDEXED: "images 2 and 3 depend on the batch"},
    ),
    "other latents than used": (
        drawing(
            lambda self, n, seed, start: samples(
                self, self.sample_latents(n, seed, start), known=-self.sample_latents(n, seed, start)
            )
        ),
        {MADE: "forward(samples.latents) is not samples.images"},
    ),
    "batch statistics": (
        forwarding(lambda self, z: images(self, z) - 0.1 * images(self, z).mean(0)),
        {MADE: "the image of latent 0 alone and in a batch differ", INDEXED: "depend on the batch"},
    ),
    "no gradient": (forwarding(lambda self, z: images(self, z.detach())), {GRADIENTS: "reaches the latents"}),
    "any shape": (forwarding(any_shape), {SHAPE: "one number short: expected InputError, but nothing was raised"}),
    "a code too short": (
        mutant(encode=lambda self, x: LinearGenerator.encode(self, x)[:, :2]),
        {OTHER: "encode gives [4, 2] for images [4, 1, 16, 16]"},
    ),
    "one feature for all": (mutant(features=lambda self, x: x.flatten(1).mean(0)), {OTHER: "features are [256]"}),
    "no capability": (Idle, {USEFUL: "has no capability"}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails_its_check_and_no_other(conforms, failures, name):
    cls, expected = MUTANTS[name]
    found = failures(conforms(GeneratorTests, cls))
    assert found.keys() == expected.keys()
    for check, text in expected.items():
        assert text in found[check]


def test_every_check_has_a_mutant():
    own = {n for n in dir(GeneratorTests) if n.startswith("test_")}
    own -= {n for n in dir(GeneratorTests.__mro__[2]) if n.startswith("test_")}
    assert own == {check for _, expected in MUTANTS.values() for check in expected} | {"test_cuda_agrees_with_the_cpu"}


# -- conditional --------------------------------------------------------------------------------------------------


class OfClasses(LinearGenerator):
    """Latents [N, 4] and labels to images [N, 1, 16, 16]; the class decides how bright."""

    num_classes = 3

    def __init__(self, keep: bool = True, check: bool = True) -> None:
        """Make one.

        Parameters
        ----------
        keep
            Whether samples know their labels.
        check
            Whether labels are checked.
        """
        super().__init__()
        self.keep, self.check = keep, check

    @torch.no_grad()
    def sample(self, n, seed, labels=None, start=0):
        if self.check and int(labels.max()) >= 3:
            raise InputError("labels are 0, 1 and 2")
        found = self(self.sample_latents(n, seed, start)) + 0.01 * labels[:, None, None, None]
        return Samples(
            found, labels=labels if self.keep else None, value_range=(-1.0, 1.0), class_names=("a", "b", "c")
        )


def test_a_conditional_generator(conforms, failures):
    assert failures(conforms(GeneratorTests, OfClasses)) == {}
    found = failures(conforms(GeneratorTests, OfClasses, params={"keep": False}))
    assert list(found) == [LABELS]
    assert "asked for labels [0, 1, 2], the samples say None" in found[LABELS]
    found = failures(conforms(GeneratorTests, OfClasses, params={"check": False}))
    assert list(found) == [LABELS]
    assert "with label 3 of 3: expected GenxaiError, but nothing was raised" in found[LABELS]


def test_what_a_generator_lacks_is_skipped(conforms, run):
    found = run(conforms(GeneratorTests, Idle))
    assert "draws no samples" in found[RANGE]
    assert "has no latents" in found[GRADIENTS]
