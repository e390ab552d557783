"""`explainer/ganmex-attribution`: why one class and not the other, from a counterfactual to the image."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from genxai_core import Attribution, Discriminator, Explainer, Runtime, Samples, Spec, parameters, registry, saving
from genxai_core.errors import GenxaiWarning, InputError, TargetError
from genxai_core.guard import guard

from .classes import best_other, seen
from .contrast import OneVsOne

BY = "explainer/ganmex-attribution"
INTEGRATED = Spec("explainer/integrated-gradients")
COUNTERFACTUAL = Spec("explainer/counterfactual")

FLOAT = 1e-5
"""Of Σ|a|: what the sum of a map in single precision may be off."""


@runtime_checkable
class MakesCounterfactuals(Protocol):
    """What makes baselines for given classes, such as `explainer/counterfactual`."""

    def make(self, model: Discriminator, images: Tensor, target: Tensor) -> Tensor:
        """Return images ``[N, C, H, W]`` of the classes ``[N]``."""
        ...

    def failures(self, model: Discriminator, images: Tensor, made: Tensor, target: Tensor) -> tuple[str, ...]:
        """Return what is wrong with each, ``""`` where nothing is."""
        ...


class Pair(Discriminator):
    """A classifier as one logit ``[N, 1]``: f_c − f_t; of a single logit, that logit."""

    def __init__(self, model: Discriminator, one: int, other: int) -> None:
        super().__init__()
        self.model, self.one, self.other = model, one, other
        self.value_range, self.image_shape = model.value_range, model.image_shape
        self.class_names = ("difference",)

    def forward(self, images: Tensor) -> Tensor:
        """Return the difference ``[N, 1]``."""
        logits: Tensor = self.model(images)
        if logits.shape[1] == 1:
            return logits
        return logits[:, self.one : self.one + 1] - logits[:, self.other : self.other + 1]


class Given:
    """A baseline that is known: one reference for each of the images that it is asked for."""

    def __init__(self, made: Tensor) -> None:
        self.made = made

    def baseline(self, images: Tensor) -> Tensor:
        """Return the references ``[N, C, H, W]``.

        Raises
        ------
        InputError
            If they are asked for other images than they were made for.
        """
        if self.made.shape != images.shape:
            raise InputError(
                f"{BY}: the method asks for baselines of {list(images.shape)}, made were {list(self.made.shape)}; "
                f"use a method that takes one reference per image"
            )
        return self.made


class GanmexAttribution(Explainer):
    """Maps of why class c and not class t: of f_c − f_t, from a counterfactual B to the image x. One-vs-one.

    Maps ``[N, C, H, W]`` (``[N, H, W]`` of `explainer/occlusion`), in logits, positive where x differs from B in favour
    of c. Methods that promise it sum to (f_c − f_t)(x) − (f_c − f_t)(B); ``delta`` is what each map is off, and for a
    method with ``steps`` (integrated gradients) they are doubled, image by image, until |delta| ≤ ``tolerance`` ·
    |(f_c − f_t)(x) − (f_c − f_t)(B)|. Where ``max_steps`` do not suffice, the result says so (``complete``) and warns.

    B is on the other side of the boundary of the two: B_t(x) where x is rather of c, B_c(x) where it is rather of t,
    of which the map is negative: what keeps it from c. What is wrong with B as a counterfactual, such as that it is of
    neither class, or no different, is told of each image (``failures``).

    Parameters
    ----------
    baseline
        What makes B: `explainer/counterfactual` by any maker, as a component or ``{use: …}``; or else what the method
        itself takes for a baseline (``zero``, ``blur``, samples, a tensor), which knows of no class.
    against
        The class t; None is, for each image, the class but c of the largest logit. Of a single logit there is only its
        opposite.
    method
        An attribution with a parameter ``baseline``, by name: `explainer/integrated-gradients`, `explainer/deeplift`,
        `explainer/gradient-shap`, `explainer/occlusion`; `explainer/deeplift-shap` for samples. ``steps`` that it sets
        stay.
    tolerance
        As a share of the difference that is explained.
    steps, max_steps
        The first and the largest number of steps.

    Raises
    ------
    ValueError
        If the method takes no baseline, or sets its own, or a number is out of range.

    References
    ----------
    S.-M. Shih, P.-J. Tien, Z. Karnin, "GANMEX: One-vs-One Attributions using GAN-based Model Explainability", ICML 2021
    (arXiv:2011.06015). Completeness: M. Sundararajan, A. Taly, Q. Yan, "Axiomatic Attribution for Deep Networks", ICML
    2017 (arXiv:1703.01365), proposition 1.
    """

    explains, accepts, returns = "discriminator", "images", OneVsOne
    stochastic = True  # from what the method draws; of integrated gradients nothing is

    def __init__(
        self,
        baseline: Explainer | Spec | Samples | Tensor | str = COUNTERFACTUAL,
        against: int | None = None,
        method: Spec = INTEGRATED,
        tolerance: float = 0.01,
        steps: int = 16,
        max_steps: int = 1024,
    ) -> None:
        if tolerance <= 0 or not 2 <= steps <= max_steps:
            raise ValueError(
                f"tolerance {tolerance} must be above 0, steps {steps} at least 2 and at most max_steps {max_steps}"
            )
        accepted = {p.name for p in parameters.of(registry.resolve(method.use))}
        if "baseline" not in accepted or "baseline" in method.params:
            has = "sets a baseline of its own; leave it out" if "baseline" in accepted else "takes no baseline"
            raise ValueError(f"method {method.use} {has}: it is this explainer's parameter")
        self._adapts = "steps" in accepted and "steps" not in method.params
        self.method, self.against = method, against
        self.tolerance, self.steps, self.max_steps = tolerance, steps, max_steps
        self.baseline: Any = baseline
        if isinstance(baseline, Spec):
            with guard():  # building may draw random numbers
                self.baseline = baseline.build()

    def _explain(
        self, model: Discriminator, images: Tensor, target: int | None, runtime: Runtime | None = None
    ) -> OneVsOne:
        runtime = (runtime or Runtime()).with_(quiet=True)
        one = int(target or 0)
        with torch.no_grad():
            logits = model(images).float()
        other = self._other(logits, one)
        made, failures = None, None
        if isinstance(self.baseline, MakesCounterfactuals):
            goal = _across(logits, one, other)
            made = self.baseline.make(model, images, goal)
            failures = self.baseline.failures(model, images, made, goal)
        order, parts = [], []
        for t in sorted(set(other.tolist())):
            rows = (other == t).nonzero()[:, 0]
            order += rows.tolist()
            pair = Pair(model, one, t).eval()
            parts.append(self._contrast(pair, images[rows], None if made is None else made[rows], runtime))
        result = OneVsOne.concat(parts)[torch.tensor(order).argsort().tolist()]
        if result.complete is not None and not bool(result.complete.all()):
            warnings.warn(
                f"{BY}: {int((~result.complete).sum())} of {len(images)} maps do not sum to what they explain, to "
                f"{self.tolerance:.2g} of it" + (f", in {self.max_steps} steps; raise max_steps" * self._adapts),
                GenxaiWarning,
                stacklevel=2,
            )
        return replace(result, failures=failures)

    def _contrast(self, pair: Pair, images: Tensor, made: Tensor | None, runtime: Runtime) -> OneVsOne:
        """Return maps of images that have the other class in common, in steps that suffice."""
        steps = self.steps
        found = self._attributed(pair, images, made, steps, runtime)
        taken = torch.full((len(images),), steps)
        complete = self._complete(found)
        while self._adapts and complete is not None and not bool(complete.all()) and steps < self.max_steps:
            steps = min(2 * steps, self.max_steps)
            again = (~complete).nonzero()[:, 0]
            finer = self._attributed(pair, images[again], None if made is None else made[again], steps, runtime)
            for name in ("maps", "delta"):
                getattr(found, name)[again] = getattr(finer, name)
            taken[again] = steps
            complete = self._complete(found)
        noted = {k: v for k, v in found.notes.items() if not (k == "steps" and self._adapts)}
        baseline = self.baseline
        named = baseline if isinstance(baseline, str) else saving.name_of(baseline)
        named = f"{named} ({baseline.maker})" if hasattr(baseline, "maker") else named
        return OneVsOne(
            maps=found.maps,
            target=pair.one,
            logits=found.logits,
            baseline=found.baseline,
            delta=found.delta,
            against=torch.full((len(images),), pair.other),
            steps=taken if self._adapts else None,
            complete=complete,
            notes={**noted, "method": self.method.use, "baseline": named, "of": "the target's logit less the other's"},
        )

    def _attributed(self, pair: Pair, images: Tensor, made: Tensor | None, steps: int, runtime: Runtime) -> Attribution:
        baseline = self.baseline if made is None else Given(made)
        more = {"steps": steps} if self._adapts else {}
        with guard():  # building may draw random numbers
            method = registry.create(self.method.use, **{**self.method.params, "baseline": baseline, **more})
        found: Attribution = method.explain(pair, images, target=0, runtime=runtime)
        return found

    def _complete(self, found: Attribution) -> Tensor | None:
        """Say of each map whether it sums to the difference, ``[N]``; None where the method promises no sum."""
        if found.delta is None:
            return None
        maps, delta = found.maps.double().flatten(1), found.delta.double()
        allowed = self.tolerance * (maps.sum(1) - delta).abs() + FLOAT * maps.abs().sum(1)
        return delta.abs() <= allowed

    def _other(self, logits: Tensor, one: int) -> Tensor:
        """Return the class ``[N]`` that each image is explained against."""
        classes = logits.shape[1]
        rows = torch.full((len(logits),), one, device=logits.device)
        if self.against is None:
            return torch.zeros_like(rows) if classes == 1 else best_other(logits, rows)
        if classes == 1 or self.against == one or not 0 <= self.against < classes:
            why = (
                "is the only logit's opposite: leave it out" if classes == 1 else f"must be another of 0…{classes - 1}"
            )
            raise TargetError(f"{BY}: target {one} against {self.against}: against {why}")
        return torch.full_like(rows, self.against)


def _across(logits: Tensor, one: int, other: Tensor) -> Tensor:
    """Return on which side of the pair's boundary each image is not: the class ``[N]`` of its counterfactual."""
    if logits.shape[1] == 1:
        return 1 - seen(logits)
    rather = logits[:, one] >= logits.gather(1, other[:, None])[:, 0]
    return torch.where(rather, other, torch.full_like(other, one))
