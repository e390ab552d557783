"""Crashes, Ctrl-C and NaN in the middle of adversarial training."""

import os
import signal
from dataclasses import replace

import pytest
import torch

from genxai_core import Runtime, Spec, storage
from genxai_core.errors import Interrupted, TrainingDiverged

STEPS = 10


class CrashError(Exception):
    """What no code expects."""


def crash(batch):
    raise CrashError


def interrupt(batch):
    os.kill(os.getpid(), signal.SIGINT)
    return batch


def poison(batch):
    batch.images[3, 0, 5, 5] = float("nan")
    return batch


@pytest.fixture
def runtime(tmp_path):
    return Runtime(device="cpu", seed=3, checkpoints=tmp_path, checkpoint_seconds=0.0)


CONDITIONAL = {
    "generator": Spec("generator/conditional", {"num_classes": 3}),
    "discriminator": Spec("discriminator/conditional"),
}

VARIANTS = [
    ("gan", {}),
    ("xai-gan", {"start": 0.2}),
    ("xai-gan", {"start": 0.2, "explainer": Spec("explainer/noisy")}),
    ("xai-gan", {"start": 0.2, "discriminator": Spec("discriminator/dropout")}),
    ("xai-gan", {"start": 0.2, "every": 3, "explainer": Spec("explainer/noisy")}),
    *(("xai-gan", {"start": 0.2, "control": kind}) for kind in ("uniform", "shuffled", "random")),
    ("gan", {"discriminator": Spec("discriminator/batch-norm")}),
    ("gan", {"loss": "wasserstein-gp", "r1": 1.0}),
    ("gan", {"ema": 0.9}),
    ("gan", {**CONDITIONAL, "loss": "wasserstein-gp", "r1": 1.0, "ema": 0.9}),
    ("xai-gan", {**CONDITIONAL, "start": 0.2, "explainer": Spec("explainer/noisy")}),
    ("xai-gan", {"start": 0.2, "mode": "reference", "discriminator": Spec("discriminator/dropout")}),
]


@pytest.mark.parametrize(("event", "error"), [(crash, CrashError), (interrupt, Interrupted)])
@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_resumed_training_ends_bit_for_bit_as_uninterrupted(
    train, eventful, runtime, same_weights, name, params, event, error
):
    whole = train(name, steps=STEPS, **params)
    with pytest.raises(error):
        train(name, steps=STEPS, data=eventful(7, event), runtime=runtime, **params)
    rest = eventful(0, None)
    resumed = train(name, steps=STEPS, data=rest, runtime=runtime, **params)
    assert 3 <= rest.calls < STEPS  # it went on, it did not start again
    assert same_weights(whole, resumed)
    assert resumed.history == whole.history
    assert resumed.info == whole.info


def test_the_optimisers_resume_too(train, eventful, runtime, tmp_path):
    """Their state in the last checkpoint equals that of a training that nothing interrupted."""
    with pytest.raises(CrashError):
        train(steps=STEPS, data=eventful(7, crash), runtime=runtime)
    train(steps=STEPS, runtime=runtime)
    other = tmp_path / "whole"
    train(steps=STEPS, runtime=runtime.with_(checkpoints=other))
    one, two = (storage.read_tensors(d / "gan" / "checkpoint.safetensors") for d in (tmp_path, other))
    assert one.keys() == two.keys()
    assert any("exp_avg" in key for key in one)
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_nan_in_the_data_stops_before_the_step_and_keeps_the_last_good_checkpoint(
    train, eventful, runtime, same_weights
):
    with pytest.raises(TrainingDiverged, match=r"'discriminator' is nan at step 6; .*step 6 is kept"):
        train(steps=STEPS, data=eventful(7, poison), runtime=runtime)
    assert same_weights(train(steps=STEPS, runtime=runtime), train(steps=STEPS))


def test_a_checkpoint_of_other_parameters_is_refused(train, eventful, runtime):
    from genxai_core.errors import StorageError

    with pytest.raises(CrashError):
        train("xai-gan", data=eventful(4, crash), runtime=runtime)
    with pytest.raises(StorageError, match="another configuration"):
        train("xai-gan", alpha=0.3, runtime=runtime)


def test_a_checkpoint_of_other_data_of_the_same_size_is_refused(train, eventful, runtime, samples):
    from genxai_core.errors import StorageError

    with pytest.raises(CrashError):
        train(data=eventful(4, crash), runtime=runtime)
    with pytest.raises(StorageError, match="or of other data"):
        train(data=replace(samples, images=-samples.images), runtime=runtime)
