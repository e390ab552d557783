"""Attributions that are one gradient by the input."""

from __future__ import annotations

from functools import partial

import captum.attr
from torch import Tensor

from genxai_core import Attribution, Discriminator, Explainer

from .logits import logit


class Saliency(Explainer):
    """The signed gradient of the logit by the pixels: a(x) = ∂f_target(x) / ∂x.

    Maps ``[N, C, H, W]``, in logits per unit of pixel value: where the map is positive, a larger pixel value raises the
    logit. It says how the logit would change, not what made it as large as it is. Computed by captum, with its sign.

    References
    ----------
    K. Simonyan, A. Vedaldi, A. Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification Models
    and Saliency Maps", ICLR workshop 2014 (arXiv:1312.6034), section 3. The paper takes the magnitude.
    """

    explains, accepts, returns = "discriminator", "images", Attribution

    def attribute(self, model: Discriminator, images: Tensor, target: int) -> Tensor:
        """Return the gradient ``[N, C, H, W]``, detached. The model is used in the mode in which it is.

        Raises
        ------
        TargetError
            If the model has no such logit.
        InputError
            If no gradient reaches the images.
        """
        images = images.detach().requires_grad_()
        method = captum.attr.Saliency(partial(logit, model, target=target))
        maps: Tensor = method.attribute(images, abs=False)
        return maps.detach()

    def _explain(self, model: Discriminator, images: Tensor, target: int | None) -> Attribution:
        target = target or 0
        return Attribution(maps=self.attribute(model, images, target), target=target)


class InputXGradient(Explainer):
    """The gradient times the pixel: a(x) = x ⊙ ∂f_target(x)/∂x.

    Maps ``[N, C, H, W]``, in logits. For a network that is piecewise linear without biases it sums to the logit, and
    equals DeepLIFT from pixel value 0. A pixel of value 0 gets 0, which is black in (0, 1) and grey in (-1, 1): the
    value range decides what can be seen. Computed by captum.

    References
    ----------
    A. Shrikumar et al., "Not Just a Black Box", 2016 (arXiv:1605.01713), section 2.
    """

    explains, accepts, returns = "discriminator", "images", Attribution

    def attribute(self, model: Discriminator, images: Tensor, target: int) -> Tensor:
        """Return maps ``[N, C, H, W]``, detached. The model is used in the mode in which it is.

        Raises
        ------
        TargetError
            If the model has no such logit.
        InputError
            If no gradient reaches the images.
        """
        images = images.detach().requires_grad_()
        method = captum.attr.InputXGradient(partial(logit, model, target=target))
        maps: Tensor = method.attribute(images)
        return maps.detach()

    def _explain(self, model: Discriminator, images: Tensor, target: int | None) -> Attribution:
        target = target or 0
        return Attribution(maps=self.attribute(model, images, target), target=target)
