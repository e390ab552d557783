"""Every check of `TrainerTests` fails on the trainer that breaks it, and says how to mend it."""

from __future__ import annotations

import random
import shutil
import time

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from genxai_core import Samples, Spec, Trained, Trainer
from genxai_core.draws import batch_indices
from genxai_core.errors import StorageError
from genxai_core.testing import LinearDiscriminator, TrainerTests
from genxai_core.training import Loop

DECLARED = "test_it_returns_the_models_that_it_declares"
HISTORY = "test_its_history_is_numbers"
SAVED = "test_what_it_trained_survives_saving"
CHANGES = "test_training_changes_something"
SEEDED = "test_the_same_seed_trains_the_same_models"
OTHERS = "test_another_seed_trains_others"
WRITTEN = "test_data_are_not_written_into"
HALF = "test_bfloat16_gives_finite_weights"
CUDA = "test_cuda_gives_back_models_on_the_cpu"
CRASHED = "test_a_crashed_training_ends_as_an_uninterrupted_one"
REFUSED = "test_a_checkpoint_of_another_training_is_refused"
STOPPED = "test_nan_stops_it"
WRONG = "test_wrong_data_are_refused"


class Fits(Trainer):
    """Fits a linear judge to labels."""

    produces = {"judge": "discriminator"}

    def __init__(self) -> None:
        self.momentum = 0.0

    # what mutants change
    def new(self, data):
        return Spec("discriminator/tiny-linear").build(size=data.image_shape[1], channels=data.image_shape[0])

    def rows(self, data, runtime, i):
        return data[batch_indices(runtime.seed, i, 8, len(data))]

    def losses(self, loss, i):
        return {"loss": loss}

    def loop(self, model, optimizer, runtime):
        return Loop("fits", models={"judge": model}, optimizers={"judge": optimizer}, steps=8, runtime=runtime)

    def update(self, loop, loss):
        loop.update("judge", loss)

    def returned(self, model, history):
        return Trained({"judge": model.eval()}, history, {"steps": 8})

    def _fit(self, data, runtime):
        model = self.new(data)
        loop = self.loop(model, torch.optim.Adam(model.parameters(), 0.01), runtime)

        def step(i):
            batch = self.rows(data, runtime, i)
            loss = binary_cross_entropy_with_logits(model(batch.images)[:, 0], batch.labels.float())
            self.update(loop, loss)
            return self.losses(loss, i)

        return self.returned(model, loop.run(step))


def mutant(**members):
    return type("Mutant", (Fits,), {"__doc__": Fits.__doc__, **members})


def returning(change):
    return mutant(returned=lambda self, model, history: change(Fits.returned(self, model, history)))


def salted(self, data):
    model = Fits.new(self, data)
    with torch.no_grad():
        model.head.bias.add_(1e-3 * random.SystemRandom().random())
    return model


def same_order(self, data, runtime, i):
    return data[batch_indices(0, i, 8, len(data))]


def writes(self, data, runtime, i):
    if isinstance(data, Samples):
        data.images.clamp_(max=0.5)
    return Fits.rows(self, data, runtime, i)


def remembers(self, loop, loss):
    """State of its own that no checkpoint holds."""
    self.momentum = 0.5 * self.momentum + float(loss.detach())
    Fits.update(self, loop, loss * (1 + 0.1 * self.momentum))


def no_checkpoints(self, model, optimizer, runtime):
    return Fits.loop(self, model, optimizer, runtime.with_(checkpoints=None))


class Forgetful(Fits):
    """Fits a linear judge to labels, and starts again whatever the checkpoint says."""

    def _fit(self, data, runtime):
        try:
            return Fits._fit(self, data, runtime)
        except StorageError:
            shutil.rmtree(runtime.checkpoints)
            return Fits._fit(self, data, runtime)


class StartsAgain(Fits):
    """Fits a linear judge to labels, from the beginning every time."""

    def loop(self, model, optimizer, runtime):
        if runtime.checkpoints:
            shutil.rmtree(runtime.checkpoints, ignore_errors=True)
        return Fits.loop(self, model, optimizer, runtime)


class Halves(Fits):
    """Fits a linear judge to labels, and rounds its weights."""

    def _fit(self, data, runtime):
        trained = Fits._fit(self, data, runtime)
        if runtime.precision == "bfloat16":
            trained.judge.to(torch.bfloat16)
        return trained


def unguarded(self, loop, loss):
    optimizer = loop.optimizers["judge"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def only_looks(self, loop, loss):
    loop._finite(loss.detach(), "the loss")


def stands_still(self, loop, loss):
    for group in loop.optimizers["judge"].param_groups:
        group["lr"] = 0.0
    Fits.update(self, loop, loss)


def hides_nan(self, loop, loss):
    if not torch.isfinite(loss):
        raise RuntimeError("something is wrong")
    Fits.update(self, loop, loss)


def any_data(self, data, runtime=None):
    if isinstance(data, torch.Tensor):
        return None
    return Trainer.fit(self, data, runtime)


def moves(self, data, runtime=None):
    trained = Trainer.fit(self, data, runtime)
    torch.rand(1)
    return trained


def in_training(trained):
    trained.judge.train()
    return trained


def renamed(trained):
    return Trained({"critic": trained.judge}, trained.history, trained.info)


def without_steps(trained):
    return Trained(trained.models, {"loss": trained.history["loss"]}, trained.info)


def uneven(trained):
    return Trained(trained.models, {**trained.history, "extra": [1.0]}, trained.info)


def unsavable(trained):
    return Trained(trained.models, trained.history, {"f": object()})


def timed(trained):
    return Trained(trained.models, trained.history, {"seconds": time.perf_counter()})


def counts(self, loop, loss):
    self.momentum += 1
    Fits.update(self, loop, loss)


def counting(self, model, history):
    return Trained({"judge": model.eval()}, history, {"updates": 1e9 + self.momentum})


MUTANTS = {
    "nothing is wrong": (Fits, {}),
    "other names": (returning(renamed), {DECLARED: "declares ['judge'], and returned Trained of ['critic']"}),
    "train mode": (returning(in_training), {DECLARED: "judge is in train mode"}),
    "another kind": (mutant(produces={"judge": "generator"}), {DECLARED: "LinearDiscriminator, declared as generator"}),
    "no steps": (returning(without_steps), {HISTORY: "series of lengths {'loss': 8}"}),
    "uneven series": (returning(uneven), {HISTORY: "'extra': 1"}),
    "not registered": (mutant(new=lambda self, data: LinearDiscriminator()), {SAVED: "not built through the registry"}),
    "not plain": (returning(unsavable), {SAVED: "what it trained cannot be saved", CRASHED: "differ: info['f'] is"}),
    "a timing": (returning(timed), {}),
    "a count that starts again": (
        mutant(returned=counting, update=counts),
        {CRASHED: "differ: info['updates'] differs by 4"},
    ),
    "no loss": (mutant(losses=lambda self, loss, i: {"loss": 0.0}), {CHANGES: "its history is constant"}),
    "never steps": (
        mutant(update=only_looks),
        {CHANGES: "no optimiser of torch stepped", OTHERS: "seeds 0 and 1"},
    ),
    "steps on nothing": (
        mutant(update=stands_still),
        {CHANGES: "of 8 steps of optimisers 8 changed no weight", OTHERS: "seeds 0 and 1"},
    ),
    "unseeded": (mutant(new=salted), {SEEDED: "one seed trained two models", CRASHED: "uninterrupted differ"}),
    "one order": (mutant(rows=same_order), {OTHERS: "seeds 0 and 1 trained the same models"}),
    "moves generators": (mutant(fit=moves), {SEEDED: "training moved torch's random generator"}),
    "writes": (mutant(rows=writes), {WRITTEN: "wrote into images"}),
    "remembers": (mutant(update=remembers), {CRASHED: "resumed and uninterrupted differ: judge: the value of head"}),
    "no checkpoints": (mutant(loop=no_checkpoints), {CRASHED: "kept no checkpoint in runtime.checkpoints"}),
    "starts again": (
        StartsAgain,
        {CRASHED: "started again from the beginning (8 readings of 8)", REFUSED: "of another seed"},
    ),
    "takes any checkpoint": (Forgetful, {REFUSED: "checkpoint of another seed: expected StorageError, but nothing"}),
    "half weights": (Halves, {HALF: "in bfloat16 it trained head.weight"}),
    "goes on over NaN": (mutant(update=unguarded), {STOPPED: "went on over NaN in the data, and returned NaN in head"}),
    "stops in no words": (mutant(update=hides_nan), {STOPPED: "NaN in the data ended in RuntimeError"}),
    "any data": (mutant(fit=any_data), {WRONG: "with a tensor: expected InputError, but nothing was raised"}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails_its_check_and_no_other(conforms, failures, name):
    cls, expected = MUTANTS[name]
    found = failures(conforms(TrainerTests, cls))
    assert found.keys() == expected.keys()
    for check, text in expected.items():
        assert text in found[check]


def test_every_check_has_a_mutant():
    own = {n for n in vars(TrainerTests) if n.startswith("test_")}
    assert own == {check for _, expected in MUTANTS.values() for check in expected} | {CUDA}


class ReadsOnce(Fits):
    """Fits a linear judge to labels that it reads once."""

    def _fit(self, data, runtime):
        return Fits._fit(self, data[:], runtime)


def test_a_trainer_that_reads_its_data_once(conforms, failures):
    assert failures(conforms(TrainerTests, ReadsOnce)) == {}
    found = failures(conforms(TrainerTests, type("Mutant", (ReadsOnce,), {"update": remembers, "__doc__": "Fits."})))
    assert list(found) == [CRASHED]
    hidden = type("Mutant", (ReadsOnce,), {"loop": no_checkpoints, "__doc__": "Fits."})
    found = failures(conforms(TrainerTests, hidden))
    assert "kept no checkpoint" in found[CRASHED]


def test_a_trainer_with_a_loop_of_its_own(conforms, run):
    class Alone(Fits):
        """Fits nothing."""

        def _fit(self, data, runtime):
            model = self.new(data).eval()
            return Trained({"judge": model}, {"step": [0, 1], "loss": [1.0, 0.5]}, {})

    found = run(conforms(TrainerTests, Alone))
    assert "its checkpoints are its own" in found[REFUSED]
    assert "could not be interrupted" in str(found[CRASHED])
    assert "went on over NaN" in str(found[STOPPED])
