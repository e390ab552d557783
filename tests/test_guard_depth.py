"""What the guard restores beyond parameters and buffers."""

from __future__ import annotations

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
