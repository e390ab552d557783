"""Attributions of classifiers for which it is known what would have to change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from genxai_core import Attribution, Samples, draws
from genxai_core.errors import InputError

from .. import maps
from ..models.factor_classifier import FactorClassifier, Kind
from ..signed import agreement, correlation, excess, finite, inside
from ..task import Measure, Problem, Task
from .counterfactual import TARGET, planted


class CounterfactualAttribution(Task):
    """Show where, and with what weight, an image would have to change to cross the boundary of the target class.

    The model is a `FactorClassifier`; explained is the logit of the target, half the difference g of the two logits, on
    images of both classes in drawn order. With x' = x + δ*, the nearest image on the boundary, g(x) − g(x') = g(x).
    The gradient is parallel to δ* all the way from x' to x, so integrating it along this way (integrated gradients from
    x', the value of Aumann and Shapley) gives each pixel and channel exactly

        φ* = g(x) · δ*² / |δ*|²,

    0 where nothing has to change, and elsewhere of the sign of g: negative in an image of the other class, which it
    keeps out, and positive in one of the target class, which it keeps in. That, summed over channels, is the truth.

    With ``classifier="quadratic"`` a single mark, another from image to image, is away from where the target class has
    it, too far in half of the images; the others are as the target class has them. Seen from a blank image they count
    as much for the logit, but they are not what has to change. With ``"linear"`` all marks have to change.

    The measure that ranks, ``weights``, is the correlation of |map| with |φ*|: it asks for the place (what lies
    elsewhere lowers it) and for the weights there, of methods with and without signs alike, and gives a constant 0. The
    sign, the same all over an image, is judged apart by ``sign``, and both at once by ``correlation``. On the way
    from x' the gradient keeps its direction, so its square, summed over channels, has the right weights; what it lacks
    is the sign. ``localisation`` and ``iou`` ask for the place alone.

    Parameters
    ----------
    classifier
        ``quadratic`` or ``linear``.
    marks
        How many factors the classifier reads, 1 to 16.
    n
        Images to explain.
    size
        Height and width, a multiple of 4, at least 24.

    Raises
    ------
    ValueError
        If a parameter is out of bounds.
    """

    name = "counterfactual-attribution"
    says = "a classifier with a known least change to the target; the map of what each pixel holds for or against it"
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("weights", "mean correlation of |map| with the sizes of the true contributions: to 1", 1.0, 0.0),
        Measure("correlation", "mean correlation with the contributions to the logit difference, -1 to 1", 1.0, 0.0),
        Measure("sign", "share of images over whose region the map sums to the right sign", 1.0, 0.5, near=0.2),
        Measure("localisation", "share of energy where the least change is, beyond its share of area: to 1", 1.0, 0.0),
        Measure("iou", "overlap of as many strongest pixels as change with those that change, over their union", 1.0),
    )

    def __init__(self, classifier: Kind = "quadratic", marks: int = 4, n: int = 16, size: int = 32) -> None:
        if n < 1:
            raise ValueError(f"n {n} must be at least 1")
        FactorClassifier(classifier, marks, size)  # refuses what it cannot be
        self.classifier, self.marks, self.n, self.size = classifier, marks, n, size

    def problem(self, seed: int) -> Problem:
        """Draw a classifier and images, as many of its target class as not, in drawn order."""
        model = FactorClassifier(self.classifier, self.marks, self.size, seed).eval().requires_grad_(False)
        labels = torch.from_numpy(draws.permutation(seed, 0, self.n, f"bench/{self.name}.classes")) % 2
        inputs = replace(planted(model, labels, seed, one=True), labels=None)
        change = model.least_change(inputs.images)
        squares = change.square().sum(1)
        contribution = model.gap(inputs.images)[:, None, None] * squares / squares.sum((1, 2), keepdim=True)
        truth = {"change": change, "contribution": contribution, "region": _cells(model, change)}
        return Problem(model, inputs, TARGET, truth, seed=seed)

    def oracle(self, problem: Problem) -> Attribution:
        """Answer with the contributions."""
        return maps.attribution(problem.truth["contribution"], cast(Samples, problem.inputs), TARGET)

    def random(self, problem: Problem) -> Attribution:
        """Answer with noise."""
        return maps.noise(cast(Samples, problem.inputs), TARGET, problem.seed)

    def heuristic(self, problem: Problem) -> Attribution:
        """Answer with the edges."""
        return maps.edges(cast(Samples, problem.inputs), TARGET)

    def constant(self, problem: Problem) -> Attribution:
        """Answer with one everywhere."""
        return maps.constant(cast(Samples, problem.inputs), TARGET)

    def score(self, problem: Problem, answer: Any) -> dict[str, float]:
        """Judge maps, summed over channels."""
        if not isinstance(answer, Attribution):
            raise InputError(f"{self.name} judges an Attribution, not {type(answer).__name__}")
        found = finite(answer, cast(Samples, problem.inputs)).cpu()
        true, region = problem.truth["contribution"], problem.truth["region"]
        return {
            "weights": _mean_correlation(found.abs(), true.abs()),
            "correlation": _mean_correlation(found, true),
            "sign": agreement(inside(found, region), inside(true, region)),
            "localisation": float(excess(found, region).mean()),
            "iou": float(_iou(found.abs().flatten(1), region.flatten(1)).mean()),
        }


def _mean_correlation(found: Tensor, true: Tensor) -> float:
    """Return the correlation of maps ``[N, H, W]`` over pixels, averaged over maps."""
    return sum(correlation(a.flatten(), b.flatten()) for a, b in zip(found, true, strict=True)) / len(found)


def _cells(model: FactorClassifier, change: Tensor) -> Tensor:
    """Return the cells of the marks that change, bool ``[N, H, W]``."""
    supports = (model.patterns != 0).any(1)  # [M, H, W]
    moved = (change.flatten(1) @ model.patterns.flatten(1).T).abs()
    moved = moved > 1e-6 * moved.amax(1, keepdim=True)
    return (moved.double() @ supports.double().flatten(1)).view(len(change), *supports.shape[1:]) > 0


def _iou(mass: Tensor, region: Tensor) -> Tensor:
    """Return the IoU ``[N]`` of a region with as many pixels of the largest magnitude."""
    rows = []
    for values, within in zip(mass, region):
        area = int(within.sum())
        hit = float(within[values.argsort(descending=True, stable=True)[:area]].sum())
        rows.append(hit / (2 * area - hit))
    return torch.tensor(rows, dtype=torch.float64)
