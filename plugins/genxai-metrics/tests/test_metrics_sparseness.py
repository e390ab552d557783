"""Sparseness: the Gini index against the mean difference of all pairs, its ends, and maps of zeros."""

import pytest
import torch
from genxai_metrics.sparseness import gini

import genxai_core as gx


def measured(maps):
    return gx.create("metric/sparseness").measure(explanation=gx.Attribution(maps))["gini"]


def test_it_is_half_the_relative_mean_difference_of_all_pairs():
    values = gx.draws.normal(0, range(5), (40,)).double()
    sizes = values.abs()
    differences = (sizes[:, :, None] - sizes[:, None]).abs().mean((1, 2))
    torch.testing.assert_close(gini(values), differences / (2 * sizes.mean(1)))


def test_its_ends_and_zeros():
    spike = torch.zeros(2, 4, 4)
    spike[:, 1, 2] = -3.0
    assert measured(spike) == pytest.approx(1 - 1 / 16)
    assert measured(torch.full((2, 4, 4), -0.2)) == pytest.approx(0, abs=1e-12)
    assert measured(torch.zeros(2, 4, 4)) == 0
    assert measured(spike * 1e-30) == pytest.approx(1 - 1 / 16)


def test_neither_scale_nor_sign_counts_and_channels_are_summed_first():
    maps = gx.draws.normal(0, range(4), (3, 6, 6))
    found = measured(maps)
    assert measured(-7 * maps) == pytest.approx(found, rel=1e-6)
    assert measured(maps.double().sum(1)) == pytest.approx(found, rel=1e-6)
