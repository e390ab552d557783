"""What the kit calls equal."""

from __future__ import annotations

import torch

from genxai_core.testing.states import counted, differences, state_of


def test_floats_are_compared_in_double_precision():
    assert differences(1.0, 1.0) == []
    assert differences(1.0, 1.00000001, name="a") == ["a differs by 1e-08 (its largest magnitude is 1)"]
    assert differences({"at": 1.7e9}, {"at": 1.7e9 + 60}) != []
    assert differences({"at": 1.7e9}, {"at": 1.7e9 + 60}, rtol=1e-6) == []
    assert differences(float("nan"), float("nan")) == []
    assert differences(float("nan"), 1.0) != []
    assert differences([float("inf")], [float("inf")]) == []


def test_handles_of_hooks_are_told_apart_within_a_model_and_counted_between_two():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    for model in (one, other):
        model.register_forward_hook(lambda *_: None)
    assert state_of(one) != state_of(other)
    assert counted(state_of(one)) == counted(state_of(other))
    other.register_forward_hook(lambda *_: None)
    assert counted(state_of(one)) != counted(state_of(other))
