"""The training loop: exact resume after anything, a stop before a NaN is stepped on, a Ctrl-C that saves."""

import os
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from genxai_core import Runtime, draws, storage
from genxai_core.errors import Interrupted, StorageError, TrainingDiverged
from genxai_core.training import Loop

STEPS = 7


class Fit:
    """A training that leans on everything that a checkpoint must hold."""

    def __init__(self, folder=None, seed=0, seconds=0.0, steps=STEPS, config=None):
        self.runtime = Runtime(seed=seed, device="cpu", checkpoints=folder, checkpoint_seconds=seconds, quiet=True)
        self.runtime.seed_global()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
        self.other = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2))
        self.optimizers = {
            "net": torch.optim.Adam(self.net.parameters(), lr=0.05, betas=(0.5, 0.9), amsgrad=True),
            "other": torch.optim.SGD(self.other.parameters(), lr=0.1, momentum=0.9),
        }
        models = {"net": self.net, "other": self.other}
        self.loop = Loop(
            "fit", models=models, optimizers=self.optimizers, steps=steps, runtime=self.runtime, config=config
        )
        self.spoil = {}

    def step(self, i):
        if i in self.spoil:
            self.spoil[i](self)
        x = draws.normal(self.runtime.seed, draws.batch_indices(self.runtime.seed, i, 6, 20), (3,))
        x = x + torch.rand(6, 3) + float(np.random.randn()) + random.gauss(0, 1)
        loss = self.net(x).pow(2).mean() * self.scale(i)
        self.loop.update("net", loss)
        second = self.other(x).pow(2).mean()
        self.loop.update("other", second)
        return {"zeta": loss, "alpha": float(second.detach())}

    def scale(self, i):
        return 1.0

    def run(self):
        return self.loop.run(self.step)

    def bits(self):
        """All that a training ends with, bit for bit."""
        tree, tensors = storage.pack(
            {
                "models": [m.state_dict() for m in (self.net, self.other)],
                "optimizers": [o.state_dict() for o in self.optimizers.values()],
                "history": self.loop.history,
                "random": [random.getstate(), np.random.get_state(), torch.get_rng_state()],
                "order": list(self.loop.history),
            }
        )
        raw = {k: (v.dtype, v.shape, v.reshape(-1).view(torch.uint8).tolist()) for k, v in tensors.items()}
        return storage.json_text(tree), raw


@pytest.fixture(scope="module")
def whole():
    fit = Fit()
    fit.run()
    return fit.bits()


def disturb():
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)


class Stop(Exception):  # noqa: N818
    pass


def stop(fit):
    raise Stop


# -- history and resuming --------------------------------------------------------------------------------------------


def test_history_has_one_value_per_step_in_the_order_given(whole):
    fit = Fit()
    history = fit.run()
    assert list(history) == ["step", "zeta", "alpha"]
    assert history["step"] == [float(i) for i in range(STEPS)]
    assert all(len(v) == STEPS and all(type(x) is float for x in v) for v in history.values())
    assert fit.bits() == whole, "the training itself is deterministic, or nothing below means anything"


def test_checkpoints_change_nothing(tmp_path, whole):
    fit = Fit(tmp_path)
    fit.run()
    assert fit.bits() == whole


@pytest.mark.parametrize("at", range(STEPS))
def test_after_an_exception_at_any_step_it_goes_on_to_the_same_bits(tmp_path, whole, at):
    first = Fit(tmp_path)
    first.spoil[at] = stop
    with pytest.raises(Stop):
        first.run()
    second = Fit(tmp_path)
    if at > 0:  # before the first checkpoint the seed alone decides
        disturb()
    started = []
    second.spoil = {i: lambda fit, i=i: started.append(i) for i in range(STEPS)}
    second.run()
    assert started == list(range(at, STEPS)), "no step is done twice"
    assert second.bits() == whole


def test_it_can_be_interrupted_at_every_step(tmp_path, whole):
    for at in range(STEPS):
        fit = Fit(tmp_path)
        fit.spoil[at] = stop
        with pytest.raises(Stop):
            fit.run()
    fit = Fit(tmp_path)
    fit.run()
    assert fit.bits() == whole


def test_a_finished_training_is_not_done_again(tmp_path, whole):
    Fit(tmp_path).run()
    again = Fit(tmp_path)
    again.spoil = dict.fromkeys(range(STEPS), stop)
    again.run()
    assert again.bits() == whole


def test_checkpoints_are_rare_unless_time_has_passed(tmp_path):
    fit = Fit(tmp_path, seconds=1000.0)
    fit.spoil[STEPS - 1] = stop
    with pytest.raises(Stop):
        fit.run()
    assert not (tmp_path / "fit").exists()


def test_no_folder_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit = Fit()
    fit.run()
    fit.loop.save()
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    fit = Fit(tmp_path)
    fit.loop.save()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"seed": 1}, {"steps": STEPS + 1}, {"config": {"lr": 0.1}}])
def test_a_checkpoint_of_another_configuration_is_refused_and_kept(tmp_path, change):
    Fit(tmp_path).run()
    before = storage.verify(tmp_path / "fit")
    said = "checkpoint of another configuration or of other data; delete it or use another"
    with pytest.raises(StorageError, match=said):
        Fit(tmp_path, **change).run()
    assert storage.verify(tmp_path / "fit") == before


@pytest.mark.parametrize("file", ["checkpoint.json", "checkpoint.safetensors", "hashes.json"])
def test_a_damaged_checkpoint_is_told_not_trained_over(tmp_path, file):
    Fit(tmp_path).run()
    path = tmp_path / "fit" / file
    path.write_bytes(path.read_bytes()[:-9] + b"?????????")
    again = Fit(tmp_path)
    with pytest.raises(StorageError, match=re.escape(str(tmp_path / "fit"))) as caught:
        again.run()
    assert "delete" in str(caught.value)
    assert again.loop.history == {}


def test_a_training_killed_between_the_renames_of_a_checkpoint_goes_on(tmp_path, whole):
    first = Fit(tmp_path)
    first.spoil[4] = stop
    with pytest.raises(Stop):
        first.run()
    (tmp_path / "fit").rename(tmp_path / ".fit.old-12345")
    second = Fit(tmp_path)
    disturb()
    second.run()
    assert second.bits() == whole


def poison(value):
    def scale(self, i):
        return value if i == 4 else 1.0

    return scale


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nothing_is_stepped_on_what_is_not_finite(tmp_path, monkeypatch, whole, value, what):
    fit = Fit(tmp_path)
    kept = {}

    def note(fit):
        kept["before"] = [p.detach().clone() for p in fit.net.parameters()]
        kept["adam"] = storage.pack(fit.optimizers["net"].state_dict())
        if what == "gradient":
            fit.net[3].weight.register_hook(lambda g: g * value)

    fit.spoil[4] = note
    if what == "loss":
        monkeypatch.setattr(Fit, "scale", poison(value))
    with pytest.raises(TrainingDiverged) as caught:
        fit.run()
    message = str(caught.value)
    assert re.match(rf"fit: the {what} of 'net' is (nan|-?inf) at step 4; it was not stepped on, ", message)
    assert f"the checkpoint of step 4 is kept in {tmp_path / 'fit'}" in message
    assert len(message.splitlines()) == 1
    for before, now in zip(kept["before"], fit.net.parameters()):
        assert torch.equal(before, now.detach())
    tree, tensors = storage.pack(fit.optimizers["net"].state_dict())
    assert tree == kept["adam"][0]
    assert all(torch.equal(v, kept["adam"][1][k]) for k, v in tensors.items())
    assert len(fit.loop.history["step"]) == 4
    monkeypatch.undo()
    again = Fit(tmp_path)
    disturb()
    again.run()
    assert again.bits() == whole, "the checkpoint from before is good"


def test_a_divergence_before_the_first_checkpoint_says_so():
    fit = Fit()
    fit.scale = lambda i: float("nan")
    with pytest.raises(TrainingDiverged, match=r"at step 0; it was not stepped on, none is saved yet\. Lower"):
        fit.run()


def test_other_gradients_are_cleared_before_each_update():
    fit = Fit()
    fit.net[3].weight.grad = torch.full_like(fit.net[3].weight, 1e6)
    fit.run()
    clean = Fit()
    clean.run()
    assert fit.loop.history == clean.loop.history


def test_parameters_that_the_loss_does_not_reach_stay():
    fit = Fit()
    fit.net.add_module("unused", nn.Linear(1, 1))
    fit.optimizers["net"].add_param_group({"params": fit.net.unused.parameters()})
    before = fit.net.unused.weight.detach().clone()
    fit.loop.update("net", fit.net[0](torch.ones(1, 3)).sum())
    assert torch.equal(fit.net.unused.weight, before)


def handlers():
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_running_step_saves_and_says_how_to_go_on(tmp_path, whole, number):
    before = handlers()
    fit = Fit(tmp_path, seconds=1000.0)
    fit.spoil[2] = lambda fit: os.kill(os.getpid(), number)
    with pytest.raises(Interrupted) as caught:
        fit.run()
    assert str(caught.value) == "fit: interrupted, step 3 of 7 is saved; the same command goes on from there"
    assert caught.value.exit_code == 130
    assert handlers() == before
    again = Fit(tmp_path, seconds=1000.0)
    disturb()
    again.run()
    assert again.bits() == whole


def test_without_a_folder_it_says_that_nothing_is_kept():
    fit = Fit()
    fit.spoil[2] = lambda fit: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Interrupted, match=r"at step 3; nothing is kept without Runtime\(checkpoints=DIR\)"):
        fit.run()


def test_a_second_signal_interrupts_at_once(tmp_path):
    before = handlers()
    fit = Fit(tmp_path)

    def twice(fit):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    fit.spoil[2] = twice
    with pytest.raises(KeyboardInterrupt):
        fit.run()
    assert handlers() == before
    assert storage.is_complete(tmp_path / "fit"), "the last checkpoint is whole"


@pytest.mark.parametrize("ending", [None, Stop])
def test_handlers_are_restored(ending):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *a: seen.append(1))
    mine = signal.getsignal(signal.SIGTERM)
    try:
        fit = Fit()
        if ending:
            fit.spoil[1] = stop
            with pytest.raises(Stop):
                fit.run()
        else:
            fit.run()
        assert signal.getsignal(signal.SIGTERM) is mine
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_it_runs_in_a_thread_where_signals_cannot_be_handled(whole):
    found = []

    def work():
        fit = Fit()
        fit.run()
        found.append(fit.loop.history)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    fit = Fit()
    fit.run()
    assert found == [fit.loop.history]


# -- kill -9 ---------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys, importlib.util
from pathlib import Path
spec = importlib.util.spec_from_file_location("fitting", {test!r})
fitting = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fitting)
folder, when = Path(sys.argv[1]), sys.argv[2]
fit = fitting.Fit(folder)
if when == "step":
    fit.spoil[4] = lambda fit: os.kill(os.getpid(), signal.SIGKILL)
elif when != "never":
    renames, rename = [], Path.rename
    def counted(self, to):
        renames.append(1)
        if when == "before" and len(renames) == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(self, to)
        if when == "between" and len(renames) == 6:
            os.kill(os.getpid(), signal.SIGKILL)
    Path.rename = counted
    write = fitting.storage.write_tensors
    def half(path, tensors):
        write(path, tensors)
        renames.append(1)
        if when == "writing" and len(renames) > 6:
            Path(path).write_bytes(Path(path).read_bytes()[:100])
            os.kill(os.getpid(), signal.SIGKILL)
    fitting.storage.write_tensors = half if when == "writing" else write
fit.run()
print(fitting.storage.digest(repr(fit.bits())))
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["step", "writing", "before", "between"])
def test_killed_with_9_anywhere_it_goes_on_to_the_same_bits(tmp_path, when, whole):
    code = KILLED.format(test=str(Path(__file__)))

    def run(when):
        command = [sys.executable, "-c", code, str(tmp_path / "checkpoints"), when]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    killed = run(when)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run("never")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.strip() == storage.digest(repr(whole))
