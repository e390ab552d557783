"""Methods that average over noise: GradientSHAP, and SmoothGrad or VarGrad over any explainer."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from genxai_core import Attributes, Discriminator, Spec, draws
from genxai_core.errors import InputError
from genxai_core.guard import guard

from .baselines import Baseline, Reference
from .logits import logit
from .maps import Call, Maps

SALIENCY = Spec("explainer/saliency")


class GradientShap(Maps):
    """Expected gradients: a(x) = mean_s (x + ε_s − b_s) ⊙ ∇f(b_s + t_s (x + ε_s − b_s)), t_s ~ U(0, 1), ε_s ~ N(0, σ²).

    Maps ``[N, C, H, W]``, in logits: an estimate of SHAP values where the logit is near linear between image and
    references. They sum to f(x) − mean f(b) only on average, so ``delta`` shows the error of sampling. Draws are made
    from (seed, s) and the same for all images. Cost: ``samples`` forwards and backwards. As captum's.

    Parameters
    ----------
    samples
        How many points are averaged.
    stdev
        σ as a fraction of the value range; 0 adds no noise.
    baseline
        The references, sample s taking number s, round and round: ``noise`` (uniform, a new one each time), a tensor
        ``[B, C, H, W]`` or samples such as ``$digits[:16]``; or one for all, ``zero``, ``low``, ``mid``, ``mean``,
        ``blur``, a component with ``baseline(images)``.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    References
    ----------
    S. Lundberg, S.-I. Lee, NeurIPS 2017 (arXiv:1705.07874); G. Erion et al., "Improving performance of deep learning
    models with axiomatic attribution priors and expected gradients", Nature Machine Intelligence 2021
    (arXiv:1906.10670).
    """

    stochastic = True
    complete = True

    def __init__(self, samples: int = 32, stdev: float = 0.0, baseline: Baseline = "noise") -> None:
        if samples < 1:
            raise ValueError(f"samples {samples} must be at least 1")
        if not 0 <= stdev < 1:
            raise ValueError(f"stdev {stdev} must be at least 0 and below 1: a fraction of the value range")
        self.samples, self.stdev = samples, stdev
        self.baseline = baseline
        self._of = Reference(baseline)

    def _reference(self) -> Reference:
        return self._of

    def _references(self) -> int:
        return self.samples

    def _notes(self) -> dict[str, Any]:
        return {"samples": self.samples, "stdev": self.stdev}

    def _maps(self, model: Discriminator, images: Tensor, target: int, call: Call) -> Tensor:
        n, total = len(images), torch.zeros_like(images)
        for chunk in call.chunks(self.samples, n):
            reference = torch.stack([self._of.at(s, images, model.value_range, call.seed) for s in chunk])
            noisy = _noisy(images, chunk, self.stdev, model, call.seed, "gradient-shap")
            t = draws.uniform(call.seed, chunk, (1, 1, 1, 1), "gradient-shap.t").to(images)
            difference = noisy - reference
            with torch.enable_grad():
                point = (reference + t * difference).flatten(0, 1).requires_grad_()
                (gradient,) = torch.autograd.grad(logit(model, point, target).sum(), point)
            total += (difference * gradient.view_as(difference)).sum(0)
        return total / self.samples


class NoiseTunnel(Maps):
    """Another explainer's maps over noisy copies of the image: a_s = A(x + ε_s), ε_s ~ N(0, σ²).

    Maps of the shape that the explainer makes, ``[N, C, H, W]`` or ``[N, H, W]``. Noise is drawn from (seed, s) and the
    same for all images, so that an image's map does not depend on the others. Cost: ``samples`` times the explainer's;
    as captum's.

    Parameters
    ----------
    explainer
        Any explainer of a discriminator that has ``attribute``, by registry name:
        ``{use: explainer/integrated-gradients, with: {steps: 16}}``. What it draws itself is drawn from the same seed.
    method
        ``smoothgrad``: the mean of a_s, signed, in the explainer's unit. ``smoothgrad-sq``: the mean of a_s², unsigned,
        in its square. ``vargrad``: the variance of a_s, unsigned, in its square: where the map is not to be relied
        upon.
    samples
        Noisy copies; at least 2 for ``vargrad``.
    stdev
        σ as a fraction of the value range; the paper advises 0.1 to 0.2.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    References
    ----------
    D. Smilkov et al., "SmoothGrad", 2017 (arXiv:1706.03825). Squares and variance: J. Adebayo et al., "Local
    Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter Values", 2018 (arXiv:1810.03307); S.
    Hooker et al., "A Benchmark for Interpretability Methods in Deep Neural Networks", NeurIPS 2019 (arXiv:1806.10758).
    """

    stochastic = True

    def __init__(
        self,
        explainer: Spec = SALIENCY,
        method: Literal["smoothgrad", "smoothgrad-sq", "vargrad"] = "smoothgrad",
        samples: int = 16,
        stdev: float = 0.15,
    ) -> None:
        if method not in ("smoothgrad", "smoothgrad-sq", "vargrad"):
            raise ValueError(f"method {method!r} is not one of smoothgrad, smoothgrad-sq, vargrad")
        if samples < (2 if method == "vargrad" else 1):
            raise ValueError(f"samples {samples} are too few for {method}")
        if not 0 < stdev < 1:
            raise ValueError(f"stdev {stdev} must be above 0 and below 1: a fraction of the value range")
        self.explainer, self.method, self.samples, self.stdev = explainer, method, samples, stdev
        self._inner: Any = None

    def _notes(self) -> dict[str, Any]:
        noted: dict[str, Any] = {"method": self.method, "of": self.explainer.use, "samples": self.samples}
        if self.method != "smoothgrad":
            noted["meaning"] = ("", "more" if self.method == "smoothgrad-sq" else "varies more")
        return noted

    def _maps(self, model: Discriminator, images: Tensor, target: int, call: Call) -> Tensor:
        inner = self._built()
        mean, square = torch.zeros(()), torch.zeros(())
        for chunk in call.chunks(self.samples, len(images)):
            noisy = _noisy(images, chunk, self.stdev, model, call.seed, "noise-tunnel").flatten(0, 1)
            if isinstance(inner, Maps):
                maps = inner._maps(model, noisy, target, Call(max(call.at_once, len(noisy)), call.seed))
            else:
                maps = inner.attribute(model, noisy, target)
            maps = maps.detach().double()
            maps = maps.view(len(chunk), len(images), *maps.shape[1:]) / self.samples
            mean = mean.to(maps) + maps.sum(0)
            square = square.to(maps) + self.samples * (maps**2).sum(0)
        found = {"smoothgrad": mean, "smoothgrad-sq": square, "vargrad": square - mean**2}
        return found[self.method].to(images.dtype)

    def _built(self) -> Any:
        if self._inner is None:
            with guard():  # building may draw random numbers
                built = self.explainer.build()
            if not isinstance(built, Attributes):
                raise InputError(f"noise-tunnel: {self.explainer.use} has no attribute(model, images, target)")
            self._inner = built
        return self._inner


def _noisy(images: Tensor, chunk: range, stdev: float, model: Discriminator, seed: int, stream: str) -> Tensor:
    """Return ``[len(chunk), N, C, H, W]``: each image with each noise."""
    low, high = model.value_range
    if not stdev:
        return images.expand(len(chunk), *images.shape)
    noise = draws.normal(seed, chunk, images.shape[1:], stream).to(images)
    return images + stdev * (high - low) * noise[:, None]
