import importlib.metadata
from pathlib import Path

import pytest
import torch

from genxai_core import Dataset, Runtime, Samples, Spec, create, draws, registry
from genxai_core.plugins import PluginHost


@pytest.fixture(scope="session")
def tiny_registry():
    """A registry of this distribution and of the tiny nets, whatever else is installed."""
    own = [e for e in importlib.metadata.entry_points(group="genxai") if e.name == "xai-gan"]
    host = PluginHost(entry_points=own)
    host.load_file(Path(__file__).with_name("tiny_nets.py"))
    return registry.Registry(host)


@pytest.fixture(autouse=True)
def _tiny(tiny_registry):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with registry.using(tiny_registry):
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def samples():
    """50 images of 16 px: bright bars at different heights, with labels of which 2 is rare."""
    images = torch.full((50, 1, 16, 16), -0.9)
    for i in range(50):
        images[i, :, i % 13 : i % 13 + 4] = 0.8
    images = images + 0.1 * draws.normal(0, range(50), (1, 16, 16)).clamp(-1, 1)
    labels = torch.tensor([2 if i % 10 == 9 else i % 2 for i in range(50)])
    return Samples(images, labels=labels, value_range=(-1.0, 1.0))


BRIEF = {
    "generator": Spec("generator/tiny"),
    "steps": 6,
    "batch": 8,
    "generator_lr": 0.01,
    "discriminator_lr": 0.01,
}


@pytest.fixture
def train(samples):
    """Train tiny nets: ``train("xai-gan", alpha=0.3, data=…, runtime=…)``."""

    def run(name="gan", *, data=None, runtime=None, discriminator=None, **params):
        trainer = create(
            f"trainer/{name}",
            discriminator=discriminator or Spec("discriminator/tiny"),
            **{**BRIEF, **params},
        )
        return trainer.fit(data or samples, runtime or Runtime(device="cpu", seed=3))

    return run


class Eventful(Dataset):
    """Data to which something happens at the n-th batch; a checkpoint's look at them all is none."""

    def __init__(self, samples, at, event):
        self.samples, self.at, self.event, self.calls = samples, at, event, 0
        self.image_shape, self.value_range = samples.image_shape, samples.value_range

    def __len__(self):
        return len(self.samples)

    def _samples(self, rows):
        batch = self.samples[rows]
        if len(rows) != BRIEF["batch"]:
            return batch
        self.calls += 1
        return self.event(batch) if self.calls == self.at else batch


@pytest.fixture
def eventful(samples):
    """Return data to which ``event(batch)`` happens at batch number ``at``, counted from 1."""
    return lambda at, event, data=samples: Eventful(data, at, event)


@pytest.fixture
def same_weights():
    """Return whether two trainings ended with the same weights and buffers, bit for bit."""

    def compare(one, other):
        return all(
            torch.equal(a, other.models[name].state_dict()[key])
            for name, model in one.models.items()
            for key, a in model.state_dict().items()
        )

    return compare
