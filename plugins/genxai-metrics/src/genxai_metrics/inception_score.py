"""The inception score, over all samples, with a standard error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genxai_core import Dataset, Discriminator, Samples, Spec
from genxai_core.errors import MissingCapability

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
    sum of one image.

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
    higher_is_better = {"inception_score": True, "inception_score_se": None}

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
        """Return ``inception_score`` and ``inception_score_se``.

        Raises
        ------
        InputError
            If there are fewer than two images.
        """
        value, error = inception_score(self._gathered(least=2)["generated"])
        return {"inception_score": value, "inception_score_se": error}


def inception_score(logits: Tensor) -> tuple[float, float]:
    """Return the inception score of logits ``[n, K]``, and its standard error."""
    logs = logits.log_softmax(1)
    marginal = logs.logsumexp(0) - torch.tensor(float(len(logs)), dtype=logs.dtype).log()  # log p(k); never of a zero
    divergences = (logs.exp() * (logs - marginal)).sum(1)
    value = divergences.mean().exp()
    return float(value), float(value * divergences.std() / len(logs) ** 0.5)
