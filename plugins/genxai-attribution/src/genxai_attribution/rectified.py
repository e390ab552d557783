"""Guided backpropagation and deconvolution: gradients of which the rectifiers let only positive values back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from genxai_core import Discriminator
from genxai_core.errors import InputError

from .logits import logit
from .maps import Call, Maps
from .rules import Backward, Replaced, slope

RECTIFIERS = ("relu", "leaky_relu", "prelu", "rrelu", "threshold", "clamp", "clamp_min")


class Rectified(Maps):
    """Base: the gradient by the pixels with another rule at every rectifier."""

    @staticmethod
    @abstractmethod
    def _rule(function: Callable[[Tensor], Tensor], given: Tensor) -> tuple[Tensor, Backward]:
        """A `Rule`."""

    def _maps(self, model: Discriminator, images: Tensor, target: int, call: Call) -> Tensor:
        with torch.enable_grad(), Replaced(dict.fromkeys(RECTIFIERS, self._rule)) as mode:
            leaf = images.detach().requires_grad_()
            logits = logit(model, leaf, target)
        if not mode.used:
            raise InputError(
                f"{type(model).__name__} has no rectifier (ReLU, LeakyReLU, PReLU) on its way from the images to the "
                f"logit, so {type(self).__name__} would be the plain gradient: use explainer/saliency"
            )
        (maps,) = torch.autograd.grad(logits, leaf, torch.ones_like(logits))
        return maps


class GuidedBackprop(Rectified):
    """Gradient of which every rectifier σ passes only positive values back: R ← σ′(a) ⊙ max(R, 0), a its input.

    Maps ``[N, C, H, W]``, in logits per unit of pixel value, of both signs. For ReLU it is the paper's rule and
    captum's. LeakyReLU and PReLU go by the same rule with their own slope σ′; captum, which hooks only ``nn.ReLU``,
    would return the plain gradient there. Functional, in-place and repeatedly used rectifiers count too. Other
    activations (tanh, GELU) pass their plain gradient.

    It looks sharp because it recovers edges: on random weights it looks much the same (Adebayo et al., "Sanity Checks
    for Saliency Maps", NeurIPS 2018), so do not take sharpness for truth. "Why fake" is not the negative of "why real".

    References
    ----------
    J. Springenberg et al., "Striving for Simplicity", ICLR workshop 2015 (arXiv:1412.6806), section 3.4.
    """

    @staticmethod
    def _rule(function: Callable[[Tensor], Tensor], given: Tensor) -> tuple[Tensor, Backward]:
        out, derivative = slope(function, given)
        return out, lambda gradient: gradient.clamp(min=0) * derivative


class Deconvolution(Rectified):
    """The logit sent back through the transposed network, rectified: R ← max(R, 0) at every rectifier.

    Maps ``[N, C, H, W]``, in logits per unit of pixel value, of both signs. Unlike guided backpropagation it forgets
    which activations were on. LeakyReLU and PReLU go by the very same rule, whatever their slope; captum, which hooks
    only ``nn.ReLU``, would return the plain gradient there. Functional, in-place and repeatedly used rectifiers count
    too.

    It depends on the image through max pooling and other activations alone, so for a strided network of rectifiers it
    is **the same map for every image**. "Why fake" is not the negative of "why real".

    References
    ----------
    M. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014 (arXiv:1311.2901).
    """

    @staticmethod
    def _rule(function: Callable[[Tensor], Tensor], given: Tensor) -> tuple[Tensor, Backward]:
        return function(given), lambda gradient: gradient.clamp(min=0)
