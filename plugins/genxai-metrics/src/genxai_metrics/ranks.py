"""Orders and selections of pixels in which ties are treated fairly."""

from __future__ import annotations

import torch
from torch import Tensor


def midranks(values: Tensor) -> Tensor:
    """Return the ranks ``[N, P]`` of values ``[N, P]`` within each row, from 1; tied values share their mean rank."""
    ordered = values.sort(1).values
    below = torch.searchsorted(ordered, values.contiguous(), right=False)
    upto = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (below + upto + 1).double() / 2


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Return the correlation ``[N]`` of the rows of two ``[N, P]``; 0 where one of them is constant."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    # scaled first: products of tiny maps would underflow
    a, b = (x / x.abs().amax(1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny) for x in (a, b))
    size = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(size > 0, (a * b).sum(1) / size.where(size > 0, 1), 0.0).clamp(-1, 1)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Return Spearman's rank correlation ``[N]`` of the rows of two ``[N, P]``; 0 where one of them is constant."""
    return pearson(midranks(a), midranks(b))


def descending(values: Tensor, ties: Tensor) -> Tensor:
    """Return the place ``[N, P]`` of each pixel when the largest comes first, from 0; ``ties`` decides among equals."""
    shuffled = ties.argsort(1)
    order = shuffled.gather(1, values.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def largest(values: Tensor, counts: Tensor) -> Tensor:
    """Return which pixels ``[N, P]`` are among the ``counts`` ``[N]`` largest of their row, in [0, 1].

    Those tied at the cut share what places are left: the selection is the mean over all ways of breaking the tie.
    """
    at = values.sort(1, descending=True).values.gather(1, (counts[:, None] - 1).clamp_min(0))
    above, tied = values > at, values == at
    left = counts[:, None] - above.sum(1, keepdim=True)
    return above.double() + tied * (left / tied.sum(1, keepdim=True)).clamp_min(0)
