"""How well a generator moves images that it never saw to every other class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CERTAIN = 1.959964
"""Standard normal quantile of a 95 % interval."""


@torch.no_grad()
def measured(
    translate: Callable[[Tensor, Tensor], Tensor],
    sees: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    width: float,
    batch: int,
) -> dict[str, float]:
    """Return how often and how far images move, to all other classes, to their own, and back.

    Parameters
    ----------
    translate
        Images and classes ``[N]`` to images.
    sees
        Images to class logits ``[N, K]``.
    images, labels
        ``[N, C, H, W]`` and their classes ``[N]``.
    width
        Width of the value range; distances are shares of it.
    batch
        Images at a time.

    Returns
    -------
    dict
        ``flips``: share of pairs (image, other class) that are seen as that class, with its 95 % interval ``flips_low``
        and ``flips_high`` (Wilson's, with as many trials as images, since pairs of one image are not independent).
        ``worst_pair``: the lowest share over pairs of classes. Mean absolute changes: ``change`` to other classes,
        ``identity`` to the image's own, ``cycle`` there and back.
    """
    rates = torch.zeros(len(images), dtype=torch.double)
    flipped, counts = torch.zeros(2, num_classes, num_classes, dtype=torch.double)
    sums = dict.fromkeys(("change", "identity", "cycle"), 0.0)
    at_once = max(1, batch // num_classes)
    for start in range(0, len(images), at_once):
        x, c = images[start : start + at_once], labels[start : start + at_once]
        n = len(x)
        targets = torch.arange(num_classes, device=x.device).repeat(n)
        repeated, own = x.repeat_interleave(num_classes, 0), c.repeat_interleave(num_classes)
        made = translate(repeated, targets)
        back = translate(made, own)
        hit = (sees(made).argmax(1) == targets).double()
        other = targets != own
        rates[start : start + n] = (hit * other).view(n, num_classes).sum(1).cpu() / (num_classes - 1)
        flipped.index_put_((own[other].cpu(), targets[other].cpu()), hit[other].cpu(), accumulate=True)
        counts.index_put_(
            (own[other].cpu(), targets[other].cpu()), torch.ones(int(other.sum())).double(), accumulate=True
        )
        moved, returned = ((y - repeated).abs().flatten(1).mean(1) / width for y in (made, back))
        sums["change"] += float(moved[other].sum()) / (num_classes - 1)
        sums["identity"] += float(moved[~other].sum())
        sums["cycle"] += float(returned[other].sum()) / (num_classes - 1)
    low, high = wilson(float(rates.mean()), len(images))
    pairs = (flipped / counts)[counts > 0]
    found = {"flips": float(rates.mean()), "flips_low": low, "flips_high": high, "worst_pair": float(pairs.min())}
    return found | {name: total / len(images) for name, total in sums.items()}


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of n trials (Wilson, JASA 1927)."""
    z = CERTAIN**2 / n
    centre, half = share + z / 2, (z * share * (1 - share) + z**2 / 4) ** 0.5
    return (centre - half) / (1 + z), (centre + half) / (1 + z)
