"""DeepLIFT and DeepLIFT-SHAP: differences from a reference, passed back through the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genxai_core import Discriminator
from genxai_core.errors import InputError

from .baselines import Baseline, Reference
from .logits import logit
from .maps import Call, Maps
from .rules import Backward, Replaced, Rule, slope

ELEMENTWISE = """
    relu leaky_relu prelu elu celu selu relu6 hardtanh softplus gelu silu mish hardswish hardsigmoid sigmoid
    logsigmoid tanh softsign tanhshrink hardshrink softshrink threshold clamp clamp_min clamp_max abs square sqrt exp
    log log1p pow __pow__
""".split()  # noqa: SIM905 - read as words
POOLING = ("max_pool2d", "adaptive_max_pool2d")
SMALL = 1e-6
"""Differences below it are divided by nothing: the derivative stands for the quotient, as in shap."""


class DeepLift(Maps):
    """Contributions of each pixel's difference from a reference b, by the rescale rule.

    At every activation y = σ(a) the gradient is replaced by the quotient of differences,
    m = (σ(a(x)) − σ(a(b))) / (a(x) − a(b)), so that a(x) = (x − b) ⊙ Π m sums to f(x) − f(b) (completeness), with one
    forward and backward of image and reference. Maps ``[N, C, H, W]``, in logits; ``delta`` is the error of the sum.

    Elementwise activations and max pooling are seen wherever torch calls them, so functional, in-place and repeatedly
    used activations are right (captum raises or is wrong there). What has no rule, such as attention, a product of two
    activations, or a norm whose statistics depend on the image, breaks completeness, and is **refused**: the sum must
    be met to 0.1 % of Σ|a| + |f(x) − f(b)| (5 % in bfloat16).

    Parameters
    ----------
    baseline
        ``zero``, ``low`` (black), ``mid`` (grey), ``mean`` (each image's mean colour), ``blur``, ``noise`` (drawn from
        the seed), a tensor ``[C, H, W]``, or a component with ``baseline(images)``.

    Raises
    ------
    ValueError
        If the baseline is none of these.

    References
    ----------
    A. Shrikumar, P. Greenside, A. Kundaje, "Learning Important Features Through Propagating Activation Differences",
    ICML 2017 (arXiv:1704.02685), sections 3.2 and 3.5.1. Max pooling as in captum.
    """

    complete = True
    passes = 2  # an image and its reference

    def __init__(self, baseline: Baseline = "mid") -> None:
        self.baseline = baseline
        self._of = Reference(baseline)

    def _reference(self) -> Reference:
        return self._of

    def _maps(self, model: Discriminator, images: Tensor, target: int, call: Call) -> Tensor:
        baseline = self._of(images, model.value_range, call.seed)
        pairs = max(1, call.at_once // 2)
        parts = zip(torch.split(images, pairs), torch.split(baseline, pairs), strict=True)
        return torch.cat([rescaled(model, x, b, target) for x, b in parts])


class DeepLiftShap(Maps):
    """Mean of DeepLIFT over several references b_r: a(x) = (1/R) Σ_r DeepLIFT(x, b_r), an estimate of SHAP values.

    Maps ``[N, C, H, W]``, in logits; they sum to f(x) − mean_r f(b_r), and ``delta`` is the error. Cost: R passes of
    image and reference. Refuses what `explainer/deeplift` refuses.

    Parameters
    ----------
    baseline
        ``noise``: ``references`` images uniform over the value range, drawn from (seed, r), the same for all images; a
        tensor ``[R, C, H, W]`` or samples such as ``$digits[:16]``: real images are the better reference where there
        are any. The first ``references`` of them are used.
    references
        R, at least 2.

    Raises
    ------
    ValueError
        If there are fewer than two references, or the baseline gives only one (that is `explainer/deeplift`).

    References
    ----------
    S. Lundberg, S.-I. Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017 (arXiv:1705.07874),
    section 4.2 (Deep SHAP).
    """

    stochastic = True  # from the references ``noise``; from the others nothing is drawn
    complete = True
    passes = 2  # an image and its reference

    def __init__(self, baseline: Baseline = "noise", references: int = 8) -> None:
        self._of = Reference(baseline)
        if self._of.count(references) < 2:
            raise ValueError(
                f"baseline {self._of.name} with references {references} is a single reference: give samples, a tensor "
                f"of several or 'noise', and references of at least 2; with one reference use explainer/deeplift"
            )
        self.baseline, self.references = baseline, references

    def _reference(self) -> Reference:
        return self._of

    def _references(self) -> int:
        return self.references

    def _notes(self) -> dict[str, Any]:
        return {"references": self._of.count(self.references)}

    def _maps(self, model: Discriminator, images: Tensor, target: int, call: Call) -> Tensor:
        count, total = self._of.count(self.references), torch.zeros_like(images)
        pairs = max(1, call.at_once // 2)
        for index in range(count):
            baseline = self._of.at(index, images, model.value_range, call.seed)
            for start in range(0, len(images), pairs):
                rows = slice(start, start + pairs)
                total[rows] += rescaled(model, images[rows], baseline[rows], target)
        return total / count


def rescaled(model: Discriminator, images: Tensor, baseline: Tensor, target: int) -> Tensor:
    """DeepLIFT by the rescale rule of images ``[N, C, H, W]`` against references of that shape, by one pass of 2N.

    Raises
    ------
    InputError
        If completeness does not hold.
    """
    n = len(images)
    rules: dict[str, Rule] = {**dict.fromkeys(ELEMENTWISE, _quotient), **dict.fromkeys(POOLING, _pooled)}
    with torch.enable_grad(), Replaced(rules) as mode:
        both = torch.cat([images, baseline]).detach().requires_grad_()
        logits = logit(model, both, target)
    (gradient,) = torch.autograd.grad(logits, both, torch.ones_like(logits))
    maps = (images - baseline) * gradient[:n]
    _require_complete(maps, logits[:n] - logits[n:], mode.seen - set(rules), model)
    return maps


def _quotient(function: Callable[[Tensor], Tensor], given: Tensor) -> tuple[Tensor, Backward]:
    out, derivative = slope(function, given)
    if len(given) % 2:  # not image and reference, such as a weight
        return out, lambda gradient: gradient * derivative
    by, of = _difference(given), _difference(out)
    near = by.abs() < SMALL
    multiplier = torch.where(near, derivative, of / by.masked_fill(near, 1))
    return out, lambda gradient: gradient * multiplier


def _pooled(function: Callable[[Tensor], Tensor], given: Tensor) -> tuple[Tensor, Backward]:
    """Max pooling: an output's difference goes to where the two maxima are, as in captum; overlapping windows add."""
    with torch.enable_grad():
        leaf = given.detach().requires_grad_()
        out = function(leaf)
    if not isinstance(out, Tensor):  # with indices, or a weight: no rule
        return out, lambda gradient: gradient
    image, reference = out.detach().chunk(2)
    larger = torch.maximum(image, reference)
    parts = torch.cat([larger - reference, image - larger])  # at the image's maximum, and at the reference's
    by = _difference(given)
    near = by.abs() < SMALL

    def backward(gradient: Tensor) -> Tensor:
        (placed,) = torch.autograd.grad(out, leaf, gradient * parts, retain_graph=True)
        (plain,) = torch.autograd.grad(out, leaf, gradient)
        at_image, at_reference = placed.chunk(2)
        total = torch.cat([at_image + at_reference] * 2)
        return torch.where(near, plain, total / by.masked_fill(near, 1))

    return out.detach(), backward


def _difference(values: Tensor) -> Tensor:
    """Image minus reference, for both halves ``[2N, …]``."""
    image, reference = values.chunk(2)
    return torch.cat([image - reference] * 2)


def _require_complete(maps: Tensor, gap: Tensor, seen: set[str], model: Discriminator) -> None:
    flat, gap = maps.detach().double().flatten(1), gap.detach()
    share = 5e-2 if gap.dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled(gap.device.type) else 1e-3
    allowed = share * (flat.abs().sum(1) + gap.double().abs()) + 1e-6
    error = (flat.sum(1) - gap.double()).abs()
    if bool((error <= allowed).all()):
        return
    worst = int((error / allowed).argmax())
    suspects = ", ".join(sorted(seen - LINEAR)) or "a function that torch does not show, such as compiled code"
    found, wanted = float(flat[worst].sum()), float(gap[worst])
    raise InputError(
        f"DeepLIFT does not apply to {type(model).__name__}: its contributions sum to {found:.4g}, but the logit "
        f"differs by {wanted:.4g}: some operation has no rule here (among: {suspects}); "
        f"use explainer/integrated-gradients"
    )


LINEAR = set(
    """
    clone detach cat stack conv1d conv2d conv3d conv_transpose2d linear flatten view reshape permute transpose squeeze
    unsqueeze contiguous pad avg_pool2d adaptive_avg_pool2d interpolate mean sum add sub neg __neg__ __add__ __sub__
    __radd__ __rsub__ __iadd__ __getitem__ __get__ to float double expand chunk split dropout dropout2d size dim
    requires_grad copy type numel __len__ is_floating_point
    """.split()  # noqa: SIM905 - read as words
)
"""Functions that need no rule, so that a refusal does not list them."""
