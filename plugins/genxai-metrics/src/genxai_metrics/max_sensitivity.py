"""Max-sensitivity: how far a map moves when the image hardly does."""

from __future__ import annotations

import torch
from torch import Tensor

from genxai_core import Attribution, Discriminator, Explainer, Spec, draws

from .anew import Anew
from .explanations import Batch, with_errors


class MaxSensitivity(Anew):
    """Largest relative change of a map ``[N, H, W]`` or ``[N, C, H, W]`` under small noise. Lower is better, from 0.

    Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019. With the explainer Φ and noise ε
    that is uniform in (−r, r) at every pixel,

        max_sensitivity = max_ε ‖Φ(x + ε) − Φ(x)‖₂ / ‖Φ(x)‖₂,

    the maximum over ``samples`` draws, which are those of the seed and of the image; not divided where Φ(x) is 0.

    Known weaknesses: **a map that is always the same is perfect**; so is −Φ where Φ is: read it beside a metric of
    faithfulness. Where the model itself is rough, a right gradient is, too. The maximum over draws is a lower bound,
    which grows with their number. Noise of one size in all directions says nothing of attacks.

    Parameters
    ----------
    explainer
        The explainer that made the explanation, ``{use: explainer/saliency}``: it explains every noisy image. One that
        draws random numbers uses the same ones each time.
    radius
        r, as a share of the value range.
    samples
        Noisy versions of each image.

    Raises
    ------
    ValueError
        If the explainer makes no maps of images, the radius is not positive, or there are no samples.
    """

    needs = frozenset({"model", "explanation"})
    higher_is_better = with_errors(max_sensitivity=False)
    by = "metric/max-sensitivity"

    def __init__(self, explainer: Spec | Explainer, radius: float = 0.02, samples: int = 10) -> None:
        if not radius > 0 or samples < 1:
            raise ValueError(f"radius {radius} must be above 0, and samples {samples} at least 1")
        super().__init__(explainer)
        self.radius, self.samples = radius, samples

    def update(self, *, model: Discriminator, explanation: Attribution) -> None:  # type: ignore[override]
        """Take in more explanations of a model.

        Raises
        ------
        InputError
            If the explanation is empty, not finite, does not fit the model, or is not what the explainer makes of it.
        TargetError
            If the model has no such logit as was explained.
        """
        self._take(explanation, model)

    def _judge(self, batch: Batch) -> Tensor:
        assert batch.model is not None  # it is needed
        original = self._original(batch, batch.model)
        low, high = batch.model.value_range
        moved = []
        for chunk in batch.repeats(self.samples):
            noise = torch.stack([self._noise(batch, k) for k in chunk]).to(batch.images) * self.radius * (high - low)
            maps = self._maps(batch, batch.model, batch.images + noise)
            moved.append((maps - original).flatten(2).norm(dim=2))
        size: Tensor = original.flatten(1).norm(dim=1)
        return (torch.cat(moved).amax(0) / size.where(size > 0, 1))[:, None]

    def _noise(self, batch: Batch, k: int) -> Tensor:
        """Draw number k: ``[n, C, H, W]`` in (−1, 1)."""
        shape = batch.images.shape[1:]
        return 2 * draws.uniform(batch.runtime.seed, batch.addresses, shape, f"max-sensitivity-{k}") - 1
