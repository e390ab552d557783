"""Agreement: whether another method tells the same of an image."""

from __future__ import annotations

import torch
from torch import Tensor

from genxai_core import Attribution, Discriminator, Explainer, Spec

from .anew import Anew
from .explanations import Batch, with_errors
from .ranks import largest, spearman


class Agreement(Anew):
    """How much the maps of an explanation agree with those of another explainer. Higher is more agreement.

    Krishna et al., "The Disagreement Problem in Explainable Machine Learning", TMLR 2024. Of the two maps ``[N, H, W]``
    of an image (``[N, C, H, W]`` is summed over channels):

    - ``rank_correlation``: Spearman's, in [−1, 1]; tied pixels share their mean rank; 0 where a map is constant.
    - ``top_intersection``: the share of the k largest pixels of one that are among the k largest of the other, in
      [0, 1]; a random map reaches k / P. Pixels tied at the cut share the places that are left.

    A map agrees with itself by 1 in both; −φ has a rank correlation of −1 with φ.

    Known weaknesses: **methods may agree and be wrong**, above all where both are edge filters or of one family.
    Methods that answer different questions (a gradient, a contribution) disagree and are right. Smooth maps agree more
    easily: neighbouring pixels are not independent.

    Parameters
    ----------
    explainer
        The other explainer, ``{use: explainer/occlusion}``: it explains the same images and targets.
    top
        k as a share of the pixels, at least one pixel.
    absolute
        Whether to compare magnitudes, for methods whose sign means nothing.

    Raises
    ------
    ValueError
        If the explainer makes no maps of images, or ``top`` is not in (0, 1].
    """

    needs = frozenset({"model", "explanation"})
    higher_is_better = with_errors(rank_correlation=True, top_intersection=True)
    by = "metric/agreement"

    def __init__(self, explainer: Spec | Explainer, top: float = 0.1, absolute: bool = False) -> None:
        if not 0 < top <= 1:
            raise ValueError(f"top {top} must be a share of the pixels, above 0 and at most 1")
        super().__init__(explainer)
        self.top, self.absolute = top, absolute

    def update(self, *, model: Discriminator, explanation: Attribution) -> None:  # type: ignore[override]
        """Take in more explanations of a model.

        Raises
        ------
        InputError
            If the explanation is empty, not finite, or does not fit the model.
        TargetError
            If the model has no such logit as was explained.
        """
        self._take(explanation, model)

    def _judge(self, batch: Batch) -> Tensor:
        assert batch.model is not None  # it is needed
        other = self._maps(batch, batch.model, batch.images[None])[0].sum(1)
        return agreement(batch.plane, other, self.top, self.absolute)


def agreement(maps: Tensor, others: Tensor, top: float = 0.1, absolute: bool = False) -> Tensor:
    """Return ``[N, 2]``, rank correlation and top intersection, of maps ``[N, H, W]``."""
    a, b = (x.double().flatten(1).abs() if absolute else x.double().flatten(1) for x in (maps, others))
    count = torch.full((len(a),), max(1, round(top * a.shape[1])), device=a.device)
    both = torch.minimum(largest(a, count), largest(b, count)).sum(1) / count
    return torch.stack([spearman(a, b), both], 1)
