"""Device, seed, precision, progress, shares."""

import dataclasses
import io
import random
import sys

import numpy as np
import pytest
import torch

from genxai_core import Runtime
from genxai_core.errors import InputError


def test_it_is_frozen_and_copied_with_changes():
    runtime = Runtime(seed=3)
    assert runtime.with_(batch_size=2) == Runtime(seed=3, batch_size=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        runtime.seed = 4
    with pytest.raises(InputError):
        runtime.with_(batch_size=0)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:11"])
def test_devices_are_spelt_so(device):
    assert Runtime(device=device).device == device


@pytest.mark.parametrize(
    "device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "auto:1", "", "CPU", "cuda:0 ", "cuda:²"]
)
def test_other_devices_are_refused(device):
    with pytest.raises(InputError, match="is not one of auto, cpu, cuda"):
        Runtime(device=device)


@pytest.mark.parametrize(
    "changes", [{"batch_size": 0}, {"batch_size": -1}, {"batch_size": 2.5}, {"precision": "float16"}]
)
def test_other_values_are_refused(changes):
    with pytest.raises(InputError, match=r"batch_size|precision"):
        Runtime(**changes)


def test_the_cpu_is_there_and_an_absent_gpu_is_told(monkeypatch):
    assert Runtime(device="cpu").torch_device == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Runtime().torch_device == torch.device("cpu")
    with pytest.raises(InputError, match="this machine has 0 CUDA devices; use --device cpu or auto"):
        _ = Runtime(device="cuda").torch_device


def test_each_process_takes_its_own_gpu_unless_one_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Runtime().torch_device == torch.device("cuda", 1)
    assert Runtime(device="cuda").torch_device == torch.device("cuda", 1)
    assert Runtime(device="cuda:0").torch_device == torch.device("cuda", 0)
    with pytest.raises(InputError, match="has 2 CUDA devices"):
        _ = Runtime(device="cuda:2").torch_device


def test_seeding_reaches_python_numpy_and_torch():
    def drawn(runtime, offset=0):
        runtime.seed_global(offset)
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    assert drawn(Runtime(seed=5)) == drawn(Runtime(seed=5))
    assert drawn(Runtime(seed=5), 2) == drawn(Runtime(seed=7))
    assert not set(drawn(Runtime(seed=5))) & set(drawn(Runtime(seed=6)))
    for seed in (-1, 2**32, 2**70):
        drawn(Runtime(seed=seed))


def test_precision():
    x = torch.ones(2, 2)
    with Runtime(device="cpu").autocast():
        assert (x @ x).dtype == torch.float32
    with Runtime(device="cpu", precision="bfloat16").autocast():
        assert (x @ x).dtype == torch.bfloat16


class Terminal(io.StringIO):
    def isatty(self):
        return True


def bar(runtime):
    with runtime.progress("training", 4, done=1) as advance:
        advance()
        advance(2, loss=0.123456, stage="late")


@pytest.mark.parametrize("why", ["quiet", "no terminal", "another rank"])
def test_progress_is_silent(monkeypatch, why):
    stream = io.StringIO() if why == "no terminal" else Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    if why == "another rank":
        monkeypatch.setenv("RANK", "1")
    bar(Runtime(quiet=why == "quiet"))
    assert stream.getvalue() == ""


def test_progress_is_shown_on_a_terminal(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    bar(Runtime())
    text = stream.getvalue()
    assert "training" in text
    assert "4/4" in text
    assert "loss 0.123" in text
    assert "stage late" in text


def test_one_process_is_the_main_one_and_shares_with_itself():
    runtime = Runtime()
    assert (runtime.processes, runtime.rank, runtime.is_main) == (1, 0, True)
    x = torch.ones(2)
    runtime.average([x])
    runtime.wait()
    assert x.tolist() == [1, 1]
    assert runtime.share({"a": 1}) == {"a": 1}
    assert runtime.shard(5) == slice(0, 5)


def test_shares_are_equal_disjoint_and_whole_or_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    taken = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        taken += list(range(12))[Runtime().shard(12)]
        assert Runtime().is_main == (rank == 0)
    assert taken == list(range(12))
    with pytest.raises(InputError, match="a batch of 10 does not divide among 4 processes"):
        Runtime().shard(10)


TWO = """
import torch, torch.multiprocessing as mp, os
from genxai_core import Runtime

def work(rank):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="{port}")
    runtime = Runtime(device="cpu")
    a, b = torch.full((2, 2), float(rank)), torch.tensor(10.0 * rank)
    runtime.average([a, b])
    assert a.tolist() == [[0.5, 0.5], [0.5, 0.5]] and float(b) == 5.0, (a, b)
    assert runtime.share({{"from": rank}}) == {{"from": 0}}
    runtime.wait()
    torch.distributed.destroy_process_group()

if __name__ == "__main__":
    mp.spawn(work, nprocs=2)
    print("both agree")
"""


@pytest.mark.slow
def test_two_processes_average_and_share(tmp_path):
    import socket
    import subprocess

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "two.py"
    script.write_text(TWO.format(port=port))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert "both agree" in done.stdout, done.stderr
