"""Two processes train as one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genxai_core import Spec, storage

SCRIPT = """
import sys
from pathlib import Path
import torch
from genxai_core import Runtime, Samples, Spec, create, draws, registry, storage

torch.set_num_threads(1)
registry.default().host.load_file(Path({nets!r}))
images = draws.uniform(0, range(40), (1, 16, 16)) * 2 - 1
tiny = {{"generator": Spec("generator/tiny"), "discriminator": Spec("discriminator/tiny")}}
trainer = create("trainer/xai-gan", steps=8, batch=8, start=0.25, generator_lr=0.001, discriminator_lr=0.001,
                 **{{**tiny, **{params!r}}})
runtime = Runtime(device="cpu", seed=3)
trained = trainer.fit(Samples(images, labels=torch.arange(40) % 3, value_range=(-1.0, 1.0)), runtime)
tensors = {{f"{{n}}.{{k}}": v.contiguous() for n, m in trained.models.items() for k, v in m.state_dict().items()}}
tensors["history"] = torch.tensor(list(trained.history.values()), dtype=torch.float64)
storage.write_tensors(Path(sys.argv[1]) / f"{{runtime.processes}}-{{runtime.rank}}.safetensors", tensors)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"loss": "wasserstein-gp", "r1": 1.0, "control": "shuffled"},
        {
            "generator": Spec("generator/conditional", {"num_classes": 3}),
            "discriminator": Spec("discriminator/conditional"),
        },
    ],
)
def test_two_processes_train_what_one_does(tmp_path, params):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(nets=str(Path(__file__).with_name("tiny_nets.py")), params=params))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    for n in ("1", "2"):
        done = subprocess.run(
            [*launch, n, str(script), str(tmp_path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    one, first, second = (storage.read_tensors(tmp_path / f"{n}.safetensors") for n in ("1-0", "2-0", "2-1"))
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
        # the mean of two half-batch gradients is rounded otherwise than that of the whole batch, and Adam's division
        # by the root of the second moment enlarges it
        torch.testing.assert_close(value, one[key], rtol=1e-3, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")
