"""What a training step checks before it steps: one number that is finite where all gradients are."""

import math

import pytest
import torch

from genxai_core.training import _one_number


@pytest.mark.parametrize(
    ("values", "dtype", "finite"),
    [
        ([math.inf, -math.inf], torch.float32, False),  # of which the sum alone would be taken for 0
        ([math.nan, 1.0], torch.float32, False),
        ([6e4, 6e4], torch.float16, True),  # whose sum half precision cannot hold
        ([6e4, 6e4], torch.bfloat16, True),
        ([1e300, 1e300], torch.float64, True),
        ([1 + 2j, math.inf], torch.complex64, False),
    ],
)
def test_one_number_is_finite_where_all_gradients_are(values, dtype, finite):
    grads = [torch.ones(3), torch.tensor(values, dtype=dtype), -torch.ones(2)]
    assert math.isfinite(float(_one_number(grads))) is finite


def test_infinities_in_two_gradients_do_not_cancel():
    assert not math.isfinite(float(_one_number([torch.tensor([math.inf]), torch.tensor([-math.inf])])))
