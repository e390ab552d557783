"""What the guard restores beyond parameters and buffers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genxai_core.guard import guard


def test_tensors_and_values_in_lists_and_dicts_are_restored():
    model = nn.Linear(1, 1)
    model.stats, model.cfg = [torch.zeros(2)], {"a": {"b": 1, "t": (torch.zeros(1),)}}
    with guard(model):
        model.stats[0] += 3
        model.stats.append(1)
        model.cfg["a"]["b"] = 4
        model.cfg["a"]["t"][0].fill_(7)
    assert model.stats[0].tolist() == [0.0, 0.0]
    assert len(model.stats) == 1
    assert model.cfg["a"]["b"] == 1
    assert model.cfg["a"]["t"][0].tolist() == [0.0]


def test_default_dtype_matmul_precision_and_anomaly_mode_are_restored():
    with guard():
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("medium")
        torch.autograd.set_detect_anomaly(True)
    assert torch.get_default_dtype() is torch.float32
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.is_anomaly_enabled()


def test_a_tensor_of_one_element_with_a_stride_is_restored():
    model = nn.Linear(1, 1)
    model.every = torch.arange(62)[::31][:1]
    model.empty, model.turned = torch.zeros(0, 3)[:, ::2], torch.arange(6.0).view(2, 3).t()
    with guard(model):
        model.every.fill_(7)
        model.turned.zero_()
    assert model.every.tolist() == [0]
    assert model.turned.tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


class Frozen(dict):
    """A dict that refuses to be written to, as a library's configuration may be."""

    def update(self, *args, **kwargs):
        raise TypeError("frozen")

    def clear(self):
        raise TypeError("frozen")


def test_a_container_that_did_not_change_is_not_written_to():
    model = nn.Linear(2, 1)
    model.config, model.notes = Frozen(a=1, b=[2]), {"seen": 0}
    with guard(model):
        model.notes["seen"] = 5
        model.config["b"].append(3)
    assert model.config == {"a": 1, "b": [2]}
    assert model.notes == {"seen": 0}


@pytest.mark.parametrize("change", [lambda s: s.add("c"), lambda s: s.discard("a"), lambda s: s.clear()])
def test_sets_are_restored(change):
    model = nn.Linear(2, 1)
    model.names = {"a", "b"}
    with guard(model):
        change(model.names)
    assert model.names == {"a", "b"}
