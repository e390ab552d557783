"""The level at which a unit tells most of a concept: mutual information over joint entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from genxai_core import units

SHARES = tuple(torch.logspace(-3, -0.30103, 24, dtype=torch.float64).tolist())
"""Shares of a unit's values above the candidate levels, 0.001 to 0.5."""


def levels(found: units.Thresholds) -> dict[str, Tensor]:
    """Return the candidate levels ``[levels, U]`` of each layer; shares that too few values decide are left out."""
    least = min(found.cells(layer) for layer in found.layers)
    return found.levels([1 - share for share in SHARES if share * least >= 1])


class Counter:
    """Counts at all candidate levels at once: a level of a unit is counted like a unit.

    Parameters
    ----------
    candidates
        ``[levels, U]`` by layer.
    """

    def __init__(self, candidates: Mapping[str, Tensor]) -> None:
        self.candidates = dict(candidates)
        self.tally = units.Tally({layer: at.flatten() for layer, at in self.candidates.items()})

    def count(self, activations: Mapping[str, Tensor], masks: Tensor) -> None:
        """Count a batch."""
        repeated = {}
        for layer, at in self.candidates.items():
            activation = activations[layer]
            repeated[layer] = activation.repeat(1, len(at), *[1] * (activation.ndim - 2))
        self.tally.count(repeated, masks)

    def merge(self, other: Self) -> None:
        """Take in what another one has counted."""
        self.tally.merge(other.tally)

    def best(self) -> dict[str, Tensor]:
        """Return each unit's level ``[U]``: where the ratio is largest over levels and concepts that go together.

        Only levels at which unit and concept meet more often than by chance count; a unit without any keeps the
        highest level.
        """
        found = {}
        n = self.tally.pixels
        concept = self.tally.concept_area
        assert concept is not None
        for layer, at in self.candidates.items():
            both, area = self.tally.intersection[layer].double() / n, self.tally.area[layer].double() / n
            ratio = quality(both, area[:, None], concept.double() / n)
            ratio = torch.where(both > area[:, None] * concept.double() / n, ratio, -1)
            level = ratio.amax(1).reshape(len(at), -1).argmax(0)
            found[layer] = at[level, torch.arange(at.shape[1])]
        return found


def quality(both: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return I(A; S) / H(A, S) of two binary variables, in [0, 1]; 0 where the joint entropy is 0.

    Parameters
    ----------
    both
        P(A ∧ S).
    one, other
        P(A) and P(S), which broadcast with it.
    """
    one, other = one + torch.zeros_like(other), other + torch.zeros_like(one)
    joint = torch.stack([both, one - both, other - both, 1 - one - other + both]).clamp(0, 1)
    apart = torch.stack([one * other, one * (1 - other), (1 - one) * other, (1 - one) * (1 - other)])
    mutual = torch.special.xlogy(joint, joint / apart.clamp(min=1e-300)).sum(0)
    entropy = -torch.special.xlogy(joint, joint).sum(0)
    return torch.where(entropy > 0, mutual / entropy.clamp(min=1e-300), 0).clamp(0, 1)
