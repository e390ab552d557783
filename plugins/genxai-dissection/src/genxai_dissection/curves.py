"""What is left of a concept when more and more units are off, and which units stand in for each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

import torch
from torch import Tensor

from genxai_core import draws

from .jackknife import QUANTILES
from .paired import Paired, interval

MOST_DRAWS = len(QUANTILES) + 1


def random_orders(seed: int, count: int, units: int, n: int) -> Tensor:
    """Return ``[count, n]``: the first n units of random orders of all units of a layer."""
    rows = [draws.permutation(seed, i, units, stream="ablation order")[:n] for i in range(count)]
    return torch.stack([torch.from_numpy(row.copy()).long() for row in rows])


def ablation_curve(
    pair: Paired, orders: Tensor, before: Tensor, advance: Callable[..., None] = lambda n=1: None
) -> tuple[Tensor, Tensor]:
    """Return the change of each concept's share when the first 0, 1, … n units are off, and its 95 % interval.

    Of several orders, which are drawn at random, it is the mean; the half widths from samples and from orders, the
    latter by Student's t for D − 1 degrees of freedom, are added in squares.

    Parameters
    ----------
    pair
        The samples.
    orders
        ``[D, n]`` units.
    before
        ``[samples, C]``: the shares in unedited samples.
    advance
        Is called after each edit.

    Returns
    -------
    tuple
        ``[n + 1, C]`` and ``[n + 1, C, 2]``.
    """
    mean, ends = [torch.zeros(before.shape[1]).double()], [torch.zeros(before.shape[1], 2).double()]
    for n in range(1, orders.shape[1] + 1):
        changes = []
        for order in orders.tolist():
            changes.append(pair.shares(order[:n]) - before)
            advance()
        each = torch.stack(changes)
        middle, limits = interval(each.mean(0))
        if len(each) > 1:
            among = QUANTILES[len(each) - 2] * each.mean(1).std(0) / len(each) ** 0.5
            half = ((limits[:, 1] - middle).square() + among.square()).sqrt()
            limits = torch.stack([middle - half, middle + half], -1)
        mean.append(middle)
        ends.append(limits)
    return torch.stack(mean), torch.stack(ends)


def joint_ablation(
    pair: Paired, chosen: list[int], concept: int, before: Tensor, advance: Callable[..., None] = lambda n=1: None
) -> Mapping[str, Tensor]:
    """Ablate units one by one and two by two: what goes only when both are off, no ablation of one unit shows.

    With d(U) the mean drop of the concept's share when the units U are off, the excess of a pair is
    d({u, v}) − d({u}) − d({v}): the interaction of two factors. It is 0 where effects add up, above where u and v stand
    in for each other, below where either is enough to remove what both are needed for.

    Returns
    -------
    mapping
        ``pairs`` ``[P, 2]`` units; ``drops`` ``[P, 3]``: of the first, the second, both; ``excess`` ``[P]`` and
        ``excess_intervals`` ``[P, 2]``, 95 %, over differences within samples. The largest excess comes first.
    """

    def drop(units: list[int]) -> Tensor:
        found = before[:, concept] - pair.shares(units)[:, concept]
        advance()
        return found

    alone = {unit: drop([unit]) for unit in chosen}
    pairs, drops, excess, ends = [], [], [], []
    for u, v in combinations(chosen, 2):
        both = drop([u, v])
        middle, limits = interval(both - alone[u] - alone[v])
        pairs.append([u, v])
        drops.append(torch.stack([alone[u].mean(), alone[v].mean(), both.mean()]))
        excess.append(middle)
        ends.append(limits)
    order = torch.stack(excess).argsort(descending=True, stable=True)
    return {
        "pairs": torch.tensor(pairs)[order],
        "drops": torch.stack(drops)[order],
        "excess": torch.stack(excess)[order],
        "excess_intervals": torch.stack(ends)[order],
    }
