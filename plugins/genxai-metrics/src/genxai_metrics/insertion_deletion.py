"""Insertion and deletion: how the logit follows when pixels come and go in the order of a map."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from genxai_core import Attribution, Discriminator, draws

from .baselines import Baseline, baseline_of
from .explanations import Batch, ExplanationMetric, pick, with_errors
from .ranks import descending


class InsertionDeletion(ExplanationMetric):
    """Areas under the curves of the logit while pixels are inserted, or deleted, most important first.

    Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018. With S_k the
    first ⌊kP/T⌉ of the P pixels in descending order of the map ``[N, H, W]`` (``[N, C, H, W]`` is summed over channels,
    and a pixel's channels come and go together), x the image and b its baseline,

        deletion = ∫ f(b on S_k, x elsewhere) dk/T,    insertion = ∫ f(x on S_k, b elsewhere) dk/T,

    by the trapezoidal rule over k = 0…T, and ``difference`` = insertion − deletion. Insertion: higher is better;
    deletion: lower is better; difference: higher is better, 0 on average for a random map. In logits, unbounded, since
    a softmax over one logit is constant; compare maps of the same model and images only. Where f = Σx and b is
    constant, φ = x is the best of all maps and −x the worst.

    Pixels with equal values are taken in a random order that depends on the seed and the image.

    Known weaknesses: partly deleted images are unlike any that the model has seen (Hooker et al., "A Benchmark for
    Interpretability Methods in Deep Neural Networks", NeurIPS 2019), so that scattered pixels, which fool the model,
    do well in deletion; the order alone counts, not the values; what counts as absent is up to the baseline.

    Parameters
    ----------
    baseline
        What deleted pixels become: ``zero`` (pixel value 0), ``low`` (the smallest value), ``mid`` (the centre of the
        range), ``mean`` (the image's mean colour), ``blur`` (the image blurred, σ an eighth of its longer side).
    steps
        T, at most the number of pixels.
    output
        ``logit``; or ``probability``, as the paper has it: the sigmoid of a single logit, the softmax of several. Then
        insertion and deletion lie in [0, 1], and saturate.

    Raises
    ------
    ValueError
        If ``steps`` is not positive.
    """

    needs = frozenset({"model", "explanation"})
    higher_is_better = with_errors(insertion=True, deletion=False, difference=True)
    by = "metric/insertion-deletion"

    def __init__(
        self, baseline: Baseline = "mean", steps: int = 32, output: Literal["logit", "probability"] = "logit"
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps {steps} must be at least 1")
        super().__init__()
        self.baseline, self.steps, self.output = baseline, steps, output

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
        inserted, deleted = self._curves(batch)
        areas = [torch.trapezoid(curve, dim=0) / (len(curve) - 1) for curve in (inserted, deleted)]
        return torch.stack([*areas, areas[0] - areas[1]], 1)

    def _curves(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return outputs ``[T + 1, n]`` while pixels are inserted, and while they are deleted."""
        images = batch.images
        baseline = baseline_of(images, self.baseline, batch.model.value_range)  # type: ignore[union-attr]
        values = batch.plane.flatten(1)
        ties = draws.uniform(batch.runtime.seed, batch.addresses, values.shape[1:], "ties").to(values.device)
        places = descending(values, ties).view(len(batch), 1, *images.shape[2:])
        steps = min(self.steps, values.shape[1])
        counts = [round(k * values.shape[1] / steps) for k in range(steps + 1)]
        inserted, deleted = [], []
        for chunk in batch.repeats(steps + 1):
            first = places < torch.tensor([counts[k] for k in chunk], device=places.device).view(-1, 1, 1, 1, 1)
            inserted.append(self._read(batch, torch.where(first, images, baseline)))
            deleted.append(self._read(batch, torch.where(first, baseline, images)))
        return torch.cat(inserted), torch.cat(deleted)

    def _read(self, batch: Batch, images: Tensor) -> Tensor:
        outputs = batch.outputs(images)
        if self.output == "probability":
            outputs = outputs.sigmoid() if outputs.shape[-1] == 1 else outputs.softmax(-1)
        return pick(outputs, batch.targets)
