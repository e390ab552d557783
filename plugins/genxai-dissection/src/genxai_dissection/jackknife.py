"""Intervals of an IoU: a delete-a-block jackknife."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genxai_core import units

BLOCKS = 20
"""Samples fall into so many blocks by their index, whatever the batches."""

LEVEL = 0.95

QUANTILES = (
    *(12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139),
    *(2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024),
)
"""Student's t at 0.975 for 1 to 19 degrees of freedom."""


def block_of(index: int, samples: int) -> int:
    """Return the block of a sample: floor(index · 20 / samples); of fewer than 20 samples each is a block."""
    return index * min(BLOCKS, samples) // samples


def iou(intersection: Tensor, area: Tensor, concept_area: Tensor) -> Tensor:
    """Return |A∧S| / |A∨S| ``[…, U, C]`` in float64, 0 where the union is empty."""
    union = area[..., :, None] + concept_area[..., None, :] - intersection
    return intersection.double() / union.clamp(min=1)


def intervals(blocks: Sequence[units.Tally]) -> dict[str, Tensor] | None:
    """Return 95 % intervals of the IoU of all blocks together: layer -> ``[U, C, 2]``, within [0, 1].

    With θ₍ⱼ₎ the IoU without block j of B, and θ̄ their mean, the variance is (B − 1)/B · Σⱼ (θ₍ⱼ₎ − θ̄)², and the
    interval θ ± t · √variance, t Student's at 0.975 for B − 1 degrees of freedom (Efron & Tibshirani, "An Introduction
    to the Bootstrap", 1993, eq. 11.5).

    Parameters
    ----------
    blocks
        The counts of each block; those that counted nothing are left out.

    Returns
    -------
    dict or None
        None for fewer than two blocks.
    """
    blocks = [block for block in blocks if block.concept_area is not None]
    if len(blocks) < 2:
        return None
    concept = torch.stack([b.concept_area for b in blocks if b.concept_area is not None])
    found = {}
    for layer in blocks[0].thresholds:
        both = torch.stack([b.intersection[layer] for b in blocks])
        area = torch.stack([b.area[layer] for b in blocks])
        whole = iou(both.sum(0), area.sum(0), concept.sum(0))
        without = iou(both.sum(0) - both, area.sum(0) - area, concept.sum(0) - concept)
        spread = (without - without.mean(0)).square().sum(0) * (len(blocks) - 1) / len(blocks)
        half = QUANTILES[len(blocks) - 2] * spread.sqrt()
        found[layer] = torch.stack([whole - half, whole + half], -1).clamp(0, 1)
    return found
