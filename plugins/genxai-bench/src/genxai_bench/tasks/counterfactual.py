"""Counterfactuals of classifiers for which the least change to the other class is known."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from genxai_core import Counterfactual, Samples, create, draws
from genxai_core.errors import InputError

from ..models.factor_classifier import OVER, FactorClassifier, Kind
from ..task import Measure, Problem, Task

CONTRAST = 0.45
"""Of the scenes, so that marks and changes of them stay within the value range."""

OTHER, TARGET = 0, 1


class LinearCounterfactual(Task):
    """Change images of one class so that a linear classifier takes them for the other: the least change is known.

    The model is a linear `FactorClassifier`, its images are scenes with marks of drawn strength in some cells. All the
    rest, the other cells and whatever in the marked cells is orthogonal to the marks, does not matter to the
    classifier, however strong its edges and colours. The least change to the boundary is δ* (see the classifier).

    What is judged is a `Counterfactual` for the target ``target`` (1). For a change δ of an image:

    - *valid*: the model itself takes x + δ for the target, and x + δ keeps to the value range (to 0.1 %),
    - *proximity*: |δ*| / |δ|, and 0 where it is not valid: 1 is perfect,
    - *off target*: 1 − |Πδ|² / |δ|², Π the projection on what the classifier reads: what share of the change it cannot
      see.

    The measure that ranks is their product, valid · proximity · (1 − off target), averaged over the images: to do
    nothing scores 0 (nothing is valid), and so, nearly, does handing out some image of the target class (far away, and
    off target).

    Images of both classes, with their labels, are in ``problem.decided["data"]``.

    Parameters
    ----------
    marks
        How many factors the classifier reads, 1 to 16.
    n
        Images to change.
    data
        Labelled images given beside.
    size
        Height and width, a multiple of 4, at least 24.

    Raises
    ------
    ValueError
        If a parameter is out of bounds.
    """

    name = "counterfactual-linear"
    says = "a classifier linear in planted marks; the least change of the image that makes it the target is known"
    kind: ClassVar[Kind] = "linear"
    returns = "counterfactual"
    heuristic_name = "nearest image of the target class"
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("quality", "valid x proximity x (1 - off-target), mean over images", 1.0, 0.0, slack=0.002, near=0.05),
        Measure("validity", "share that the model takes for the target, within the value range", 1.0),
        Measure("proximity", "length of the least change over that of the change; 0 where not valid", 1.0, slack=0.002),
        Measure(
            "off-target",
            "share of the squared change that the classifier cannot read; 1 where nothing changed",
            0.0,
            1.0,
            higher_is_better=False,
            near=0.05,
        ),
    )

    def __init__(self, marks: int = 4, n: int = 16, data: int = 64, size: int = 32) -> None:
        if n < 1 or data < 8:
            raise ValueError(f"n {n} must be at least 1 and data {data} at least 8")
        FactorClassifier(self.kind, marks, size)  # refuses what it cannot be
        self.marks, self.n, self.data, self.size = marks, n, data, size

    def problem(self, seed: int) -> Problem:
        """Draw a classifier, images of the other class to change, and labelled images of both."""
        model = FactorClassifier(self.kind, self.marks, self.size, seed).eval().requires_grad_(False)
        labels = torch.cat([torch.zeros(self.n), torch.arange(self.data) % 2]).long()
        samples = planted(model, labels, seed)
        return Problem(
            model,
            samples[: self.n],
            TARGET,
            {"change": model.least_change(samples.images[: self.n])},
            {"data": samples[self.n :]},
            seed,
        )

    def oracle(self, problem: Problem) -> Counterfactual:
        """Answer with the least change, a thousandth longer: the boundary itself is of neither class."""
        return _answer(problem, _images(problem).double() + (1 + OVER) * problem.truth["change"])

    def random(self, problem: Problem) -> Counterfactual:
        """Answer with a change of the least length in a random direction."""
        images = _images(problem)
        noise = draws.normal(problem.seed, range(len(images)), images.shape[1:], "random-change").double()
        length = problem.truth["change"].flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
        return _answer(problem, images + length[:, None, None, None] * noise)

    def heuristic(self, problem: Problem) -> Counterfactual:
        """Answer with the nearest of the given images of the target class."""
        images, others = _images(problem), _others(problem)
        return _answer(problem, others[torch.cdist(images.flatten(1), others.flatten(1)).argmin(1)])

    def constant(self, problem: Problem) -> Counterfactual:
        """Answer with the mean of the given images of the target class."""
        return _answer(problem, _others(problem).mean(0, keepdim=True).expand(len(_images(problem)), -1, -1, -1))

    def score(self, problem: Problem, answer: Any) -> dict[str, float]:
        """Judge the changed images; their logits are computed anew."""
        if not isinstance(answer, Counterfactual):
            raise InputError(f"{self.name} judges a Counterfactual, not {type(answer).__name__}")
        images = _images(problem)
        if answer.counterfactuals.shape != images.shape:
            raise InputError(f"the answer's images are {list(answer.counterfactuals.shape)}, not {list(images.shape)}")
        model = cast(FactorClassifier, problem.model)
        changed = answer.counterfactuals.detach().cpu()
        low, high = model.value_range
        slack = 1e-3 * (high - low)
        within = ((changed >= low - slack) & (changed <= high + slack)).flatten(1).all(1)
        with torch.no_grad():
            valid = (model(changed.float()).argmax(1) == TARGET) & within
        change = changed.double() - images.double()
        squares = change.flatten(1).square().sum(1)
        read = model.on_target(change).flatten(1).square().sum(1)
        least = problem.truth["change"].flatten(1).norm(dim=1)
        moved = squares > 0
        proximity = torch.where(valid, least / squares.sqrt(), 0.0).clamp(max=1)
        seen = torch.where(moved, read / squares, 0.0)
        return {
            "quality": float((proximity * seen).mean()),
            "validity": float(valid.double().mean()),
            "proximity": float(proximity.mean()),
            "off-target": float((1 - seen).mean()),
        }


class QuadraticCounterfactual(LinearCounterfactual):
    """Change images so that a quadratic classifier takes them for the target: the way is another for each image.

    As `LinearCounterfactual`, with a quadratic `FactorClassifier`: the target class is a ball in the space of the
    marks, and each image is outside in a direction of its own. What the classifier reads is the space of the marks.

    Parameters
    ----------
    marks, n, data, size
        As for `LinearCounterfactual`.
    """

    name = "counterfactual-quadratic"
    says = "a classifier whose target class is a ball of planted marks; the least change of each image into it is known"
    kind = "quadratic"


def planted(model: FactorClassifier, labels: Tensor, seed: int, one: bool = False) -> Samples:
    """Draw scenes whose marks put them into given classes, well away from the boundary.

    Linear: ⟨α, f⟩ is 0.6 to 1.2 with the class's sign, and factors orthogonal to that are normal, cut at ±1. Quadratic:
    the distance |f − c| is 0.1 to 0.6 for the target class and 1.2 to 1.8 for the other, in a random direction.

    Parameters
    ----------
    labels
        ``[N]``: 1 for the target class.
    one
        Whether a single mark, another for each image, makes the difference (quadratic only): the direction is an axis.
    """
    n, marks = len(labels), len(model.centre)
    rows = range(n)
    scenes = create("dataset/scenes", n=n, size=model.patterns.shape[-1], seed=seed)[:].images
    how_far = draws.uniform(seed, rows, (1,), "how-far").double()
    free = draws.normal(seed, rows, (marks,), "factors").double()
    is_target = labels[:, None] == TARGET
    if model.kind == "linear":
        free = (0.5 * free).clamp(-1, 1)
        along = torch.where(is_target, 1.0, -1.0) * (0.6 + 0.6 * how_far)
        factors = free + (along - free @ model.centre[:, None]) * model.centre
    else:
        if one:
            which = draws.integers(seed, rows, marks, "which")
            free = torch.nn.functional.one_hot(which, marks) * free.sum(1, keepdim=True).sign()
        distance = torch.where(is_target, 0.1 + 0.5 * how_far, 1.2 + 0.6 * how_far)
        factors = model.centre + distance * free / free.norm(dim=1, keepdim=True)
    images = model.with_factors(CONTRAST * scenes, factors)
    return Samples(images, labels=labels, value_range=model.value_range, class_names=model.class_names)


def _images(problem: Problem) -> Tensor:
    return cast(Samples, problem.inputs).images


def _others(problem: Problem) -> Tensor:
    data = cast(Samples, problem.decided["data"])
    return data.images[cast(Tensor, data.labels) == TARGET]


def _answer(problem: Problem, changed: Tensor) -> Counterfactual:
    images, model = _images(problem), cast(FactorClassifier, problem.model)
    changed = changed.float()
    with torch.no_grad():
        before, after = model(images), model(changed)
    return Counterfactual(
        images, changed, TARGET, OTHER, before, after, value_range=model.value_range, class_names=model.class_names
    )
