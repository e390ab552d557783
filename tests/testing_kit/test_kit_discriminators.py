"""Every check of `DiscriminatorTests` fails on the discriminator that breaks it, and says how to mend it."""

from __future__ import annotations

import pytest
import torch

from genxai_core import Discriminator
from genxai_core.testing import DiscriminatorTests, LinearDiscriminator

COLUMNS = "test_logits_have_a_column_for_each_class"
BATCHED = "test_one_at_a_time_equals_batched"
GRADIENTS = "test_gradients_reach_the_images"
CALM = "test_eval_mode_is_deterministic"
GIVEN = "test_given_returns_a_discriminator"
SAVED = "test_a_saved_model_answers_the_same"
ALIKE = "test_the_same_seed_builds_the_same_model"
LEFT = "test_answering_leaves_it_as_it_was"


def mutant(**members):
    return type("Mutant", (LinearDiscriminator,), {"__doc__": LinearDiscriminator.__doc__, **members})


def judging(change):
    return mutant(forward=lambda self, images: change(self, LinearDiscriminator.forward(self, images)))


def draws_for_nothing(self, logits):
    torch.rand(1)
    return logits


def normed(norm):
    def init(self, size: int = 16, channels: int = 1, num_classes: int = 1) -> None:
        LinearDiscriminator.__init__(self, size, channels, num_classes)
        self.normed = norm(torch.nn.Linear(num_classes, num_classes))
        self.normed.register_forward_hook(keeps)

    return mutant(__init__=init, forward=lambda self, images: self.normed(LinearDiscriminator.forward(self, images)))


def keeps(module, inputs, outputs):
    return outputs


BUILT = []


def one_hook_more(self, size: int = 16, channels: int = 1, num_classes: int = 1) -> None:
    LinearDiscriminator.__init__(self, size, channels, num_classes)
    BUILT.append(1)
    for _ in BUILT:
        self.register_forward_hook(keeps)


class Held(Discriminator):
    """A judge [N, K] that holds labels."""

    def __init__(self, judge, labels):
        super().__init__()
        self.judge, self.labels = judge, labels

    def forward(self, images):
        return self.judge(images) + self.labels[:, None]


def with_statistics(self, size: int = 16, channels: int = 1, num_classes: int = 1) -> None:
    LinearDiscriminator.__init__(self, size, channels, num_classes)
    self.register_buffer("mean", torch.zeros(()))


def updates(self, images):
    self.mean += 0.1 * images.mean()
    return LinearDiscriminator.forward(self, images)


def always_training(self, mode=True):
    LinearDiscriminator.train(self, mode)
    self.normed.train(True)
    return self


STUBBORN = normed(lambda layer: torch.nn.BatchNorm1d(1, track_running_stats=False))
STUBBORN.train = always_training

MUTANTS = {
    "nothing is wrong": (LinearDiscriminator, {}),
    "one axis": (judging(lambda self, f: f[:, 0]), {COLUMNS: "logits of 4 images are torch.float32 [4]"}),
    "patches": (judging(lambda self, f: f[:, :, None]), {COLUMNS: "reduces patches and scales"}),
    "names": (mutant(class_names=property(lambda self: ("real", "fake"), lambda self, v: None)), {COLUMNS: "1 logits"}),
    "a list of names": (
        mutant(class_names=property(lambda self: ["real"], lambda self, v: None)),
        {COLUMNS: "class_names is ['real']"},
    ),
    "features of an image": (
        mutant(features=lambda self, images: images.mean(1)),
        {COLUMNS: "features of 4 images are torch.float32 [4, 16, 16]"},
    ),
    "batch statistics": (
        judging(lambda self, f: f - 0.5 * f.mean()),
        {BATCHED: "logits of image 0 alone and in"},
    ),
    "batch statistics of features": (
        mutant(features=lambda self, x: LinearDiscriminator.features(self, x) - x.mean()),
        {BATCHED: "the features of image 0"},
    ),
    "batch norm that stays in train mode": (
        STUBBORN,
        {BATCHED: "the logits of image 0 alone raised ValueError: Expected more than 1 value", GRADIENTS: ""},
    ),
    "detached": (judging(lambda self, f: f.detach()), {GRADIENTS: "no finite gradient of logit 0"}),
    "rounded": (judging(lambda self, f: f.round()), {GRADIENTS: "no finite gradient of logit 0"}),
    "noise": (
        judging(lambda self, f: f + 1e-6 * torch.rand_like(f)),
        {CALM: "two passes differ", SAVED: "logits differs"},
    ),
    "draws": (judging(draws_for_nothing), {CALM: "draw random numbers"}),
    "updates statistics": (
        mutant(__init__=with_statistics, forward=updates),
        {LEFT: "answering in eval mode changed the value of mean"},
    ),
    "hooks of its own": (normed(lambda layer: layer), {}),
    "weight norm by hooks": (normed(torch.nn.utils.weight_norm), {}),
    "spectral norm by hooks": (normed(torch.nn.utils.spectral_norm), {}),
    "one more hook each time": (
        mutant(__init__=one_hook_more),
        {ALIKE: "one seed built two models: the hooks of"},
    ),
    "given labels": (mutant(given=lambda self, labels: Held(self, labels)), {}),
    "given a function": (mutant(given=lambda self, labels: self.forward), {GIVEN: "given(labels=…) gave method"}),
    "given times": (
        mutant(given=lambda self, t: Held(self, torch.zeros(len(t), 3))),
        {GIVEN: "with logits torch.float32 [4, 4, 3]"},
    ),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails_its_check_and_no_other(conforms, failures, name):
    cls, expected = MUTANTS[name]
    found = failures(conforms(DiscriminatorTests, cls))
    assert found.keys() == expected.keys()
    for check, text in expected.items():
        assert text in found[check]


def test_every_check_has_a_mutant():
    own = {n for n in vars(DiscriminatorTests) if n.startswith("test_")}
    assert own == {check for _, expected in MUTANTS.values() for check in expected} - {SAVED, LEFT, ALIKE}
