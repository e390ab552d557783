"""Sparseness: on how few pixels a map concentrates."""

from __future__ import annotations

import torch
from torch import Tensor

from genxai_core import Attribution

from .explanations import Batch, ExplanationMetric, with_errors


class Sparseness(ExplanationMetric):
    """Gini index of a map's magnitudes. Higher is sparser, and so quicker to read.

    Chalasani et al., "Concise Explanations of Neural Networks using Adversarial Training", ICML 2020; Hurley, Rickard,
    "Comparing Measures of Sparsity", 2009. With the P magnitudes |φ| of a map ``[N, H, W]`` (``[N, C, H, W]`` is summed
    over channels first) in ascending order,

        gini = 1 − 2 Σ_k |φ|_(k) / ‖φ‖₁ · (P − k + ½) / P,

    from 0 (all alike; a map of zeros, too) to 1 − 1/P (one pixel). The sign of a map does not matter.

    Known weaknesses: it never sees the model. One pixel, anywhere, is as sparse as can be. A model that truly looks at
    the whole image has no sparse right explanation: read it beside a metric of faithfulness. Smooth maps (class
    activation maps) score lower than ragged ones of the same resolution.
    """

    needs = frozenset({"explanation"})
    higher_is_better = with_errors(gini=True)
    by = "metric/sparseness"

    def update(self, *, explanation: Attribution) -> None:  # type: ignore[override]
        """Take in more explanations.

        Raises
        ------
        InputError
            If the explanation is empty or not finite.
        """
        self._take(explanation)

    def _judge(self, batch: Batch) -> Tensor:
        return gini(batch.plane.flatten(1))[:, None]


def gini(values: Tensor) -> Tensor:
    """Return the Gini index ``[N]`` of the magnitudes of each row of ``[N, P]``; 0 for a row of zeros."""
    sizes = values.abs().sort(1).values
    count = sizes.shape[1]
    weights = (count - torch.arange(1, count + 1, device=sizes.device) + 0.5) / count
    total = sizes.sum(1)
    shares = sizes / total.where(total > 0, 1)[:, None]
    return torch.where(total > 0, 1 - 2 * (shares * weights).sum(1), 0.0).clamp_min(0)
