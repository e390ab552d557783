"""The least change against closed forms, and against a search of the whole plane."""

from __future__ import annotations

import pytest
import torch
from genxai_ganmex.least import least_change

from genxai_core.errors import InputError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_of_a_linear_gap_it_is_the_projection():
    w, start = normal(3, 4, 4), normal(6, 3, 4, 4, seed=1)
    found = least_change(start, lambda z: (z * w).sum((1, 2, 3)) - 20.0, 20)
    for x, z in zip(start, found):
        lack = 20.0 - float((x * w).sum())
        expected = x + lack / float((w * w).sum()) * w if lack > 0 else x
        torch.testing.assert_close(z - x, expected - x, rtol=1e-3, atol=1e-4)
        assert float((z * w).sum()) >= 20.0  # beyond the boundary, which is of neither side


@pytest.mark.parametrize("outwards", [False, True])
def test_of_a_ball_it_is_radial(outwards):
    centre, start = normal(5), normal(8, 5, seed=1) * (0.3 if outwards else 3.0) + normal(5)
    sign = -1.0 if outwards else 1.0
    found = least_change(start, lambda z: sign * (1.0 - (z - centre).square().sum(1)), 40)
    for x, z in zip(start, found):
        away = x - centre
        inside = float(away.norm()) < 1
        expected = centre + away / away.norm() if inside == outwards else x
        torch.testing.assert_close(z, expected, rtol=0, atol=1e-2)  # OVER of a gap that is large from afar


def curved(z):
    """A valley's rim: neither linear nor convex."""
    return z[:, 1] - 1.5 - 0.4 * torch.sin(2.0 * z[:, 0])


def plane(function, low=-4.0, high=4.0, side=1601):
    axis = torch.linspace(low, high, side)
    points = torch.cartesian_prod(axis, axis)
    return points, function(points)


@pytest.mark.parametrize("start", [(0.3, 0.0), (-1.0, -0.5), (2.0, 0.2)])
def test_of_a_curved_gap_no_point_of_the_plane_is_nearer(start):
    x = torch.tensor([start])
    points, gaps = plane(curved)
    nearest = (points - x).norm(dim=1)[gaps >= 0].min()
    found = least_change(x, curved, 60)
    assert float(curved(found)) >= 0
    assert float((found - x).norm()) <= float(nearest) + 0.01


def test_with_a_worth_no_point_of_the_plane_is_better():
    def worth(z):
        return -0.4 * (z - torch.tensor([1.0, -1.0])).square().sum(1)

    x = torch.tensor([[-0.5, 0.0]])
    points, gaps = plane(curved)
    costs = 0.5 * (points - x).square().sum(1) - worth(points)
    best = points[gaps >= 0][costs[gaps >= 0].argmin()]
    found = least_change(x, curved, 80, worth=worth)
    torch.testing.assert_close(found[0], best, rtol=0, atol=0.02)
    without = least_change(x, curved, 80)
    assert float((found - without).norm()) > 0.1  # the worth pulled


def test_bounds_hold_and_the_rest_makes_up_for_them():
    start, w = torch.zeros(1, 2), torch.tensor([3.0, 1.0])
    found = least_change(start, lambda z: z @ w - 2.0, 200, bounds=(-0.5, 0.5))
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5]]), rtol=0, atol=0.01)  # the only point there


def test_rows_do_not_touch_each_other():
    start = normal(7, 2, seed=3)
    together = least_change(start, curved, 40)
    apart = torch.cat([least_change(row[None], curved, 40) for row in start])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6)


def test_what_is_beyond_already_stays():
    start = torch.tensor([[0.0, 3.0]])
    assert torch.equal(least_change(start, curved, 20), start)


def test_what_cannot_be_reached_is_returned_as_it_came_out():
    found = least_change(torch.zeros(1, 2), lambda z: -1.0 - z.square().sum(1), 20)
    assert bool(found.isfinite().all())
    assert float(-1.0 - found.square().sum()) < 0


def test_a_function_without_gradient_is_refused():
    with pytest.raises(InputError, match="no gradient reaches the images"):
        least_change(torch.zeros(1, 2), lambda z: z.detach().sum(1), 5)
