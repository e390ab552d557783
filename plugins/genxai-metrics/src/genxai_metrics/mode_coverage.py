"""Which classes a generator makes, how often, and how varied each of them is, as a classifier sees it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from genxai_core import Discriminator, Spec
from genxai_core.errors import InputError, MissingCapability

from .features import FeatureMetric, distances


class ModeCoverage(FeatureMetric):
    """Classes of the real images that are generated, the divergence of their shares, and the variety within them.

    Every image counts for the class of its largest logit; p(c) is the share of class c among the real images, q(c)
    among the generated, over the classes C that the real images have.

    - ``modes`` = (number of c in C with at least one generated image) / |C|, in [0, 1], higher is better. One image is
      enough: it rises with the number of generated images;
    - ``class_divergence`` = Σ_c q(c) log(q(c) / p̃(c)), in nats, from 0, lower is better: the Kullback–Leibler
      divergence of the generated histogram from the real one. p̃ is p with half an image added to every class that
      either set has, so that one that no real image has costs much and not infinitely much;
    - ``diversity`` = the mean over the classes in C with two images of either set of
      (mean distance of two generated images of c) / (that of two real ones), Euclidean in the extractor's features;
      from 0, about 1 where the distributions are equal, 0 where each class is one image repeated. Neither direction is
      better far from 1; below 1 is the common failure.

    A classifier that was trained on the real images sees a class in anything, noise included: read it beside KID or
    ``metric/precision-recall``. There are no standard errors: compare the figures of real against real.

    Parameters
    ----------
    extractor
        A classifier with ``features(images)``, such as what ``trainer/classifier`` trains, or the Spec of one.

    Raises
    ------
    MissingCapability
        If the extractor has no features, or is no discriminator of several classes.

    References
    ----------
    Modes counted by a classifier, and the divergence of their histogram: A. Srivastava et al., "VEEGAN", NeurIPS 2017.
    Variety of pairs within a class: A. Odena, C. Olah, J. Shlens, "Conditional Image Synthesis with Auxiliary
    Classifier GANs", ICML 2017, there by structural similarity, here by distance in features.
    """

    reads = "classes and features"
    higher_is_better = {"modes": True, "class_divergence": False, "diversity": None}

    def __init__(self, extractor: Spec | nn.Module) -> None:
        super().__init__(extractor, by="metric/mode-coverage")
        if not isinstance(self.extractor, Discriminator):
            raise MissingCapability(
                f"{self.by} needs classes, and a {type(self.extractor).__name__} is no discriminator: "
                f"use a classifier, such as what trainer/classifier trains"
            )

    def _read(self, images: Tensor) -> Any:
        logits, features = self.extractor(images), self.extractor.features(images)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
            raise MissingCapability(
                f"{self.by} needs a classifier of several classes, and {type(self.extractor).__name__} has one logit; "
                f"use what trainer/classifier trains"
            )
        if not isinstance(features, Tensor) or features.ndim != 2:
            return features  # refused by its shape
        return torch.cat([logits.argmax(1, keepdim=True).to(features.dtype), features], 1)

    def compute(self) -> dict[str, float]:
        """Return ``modes``, ``class_divergence`` and ``diversity``.

        Raises
        ------
        InputError
            If there are fewer than two images of either set, or no class has two of both.
        """
        gathered = self._gathered(least=2)
        real, generated = gathered["real"], gathered["generated"]
        labels = {role: rows[:, 0].long() for role, rows in gathered.items()}
        n = max(int(v.max()) for v in labels.values()) + 1
        p, q = (labels[role].bincount(minlength=n).double() for role in ("real", "generated"))
        seen = (p + q) > 0
        there = p > 0
        ratios = []
        for c in there.nonzero().flatten().tolist():
            within = [_spread(rows[rows[:, 0] == c, 1:]) for rows in (generated, real)]
            if None not in within and within[1]:
                ratios.append(within[0] / within[1])  # type: ignore[operator]
        if not ratios:
            raise InputError(f"{self.by}: no class has two different images in both sets; give more images")
        return {
            "modes": float((q[there] > 0).double().mean()),
            "class_divergence": divergence(q[seen], p[seen]),
            "diversity": sum(ratios) / len(ratios),
        }


def divergence(q: Tensor, p: Tensor) -> float:
    """Return the Kullback–Leibler divergence, in nats, of counts q from counts p with half an image in every class."""
    smoothed = (p + 0.5) / (p + 0.5).sum()
    shares = q / q.sum()
    return math.fsum(float(a * torch.log(a / b)) for a, b in zip(shares, smoothed) if a > 0)


def _spread(rows: Tensor) -> float | None:
    """Return the mean distance of two of the rows; None of fewer than two."""
    if len(rows) < 2:
        return None
    total = sum(float(distances(row[None], rows).sum()) for row in rows)
    return total / (len(rows) * (len(rows) - 1))
