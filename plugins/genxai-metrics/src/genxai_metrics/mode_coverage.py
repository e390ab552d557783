"""Which classes a generator makes, how often, and how varied each of them is, as a classifier sees it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from genxai_core import Discriminator, Spec
from genxai_core.errors import InputError, MissingCapability

from .bootstrap import Estimate, binomial_interval, left_out
from .features import FeatureMetric, distances

_SURE = 8
"""A class that so many generated images have would be missed by less than 1 draw in 30, at 97.5 % confidence."""


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
    ``metric/precision-recall``.

    ``…_low`` and ``…_high`` are the ends of 95 % intervals of each figure's expectation at these numbers of images, the
    real images' classes being given. For the divergence and the diversity they are bootstrap intervals (BCa) of the
    influences that leaving each image out finds, and ``…_se`` the jackknife's standard error. The divergence is biased
    upwards, by about (|C| − 1)(1/N + 1/M)/2, which is in its expectation; a class with only two images of a set adds to
    the diversity and not to its error. ``modes`` cannot be resampled: no resample makes a class that was not made.
    Classes with at least eight generated images count as surely made; of the others, the number made has the interval
    of Clopper and Pearson (Biometrika 1934), for classes of unequal chances wider than need be (Hoeffding 1956).

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
    higher_is_better = {
        "modes": True,
        "class_divergence": False,
        "diversity": None,
        "modes_low": None,
        "modes_high": None,
        "class_divergence_se": None,
        "class_divergence_low": None,
        "class_divergence_high": None,
        "diversity_se": None,
        "diversity_low": None,
        "diversity_high": None,
    }

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
        """Return ``modes``, ``class_divergence`` and ``diversity``, their intervals, and errors of the last two.

        Raises
        ------
        InputError
            If there are fewer than two images of either set, or no class has two of both.
        """
        gathered = self._gathered(least=2)
        labels = {role: rows[:, 0].long() for role, rows in gathered.items()}
        n = max(int(v.max()) for v in labels.values()) + 1
        p, q = (labels[role].bincount(minlength=n).double() for role in ("real", "generated"))
        seen, there = (p + q) > 0, p > 0
        varied = diversity(gathered["real"], gathered["generated"], there.nonzero().flatten().tolist())
        if varied is None:
            raise InputError(f"{self.by}: no class has two different images in both sets; give more images")
        low, high = modes_interval(q[there])
        apart = divergence_estimate(q[seen], p[seen])
        figures = {
            "modes": float((q[there] > 0).double().mean()),
            "class_divergence": apart.value,
            "diversity": varied.value,
            "modes_low": low,
            "modes_high": high,
        }
        return {**figures, **apart.named("class_divergence", low=0.0), **varied.named("diversity", low=0.0)}


def modes_interval(q: Tensor) -> tuple[float, float]:
    """Return the 95 % interval of the expected share of classes that are generated, given how often each was."""
    doubtful = q[q < _SURE]
    low, high = binomial_interval(int((doubtful > 0).sum()), len(doubtful))
    sure = len(q) - len(doubtful)
    return (sure + low * len(doubtful)) / len(q), (sure + high * len(doubtful)) / len(q)


def divergence(q: Tensor, p: Tensor) -> float:
    """Return the Kullback–Leibler divergence, in nats, of counts q from counts p with half an image in every class."""
    smoothed = (p + 0.5) / (p + 0.5).sum()
    shares = q / q.sum()
    return math.fsum(float(a * torch.log(a / b)) for a, b in zip(shares, smoothed) if a > 0)


def divergence_estimate(q: Tensor, p: Tensor) -> Estimate:
    """Return the divergence with the influences of the images, of which those of a class have the same."""

    def without(counts: Tensor, figure: Callable[[Tensor], float]) -> Tensor:
        classes = counts.nonzero().flatten().tolist()
        one = torch.eye(len(counts), dtype=counts.dtype)
        each = torch.tensor([figure(counts - one[c]) for c in classes], dtype=torch.float64)
        return left_out(each.repeat_interleave(counts[classes].long()))

    generated, real = without(q, lambda less: divergence(less, p)), without(p, lambda less: divergence(q, less))
    return Estimate(divergence(q, p), (generated, real))


def diversity(real: Tensor, generated: Tensor, classes: list[int]) -> Estimate | None:
    """Return the mean ratio of distances within the classes; None where no class has two different images of both.

    Parameters
    ----------
    real, generated
        Class and features ``[N, 1 + F]``.
    classes
        Those of the real images.
    """
    influences = [torch.zeros(len(rows), dtype=torch.float64) for rows in (generated, real)]
    ratios: list[float] = []
    for c in classes:
        within = [(rows[:, 0] == c).nonzero().flatten() for rows in (generated, real)]
        if min(map(len, within)) < 2:
            continue
        spreads = [_spread(rows[at, 1:]) for rows, at in zip((generated, real), within, strict=True)]
        (g, r), (moved_g, moved_r) = zip(*spreads, strict=True)
        if not r:
            continue
        ratios.append(g / r)
        for into, at, moved in zip(influences, within, (moved_g / r, -moved_r * g / r**2), strict=True):
            into[at] = moved * (len(into) / len(at))  # on the class's mean; of the whole set it is so many times less
    if not ratios:
        return None
    return Estimate(sum(ratios) / len(ratios), (influences[0] / len(ratios), influences[1] / len(ratios)))


def _spread(rows: Tensor) -> tuple[float, Tensor]:
    """Return the mean distance of two of n > 1 rows, and the influence of each ``[n]``; 0 where leaving out is not."""
    n = len(rows)
    sums = torch.cat([distances(row[None], rows).sum(1) for row in rows])
    total = sums.sum()
    moved = left_out((total - 2 * sums) / ((n - 1) * (n - 2))) if n > 2 else torch.zeros_like(sums)
    return float(total) / (n * (n - 1)), moved
