"""Completeness: whether a map sums up to what it should explain."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from genxai_core import Attribution, Discriminator
from genxai_core.errors import InputError

from .baselines import baseline_of
from .explanations import Batch, ExplanationMetric, with_errors


class Completeness(ExplanationMetric):
    """How far the sum of a map is from the logit's distance to that of the baseline. Lower is better.

    Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017. With maps φ ``[N, H, W]`` or
    ``[N, C, H, W]``, summed over everything, s = Σφ and d = f(x) − f(b),

        completeness_error = |s − d|  in logits, from 0;    completeness_gap = |s − d| / (|s| + |d|)  in [0, 1],

    where the gap is 0 if both are 0. Where f = Σx and b = 0, φ = x has a gap of 0, a map of zeros and −x have 1.

    Known weaknesses: it says nothing of where the sum lies: one pixel that holds all of d is complete. Methods that
    promise no such sum (gradients, class activation maps) fail without being wrong. It needs the very baseline that
    the method used.

    Parameters
    ----------
    baseline
        ``explanation``: the one that the explanation says it was made with. Or ``zero``, ``low``, ``mid``, ``mean``,
        ``blur``, as in metric/insertion-deletion.
    """

    needs = frozenset({"model", "explanation"})
    higher_is_better = with_errors(completeness_error=False, completeness_gap=False)
    by = "metric/completeness"

    def __init__(self, baseline: Literal["explanation", "zero", "low", "mid", "mean", "blur"] = "explanation") -> None:
        super().__init__()
        self.baseline = baseline

    def update(self, *, model: Discriminator, explanation: Attribution) -> None:  # type: ignore[override]
        """Take in more explanations of a model.

        Raises
        ------
        InputError
            If the explanation is empty, not finite, does not fit the model, or has no baseline where it should say it.
        TargetError
            If the model has no such logit as was explained.
        """
        if self.baseline == "explanation" and isinstance(explanation, Attribution) and explanation.baseline is None:
            raise InputError(f"{self.by}: the explanation names no baseline; say which to take, such as baseline: zero")
        self._take(explanation, model)

    def _judge(self, batch: Batch) -> Tensor:
        if self.baseline == "explanation":
            assert batch.references is not None  # update checked
            reference = batch.references
        else:
            reference = baseline_of(batch.images, self.baseline, batch.model.value_range)  # type: ignore[union-attr]
        logits = torch.cat([batch.logit(images[None]) for images in (batch.images, reference)])
        total, distance = batch.maps.flatten(1).sum(1), logits[0] - logits[1]
        error, size = (total - distance).abs(), total.abs() + distance.abs()
        return torch.stack([error, torch.where(size > 0, error / size.where(size > 0, 1), 0.0)], 1)
