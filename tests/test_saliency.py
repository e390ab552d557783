"""Masks and weighted gradients against a literal re-implementation of the formula."""

import numpy as np
import pytest
import torch

from genxai_core.errors import InputError
from genxai_core.saliency import mask, weight_gradient


def literal_mask(attribution: np.ndarray) -> np.ndarray:
    """M = (|a| − min|a|) / (max|a| − min|a|), one sample after another, one pixel after another."""
    masks = np.zeros_like(attribution)
    for n, sample in enumerate(attribution):
        values = [abs(v) for v in sample.flat]
        low, high = min(values), max(values)
        for at in np.ndindex(sample.shape):
            masks[(n, *at)] = 0.0 if high == low else (abs(sample[at]) - low) / (high - low)
    return masks


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(5, 3, 4, 6), (5, 1, 4, 4), (5, 4, 6)])
def test_mask_and_weighting_equal_the_formula(shape):
    attribution, gradient = draw(*shape), draw(5, 3, *shape[-2:]) * 1e-4
    attribution[1] *= 1e6
    attribution[2] = -0.7
    literal = literal_mask(attribution.numpy())
    if len(shape) == 3:
        literal = literal[:, None]
    M = mask(attribution)
    np.testing.assert_allclose(M.numpy(), literal, atol=1e-15)
    expected = gradient.numpy() + 0.2 * gradient.numpy() * literal
    np.testing.assert_allclose(weight_gradient(gradient, M, 0.2).numpy(), expected, atol=1e-18)


def test_mask_spans_zero_to_one_in_every_sample_over_all_channels():
    M = mask(draw(4, 3, 5, 5))
    assert M.amin((1, 2, 3)).tolist() == [0] * 4
    assert M.amax((1, 2, 3)).tolist() == [1] * 4
    assert (M.amax((2, 3)) < 1).any()  # not per channel


def test_mask_depends_on_no_neighbour():
    a = draw(6, 3, 5, 5) * torch.logspace(-6, 6, 6, dtype=torch.float64).view(6, 1, 1, 1)
    assert torch.equal(mask(a), torch.cat([mask(one) for one in a.split(1)]))


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-45])
def test_constant_map_becomes_exactly_zero(value):
    M = mask(torch.full((2, 3, 4, 4), value))
    assert torch.equal(M, torch.zeros(2, 3, 4, 4))


def test_mask_does_not_see_a_positive_factor_per_sample():
    a = draw(4, 3, 5, 5).float()
    factor = torch.tensor([1e-30, 3e-7, 1.0, 1e20]).view(4, 1, 1, 1)
    torch.testing.assert_close(mask(a * factor), mask(a), rtol=0, atol=1e-6)


def test_mask_does_not_hide_what_is_not_finite():
    a = draw(3, 1, 4, 4)
    a[0, 0, 1, 1], a[1, 0, 2, 2] = float("nan"), float("inf")
    finite = torch.isfinite(mask(a)).flatten(1).all(1)
    assert finite.tolist() == [False, False, True]


def test_mask_of_bfloat16_is_float32_and_the_gradient_keeps_its_type():
    a = draw(2, 1, 4, 4).bfloat16()
    assert mask(a).dtype == torch.float32
    assert weight_gradient(a, mask(a), 0.2).dtype == torch.bfloat16


def test_alpha_zero_gives_the_gradient_back_bit_for_bit():
    g = draw(3, 2, 4, 4).float()
    g[0, 0, 0] = torch.tensor([0.0, -0.0, 1e-45, -1e-45])
    same = weight_gradient(g, mask(draw(3, 4, 4)), 0.0)
    assert torch.equal(same.view(torch.int32), g.view(torch.int32))


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 1, 4, 4)])
def test_wrong_number_of_axes_is_refused(shape):
    with pytest.raises(InputError, match=r"\[N, C, H, W\]"):
        mask(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (2, 2, 4, 4), (2, 3, 4, 1), (2, 4, 4)])
def test_mask_that_would_only_broadcast_is_refused(shape):
    with pytest.raises(InputError, match="does not fit"):
        weight_gradient(torch.zeros(2, 3, 4, 4), torch.zeros(shape), 0.2)
