"""The least change of a point that takes a function of it above zero."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genxai_core.errors import InputError

OVER = 1e-3
"""How far past the boundary to aim, as a share of how far the start is from it: the boundary is of neither class."""

REACH = 0.25
"""The longest step, as a root mean square in units of ``width``: linearisations hold nearby only."""

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
    linear and w is 0, and fixed where the gradient of the Lagrangian vanishes. In the second half of the steps it goes
    half the way, which ends cycles. The best point seen above 0 is the answer, drawn back towards s as far as it stays
    there if there is no worth; where there was none, the last.

    A row depends on no other row, and no gradient reaches parameters. ``bounds`` keep every number within; ``width``
    is the unit of the longest step.

    Raises
    ------
    InputError
        If no gradient of the gap or the worth reaches the point.
    """
    rows = (len(start), *(1,) * (start.ndim - 1))
    start = start.detach()
    point, best = start.clone(), start.clone()
    cheapest = torch.full((len(start),), torch.inf, device=start.device)
    moving = torch.ones(len(start), dtype=torch.bool, device=start.device)
    reach = REACH * width * start[0].numel() ** 0.5
    aim = torch.zeros(len(start), device=start.device)
    for step in range(steps + 1):
        value, slope = _tangent(gap, point)
        if step == 0:
            aim = OVER * value.abs()
        gain, pull = (torch.zeros_like(value), torch.zeros_like(point)) if worth is None else _tangent(worth, point)
        cost = 0.5 * (point - start).flatten(1).square().sum(1) - gain
        better = (value >= aim / 2) & (cost < cheapest)
        cheapest = torch.where(better, cost, cheapest)
        best = torch.where(better.view(rows), point, best)
        if step == steps or not bool(moving.any()):
            break
        anchor = start + pull
        short = (aim - value - (slope * (anchor - point)).flatten(1).sum(1)).clamp(min=0)
        steepness = slope.flatten(1).square().sum(1).clamp(min=1e-20)
        goal = anchor + (short / steepness).view(rows) * slope
        if bounds is not None:
            goal = goal.clamp(*bounds)
        move = (goal - point) * (1.0 if step < steps // 2 else 0.5)
        length = move.flatten(1).norm(dim=1)
        move = move * (reach / length.clamp(min=reach)).view(rows)
        moving = moving & (length > 1e-5 * reach)
        point = torch.where(moving.view(rows), point + move, point)
    reached = cheapest.isfinite()
    if worth is None:
        best = _drawn_back(start, best, gap, aim / 2)
    return torch.where(reached.view(rows), best, point)


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
