"""The least change of a point that takes a function of it above zero."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genxai_core.errors import InputError

OVER = 2e-4
"""How far past the boundary to aim, as a share of how far the start is from it: the boundary is of neither class."""

REACH = 0.25
"""The longest step, as a root mean square in units of ``width``: linearisations hold nearby only."""

FURTHER = 500.0
"""How much further past it where half of the steps have not reached it: 5 % of how far the start is from it."""

BACK = 0.4
"""What is left of a step that does not lessen the merit."""

HALVINGS = 12

Function = Callable[[Tensor], Tensor]


def least_change(
    start: Tensor,
    gap: Function,
    steps: int,
    *,
    bounds: tuple[float, float] | None = None,
    worth: Function | None = None,
    width: float = 1.0,
) -> Tensor:
    """Return z with ½|z − s|² − worth(z) least among those with gap(z) ≥ 0, near each start s ``[N, …]``.

    At each step the gap g and the worth w are replaced by their tangents at z, which makes it a projection: with the
    anchor a = s + ∇w(z), z ← a + max(0, −(g + ⟨∇g, a − z⟩)) ∇g / |∇g|², kept to the bounds. This is the iteration of
    Hasofer, Lind, Rackwitz and Fiessler for the nearest point of a surface (Rackwitz and Fiessler, "Structural
    reliability under combined random load sequences", Computers & Structures 9, 1978): exact in one step where g is
    linear and w is 0, and fixed where the gradient of the Lagrangian vanishes. A step that does not lessen the merit
    ½|z − s|² − w + c·max(0, −g), with c twice the largest multiplier so far, is taken back to a part of it. Where half
    of the steps have not reached the gap, the rest climb from z, whatever the way: z ← z + max(0, −g) ∇g / |∇g|².

    The best point seen above 0 is the answer, drawn back towards s as far as it stays there if there is no worth; where
    there was none, the last.

    A row depends on no other row. ``bounds`` keep every number within; ``width`` is the unit of the longest step.

    Raises
    ------
    InputError
        If no gradient of the gap or the worth reaches the point.
    """
    start = start.detach()
    rows = (len(start), *(1,) * (start.ndim - 1))
    reach = REACH * width * start[0].numel() ** 0.5
    nothing = torch.zeros(len(start), device=start.device)
    aim, least, penalty = nothing, nothing, nothing
    point, origin, move, best = start.clone(), start.clone(), torch.zeros_like(start), start.clone()
    from_cost, from_value, cheapest = nothing + torch.inf, nothing, nothing + torch.inf
    moving = torch.ones(len(start), dtype=torch.bool, device=start.device)
    for step in range(steps + 1):
        value, slope = _tangent(gap, point)
        if step == 0:
            aim, least = OVER * value.abs(), OVER / 2 * value.abs()
        gain, pull = (nothing, torch.zeros_like(point)) if worth is None else _tangent(worth, point)
        cost = 0.5 * (point - start).flatten(1).square().sum(1) - gain
        better = (value >= least) & (cost < cheapest)
        cheapest = torch.where(better, cost, cheapest)
        best = torch.where(better.view(rows), point, best)
        if step == steps or not bool(moving.any()):
            break
        late = cheapest.isinf() & (step > steps // 2)
        # the merit of where it came from, and of where it is: an exact penalty
        descends = cost + penalty * (aim - value).clamp(min=0) <= from_cost + penalty * (aim - from_value).clamp(min=0)
        descends = descends | late
        anchor = torch.where(late.view(rows), point, start + pull)
        wanted = torch.where(late, FURTHER * least, aim) - value
        short = (wanted - (slope * (anchor - point)).flatten(1).sum(1)).clamp(min=0)
        multiplier = short / slope.flatten(1).square().sum(1).clamp(min=1e-20)
        goal = anchor + multiplier.view(rows) * slope
        if bounds is not None:
            goal = goal.clamp(*bounds)
        length = (goal - point).flatten(1).norm(dim=1)
        further = (goal - point) * (reach / length.clamp(min=reach)).view(rows)
        origin = torch.where(descends.view(rows), point, origin)
        move = torch.where(descends.view(rows), further, BACK * move)
        from_cost, from_value = torch.where(descends, cost, from_cost), torch.where(descends, value, from_value)
        penalty = torch.where(descends, torch.maximum(penalty, 2 * multiplier), penalty)
        moving = moving & ((move.flatten(1).norm(dim=1) > 1e-5 * reach) | cheapest.isinf())
        point = torch.where(moving.view(rows), origin + move, point)
    if worth is None:
        best = _drawn_back(start, best, gap, least)
    return torch.where(cheapest.isfinite().view(rows), best, point)


def _tangent(function: Function, point: Tensor) -> tuple[Tensor, Tensor]:
    """Return a function's values ``[N]`` and their gradients, of the point's shape."""
    with torch.enable_grad():
        leaf = point.clone().requires_grad_()
        values = function(leaf)
        if not values.requires_grad:
            raise InputError(
                "no gradient reaches the images, because a model's forward detaches them or runs under no_grad; take "
                "that out, or use a maker that needs no gradient: ganmex, mdts, class-mean"
            )
        (slope,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach().float(), slope.detach()


def _drawn_back(start: Tensor, point: Tensor, gap: Function, least: Tensor) -> Tensor:
    """Return the nearest point to the start, on the way to a point above the least gap, that is found by halving."""
    rows = (len(start), *(1,) * (start.ndim - 1))
    low, high = torch.zeros_like(least), torch.ones_like(least)
    with torch.no_grad():
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            enough = gap(start + middle.view(rows) * (point - start)).float() >= least
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return torch.where((high < 1).view(rows), start + high.view(rows) * (point - start), point)
