"""What candidates do to samples that did not score the units, and which of them is best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genxai_core import Discriminator, Runtime, UnitEdits, draws
from genxai_core.errors import InputError

from .defects import forwards
from .judging import probabilities
from .proof_intervals import Figure, of_difference, of_mean, of_share

LEAST = 2
"""Broken samples, and fine ones, on either side of a split: an interval takes two."""

CLOSE = 0.1
"""Candidates of one artifact rate whose mean P(artifact) of broken samples differs by no more repair as well."""

SAME = 1e-6
"""Collaterals, as shares of the value range, that differ by less are rounding, and equal."""


class Measured(NamedTuple):
    """What one candidate does to held-out samples, as `Correction` has it; figures have 95 % intervals."""

    rate: Figure
    fall: Figure
    collateral: Figure
    probability: float


class HeldOut:
    """Samples on which candidates are measured: made once without edits, and again with each candidate's.

    Parameters
    ----------
    model
        A generator with latents.
    classifier
        In eval mode; whoever calls guards it.
    target
        Its artifact class.
    latents
        ``[N, …]``.
    broken
        Bool ``[N]``, at least one. The others are fine, at least two.
    runtime
        Its batch size bounds memory.
    above
        What the classifier calls broken: P(artifact) above this.
    condition
        Edits act only where the unedited sample's P(artifact) is above this; None: everywhere.
    """

    def __init__(
        self,
        model: Any,
        classifier: Discriminator,
        target: int,
        latents: Tensor,
        broken: Tensor,
        runtime: Runtime,
        *,
        above: float = 0.5,
        condition: float | None = None,
    ) -> None:
        self.model, self.classifier, self.target, self.latents = model, classifier, target, latents
        self.runtime, self.above, self.fine = runtime, above, ~broken
        self.value_range: tuple[float, float] = tuple(model.value_range)
        self.images = self.made(None, slice(None))
        self.before = self.judged(self.images)
        self.called = self.before > above
        self.rate = of_share(self.called)
        every = torch.ones(len(latents), dtype=torch.bool)
        self.acts = (every if condition is None else self.before > condition).nonzero()[:, 0]

    def made(self, edits: UnitEdits | None, rows: Tensor | slice) -> Tensor:
        """Return the images of some rows, with edits that act whatever their condition, on the CPU."""
        parts = [images.detach().float().cpu() for _, images, _ in self._runs(edits, rows)]
        return torch.cat(parts) if parts else self.images[:0]

    def _runs(self, edits: UnitEdits | None, rows: Tensor | slice) -> Any:
        return forwards(self.model, self.latents[rows], (), self.runtime, edits)

    def judged(self, images: Tensor) -> Tensor:
        """Return P(artifact) ``[n]``."""
        batch = self.runtime.batch_size
        return probabilities(self.classifier, images, self.value_range, self.target, batch)

    def corrected(self, edits: UnitEdits, rows: Tensor | None = None) -> Tensor:
        """Return images ``[n, C, H, W]`` of some rows, of all by default, edited where the edits act."""
        rows = torch.arange(len(self.latents)) if rows is None else rows
        images = self.images[rows].clone()
        acts = torch.isin(rows, self.acts)
        if bool(acts.any()):
            images[acts] = self.made(edits, rows[acts])
        return images

    def measure(self, edits: UnitEdits, candidates: int = 1) -> Measured:
        """Make the samples with edits, and say how many are called broken, and how much the fine ones change.

        The interval of the fall is widened so that those of that many candidates all hold in 95 % of cases.
        """
        images = self.corrected(edits)
        after = self.before.clone()
        if len(self.acts):
            after[self.acts] = self.judged(images[self.acts])
        called = after > self.above
        low, high = self.value_range
        changes = (images - self.images)[self.fine].abs().double().flatten(1).mean(1) / (high - low)
        left = float(after[~self.fine].mean())
        return Measured(of_share(called), of_difference(self.called, called, candidates), of_mean(changes), left)


def split(broken: Tensor, holdout: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows that score units, and those that are held out, both in order.

    A share of the broken samples is held out, and the same share of the others, drawn by (seed, row).

    Parameters
    ----------
    broken
        Bool ``[N]``.
    holdout
        The share, between 0 and 1.
    seed
        Of the draw.

    Raises
    ------
    InputError
        If there are too few samples: at least two broken ones and two others must be on either side.
    """
    drawn = draws.uniform(seed, range(len(broken)), (), "held-out samples")
    sides: list[list[int]] = [[], []]
    for kind in (True, False):
        rows = (broken == kind).nonzero()[:, 0]
        out = round(holdout * len(rows))
        if min(out, len(rows) - out) < LEAST:
            what = "broken" if kind else "fine"
            raise InputError(
                f"{len(rows)} of {len(broken)} samples are {what}, too few to score units and to hold out {holdout:g} "
                f"of them, {LEAST} on either side at least; give more samples, or others"
            )
        order = rows[drawn[rows].argsort(stable=True)].tolist()
        sides[0] += order[out:]
        sides[1] += order[:out]
    return torch.tensor(sorted(sides[0])), torch.tensor(sorted(sides[1]))


def best(
    found: Sequence[Measured], numbers: Sequence[int], strengths: Sequence[float], bound: float, unedited: float
) -> int | None:
    """Return the candidate with the lowest artifact rate of those within the bound; None if it is not below unedited.

    Rates are counts, and many are equal. Of these only the candidates are kept whose mean P(artifact) is within `CLOSE`
    of the lowest: one that leaves images just short of being called broken has not repaired them. Of those left, the
    one with the least collateral; then the fewest units; then the lowest λ; then the first.

    Parameters
    ----------
    found
        What each does.
    numbers, strengths
        How many units each edits, and its λ.
    bound
        The largest mean collateral.
    unedited
        The rate without edits.
    """
    able = [i for i, each in enumerate(found) if each.collateral[0] <= bound and each.rate[0] < unedited]
    lowest = min((found[i].rate[0] for i in able), default=0.0)
    able = [i for i in able if found[i].rate[0] == lowest]
    limit = min((found[i].probability for i in able), default=0.0) + CLOSE
    able = [i for i in able if found[i].probability <= limit]

    def order(i: int) -> tuple[int, int, float, int]:
        return round(found[i].collateral[0] / SAME), numbers[i], strengths[i], i

    return min(able, key=order, default=None)
