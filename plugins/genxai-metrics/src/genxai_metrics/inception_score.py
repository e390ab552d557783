"""The inception score, over all samples, with a standard error and an interval."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from genxai_core import Dataset, Discriminator, Samples, Spec
from genxai_core.errors import MissingCapability

from .bootstrap import Estimate
from .features import ImageMetric


class InceptionScore(ImageMetric):
    """How surely a classifier tells generated images, and how evenly they spread over its classes. Higher is better.

    Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016. With the classifier's probabilities p(k|x)
    and their mean p(k) over all generated images,

        IS = exp( mean_x Σ_k p(k|x) log(p(k|x) / p(k)) ),

    between 1 and the number of classes K. **It never sees a real image**: one sharp image per class, repeated, reaches
    K (Barratt and Sharma, "A Note on the Inception Score", 2018). All images are used at once, where the usual
    implementations average over ten parts in random order.

    ``inception_score_se`` is the infinitesimal jackknife's standard error, IS · sd(KL_x) / √n, where KL_x is the inner
    sum of one image. ``inception_score_low`` and ``inception_score_high`` are the ends of the 95 % bootstrap interval
    (BCa, of the KL_x, in logarithms) of the score's expectation at this number of images: with few it is biased
    downwards, by the noise in p(k).

    Parameters
    ----------
    extractor
        A discriminator over K > 1 classes, such as what ``trainer/classifier`` trains, or the Spec of one, such as
        ``discriminator/inception``.

    Raises
    ------
    MissingCapability
        If the extractor is no discriminator.
    """

    needs = frozenset({"generated"})
    reads = "logits"
    higher_is_better = {
        "inception_score": True,
        "inception_score_se": None,
        "inception_score_low": None,
        "inception_score_high": None,
    }

    def __init__(self, extractor: Spec | nn.Module) -> None:
        super().__init__(extractor, by="metric/inception-score")
        if not isinstance(self.extractor, Discriminator):
            raise MissingCapability(
                f"{self.by} needs class probabilities, and a {type(self.extractor).__name__} is no discriminator: "
                f"use a classifier, such as what trainer/classifier trains"
            )

    def update(self, *, generated: Samples | Dataset) -> None:  # type: ignore[override]
        """Take in more generated images.

        Raises
        ------
        InputError
            If shape or value range of the images is not what the classifier expects, or if logits are malformed or not
            finite.
        MissingCapability
            If the discriminator has a single logit.
        """
        self._take(generated=generated)

    def _read(self, images: Tensor) -> Any:
        logits = self.extractor(images)
        if isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[1] == 1:
            raise MissingCapability(
                f"{self.by} needs class probabilities, and {type(self.extractor).__name__} has one logit (real or "
                f"fake): use a classifier, such as what trainer/classifier trains"
            )
        return logits

    def compute(self) -> dict[str, float]:
        """Return ``inception_score``, ``inception_score_se``, ``inception_score_low`` and ``inception_score_high``.

        Raises
        ------
        InputError
            If there are fewer than two images.
        """
        logits = self._gathered(least=2)["generated"]
        log = log_inception_score(logits)
        low, high = log.interval(0.0, math.log(logits.shape[1]))
        value = math.exp(log.value)
        return {
            "inception_score": value,
            "inception_score_se": value * log.error,
            "inception_score_low": math.exp(low),
            "inception_score_high": math.exp(high),
        }


def log_inception_score(logits: Tensor) -> Estimate:
    """Return the logarithm of the inception score of logits ``[n, K]``: p(k) moves it in second order only."""
    logs = logits.log_softmax(1)
    marginal = logs.logsumexp(0) - math.log(len(logs))  # log p(k); never of a zero
    divergences = (logs.exp() * (logs - marginal)).sum(1)
    return Estimate(float(divergences.mean()), (divergences - divergences.mean(),))
