"""Integrated gradients."""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import captum.attr
import torch
from torch import Tensor

from genxai_core import Attribution, Discriminator, Explainer, Runtime

from .baselines import Baseline, Reference
from .logits import logit

Quadrature = Literal["gausslegendre", "riemann_middle"]


class IntegratedGradients(Explainer):
    """Gradients integrated on the straight way from a baseline b: a(x) = (x − b) ⊙ ∫₀¹ ∂f_target(b + t(x − b))/∂x dt.

    Maps ``[N, C, H, W]``, in logits: what each pixel, by differing from the baseline, adds to the logit. They sum to
    f(x) − f(b) (completeness); the error of that sum is ``delta`` of the result, per image. A pixel that equals the
    baseline gets exactly 0, so choose a baseline that the images do not contain where it matters. Computed by captum;
    never more than the runtime's ``batch_size`` images pass through the model at once, at ``steps`` gradients each.

    Parameters
    ----------
    steps
        Points on the way, at least 2. Raise it where ``delta`` is not small against the logits.
    method
        How the integral is approximated: ``gausslegendre``, exact for polynomials up to degree 2·steps − 1, or
        ``riemann_middle``, even spacing. captum's ``riemann_trapezoid`` is refused: its weights sum to
        (steps − 1)/steps, so that it is 1.6 % low at 64 steps.
    baseline
        ``low``: black, the smallest pixel value. ``mid``: grey, the centre of the value range (0 in (-1, 1)). ``zero``:
        pixel value 0. ``mean``: each image's mean colour. ``blur``: the image blurred, σ an eighth of its longer side.
        ``noise``: uniform over the range, from the seed. Or a tensor ``[C, H, W]``, or a component, by registry name,
        with ``baseline(images)``.

    Raises
    ------
    ValueError
        If a parameter has another value.

    References
    ----------
    M. Sundararajan, A. Taly, Q. Yan, "Axiomatic Attribution for Deep Networks", ICML 2017 (arXiv:1703.01365), eq. 1.
    """

    explains, accepts, returns = "discriminator", "images", Attribution
    stochastic = True  # from the baseline ``noise``; from the others nothing is drawn

    def __init__(
        self,
        steps: int = 64,
        method: Literal["gausslegendre", "riemann_middle"] = "gausslegendre",
        baseline: Baseline = "mid",
    ) -> None:
        if steps < 2:
            raise ValueError(f"steps {steps} must be at least 2")
        if method not in get_args(Quadrature):
            raise ValueError(f"method {method!r} is not gausslegendre or riemann_middle (other rules are biased)")
        self.steps = steps
        self.method: Quadrature = method
        self.baseline: Baseline = baseline
        self._of = Reference(baseline)

    def attribute(self, model: Discriminator, images: Tensor, target: int) -> Tensor:
        """Return maps ``[N, C, H, W]``, detached, by ``steps`` passes of the N images, in the model's present mode.

        Raises
        ------
        TargetError
            If the model has no such logit.
        InputError
            If no gradient reaches the images.
        """
        baseline = self._of(images, model.value_range)
        return self._integrate(model, images, baseline, target, len(images))

    def _integrate(self, model: Discriminator, images: Tensor, baseline: Tensor, target: int, at_once: int) -> Tensor:
        method = captum.attr.IntegratedGradients(partial(logit, model, target=target))
        maps: Tensor = method.attribute(
            images.detach(),
            baselines=baseline,
            n_steps=self.steps,
            method=self.method,
            internal_batch_size=at_once,
        )
        return maps.detach()

    def _explain(
        self, model: Discriminator, images: Tensor, target: int | None, runtime: Runtime | None = None
    ) -> Attribution:
        target = target or 0
        baseline = self._of(images, model.value_range, runtime.seed if runtime else 0)
        at_once = max(runtime.batch_size if runtime else 0, len(images))
        maps = self._integrate(model, images, baseline, target, at_once)
        with torch.no_grad():
            logits, reference = logit(model, images, target), logit(model, baseline, target)
        delta = maps.double().flatten(1).sum(1) - (logits.double() - reference.double())
        return Attribution(
            maps=maps,
            target=target,
            logits=logits,
            baseline=baseline,
            delta=delta.to(maps.dtype),
            notes={"baseline": self._of.name, "steps": self.steps, "method": self.method},
        )
