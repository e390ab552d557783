"""How far a judge of broken images is to be trusted: its figures on images that it never saw, with their interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

Z = 1.959964
"""The standard normal's quantile 0.975."""


def auc(broken: Tensor, fine: Tensor) -> float:
    """Return P(score of a broken image > score of a fine one) + ½ P(equal) over all pairs of ``[m]`` and ``[n]``."""
    above, equal = broken[:, None] > fine[None, :], broken[:, None] == fine[None, :]
    return float((above.double() + equal.double() / 2).mean())


def auc_interval(found: float, m: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of an AUC of m broken and n fine images.

    The θ with |θ − θ̂| ≤ z √V(θ), where, with c = (m + n)/2 − 1,

        V(θ) = θ (1 − θ) (1 + c (1 − θ)/(2 − θ) + c θ/(1 + θ)) / (m n),

    method 5 of Newcombe, "Confidence intervals for an effect size measure based on the Mann–Whitney statistic. Part 2",
    Statistics in Medicine 25, 2006. It has a width also at θ̂ = 1, where those of DeLong and of the bootstrap have none:
    with few labels that is the usual case.

    Raises
    ------
    ValueError
        If there are no images of one of the kinds.
    """
    if m < 1 or n < 1:
        raise ValueError(f"an AUC of {m} broken and {n} fine images has no interval; there must be some of each")
    return _lower(found, m, n), 1 - _lower(1 - found, m, n)


def _lower(found: float, m: int, n: int) -> float:
    """Return the smallest θ with θ̂ − θ ≤ z √V(θ), by bisection: at θ = 0 the left side is the larger one."""
    c = (m + n) / 2 - 1
    low, high = 0.0, found
    for _ in range(60):
        at = (low + high) / 2
        variance = at * (1 - at) * (1 + c * (1 - at) / (2 - at) + c * at / (1 + at)) / (m * n)
        if found - at > Z * math.sqrt(variance):
            low = at
        else:
            high = at
    return high


def figures(scores: Tensor, guessed: Tensor, labels: Tensor, classes: Sequence[str], artifact: int) -> dict[str, Any]:
    """Measure a judge on held-out images.

    Parameters
    ----------
    scores
        P(artifact) ``[H]``.
    guessed
        The class of each image by the judge ``[H]``.
    labels
        That by its label ``[H]``; of each class there is at least one.
    classes
        Their names.
    artifact
        Which one the artifact is.

    Returns
    -------
    dict
        ``held_out_accuracy``; ``held_out_balanced_accuracy``, the mean of the classes' accuracies; ``held_out_auc`` of
        P(artifact), of broken against other generated images (all classes but ``real``; against real ones where there
        is no other class), with ``…_low`` and ``…_high``; and ``reliability``, which says it in words.
    """
    right = guessed == labels
    recalls = [float(right[labels == k].double().mean()) for k in range(len(classes))]
    others = [k for k, name in enumerate(classes) if k != artifact and name != "real"]
    against = others or [k for k in range(len(classes)) if k != artifact]
    fine = sum((labels == k for k in against[1:]), labels == against[0])
    broken = scores[labels == artifact]
    found = auc(broken, scores[fine])
    m, n = len(broken), int(fine.sum())
    low, high = auc_interval(found, m, n)
    named = " or ".join(classes[k] for k in against)
    said = f"AUC {found:.2f} (95 % interval {low:.2f} to {high:.2f}) on {m} artifact and {n} {named} images held out"
    return {
        "held_out_accuracy": float(right.double().mean()),
        "held_out_balanced_accuracy": sum(recalls) / len(recalls),
        "held_out_auc": found,
        "held_out_auc_low": low,
        "held_out_auc_high": high,
        "reliability": said if low > 0.5 else f"not shown to be better than guessing: {said}; label more images",
    }
