"""How an explanation guides the generator: the mask, where it comes from, and the hook that applies it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genxai_core import saliency
from genxai_core.errors import ExplainerError
from genxai_core.guard import guard

from .conditioning import given

if TYPE_CHECKING:
    from genxai_core import Attributes, Discriminator, Runtime

Attribution = Callable[[int, Tensor, Tensor | None], Tensor]
Mask = Callable[[int, Tensor, Tensor, Tensor | None], Tensor]


def _itself(step: int, mask: Tensor) -> Tensor:
    return mask


@dataclass(frozen=True, eq=False)
class MaskGuide:
    """Weights the gradient at the generated images: ``g′ = g + α·g⊙M``.

    Parameters
    ----------
    alpha
        How much the mask counts.
    first
        The first step that is guided.
    mask
        ``(step, images, logits, labels) -> mask``, made in a pass of its own. None takes the gradient itself: it is
        ``g = (∂L/∂logit)·(∂logit/∂x)``, the saliency times one number per sample, which scaling per sample removes.
    how
        Says in words where the mask comes from.
    every
        Guides every k-th step from the first one on; those between are plain, with no mask left over.
    control
        ``(step, mask) -> mask``: puts a placebo in its place.
    """

    alpha: float
    first: int
    mask: Mask | None
    how: str
    every: int = 1
    control: Callable[[int, Tensor], Tensor] = _itself

    def __call__(
        self, step: int, images: Tensor, logits: Tensor, labels: Tensor | None = None
    ) -> Mapping[str, Tensor | float]:
        """Hook the images. The mean of the mask is recorded while the gradient passes; 0 where none is applied."""
        record: dict[str, Tensor | float] = {"mask_mean": 0.0}
        if step < self.first or (step - self.first) % self.every:
            return record
        separate = None if self.mask is None else self.mask(step, images, logits, labels)

        def weigh(gradient: Tensor) -> Tensor:
            mask = self.control(step, saliency.mask(gradient) if separate is None else separate)
            record["mask_mean"] = mask.mean()
            return saliency.weight_gradient(gradient, mask, self.alpha)

        images.register_hook(weigh)  # type: ignore[no-untyped-call]
        return record

    def info(self, history: Mapping[str, list[float]]) -> Mapping[str, Any]:
        """Return how the mask was made, the share of steps that it guided, and its mean over them."""
        masks = history["mask_mean"]
        applied = masks[self.first :: self.every]
        return {
            "alpha": self.alpha,
            "mask": self.how,
            "guided": len(applied) / len(masks),
            "mask_mean": sum(applied) / len(applied) if applied else 0.0,
        }


def scaled(attribution: Attribution) -> Mask:
    """Return the mask of an attribution, each sample scaled by itself."""
    return lambda step, images, logits, labels: saliency.mask(attribution(step, images, labels))


class SeparatePass:
    """Attributes in a pass of its own, with the discriminator in eval mode, and leaves it as it was, bit for bit.

    What the explainer draws from global generators depends on the seed and the step; the generators are restored too.
    A conditional discriminator is explained class by class, given the class's label: an explainer may then look at more
    or fewer images at once than there are.
    """

    def __init__(self, explainer: Attributes, discriminator: Discriminator, runtime: Runtime) -> None:
        self.explainer, self.discriminator, self.runtime = explainer, discriminator, runtime

    def __call__(self, step: int, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the attribution of the discriminator's logit, ``[N, C, H, W]`` or ``[N, H, W]``.

        Parameters
        ----------
        step
            Which step of the training it is.
        images
            ``[N, C, H, W]``.
        labels
            ``[N]``, of a conditional discriminator.

        Raises
        ------
        ExplainerError
            If the explainer's maps do not fit the images, or are not finite.
        """
        with guard(self.discriminator), self.runtime.autocast():
            self.runtime.seed_global(step * self.runtime.processes + self.runtime.rank)
            if labels is None:
                maps = self.explainer.attribute(self.discriminator, images.detach().clone(), 0).detach()
            else:
                maps = self._by_class(images.detach(), labels)
        n, channels, *plane = images.shape
        if maps.shape not in ((n, channels, *plane), (n, 1, *plane), (n, *plane)):
            raise ExplainerError(
                f"{type(self.explainer).__name__}.attribute returned {list(maps.shape)} "
                f"for images {list(images.shape)}; maps are [N, H, W] or [N, C, H, W]"
            )
        if not bool(torch.isfinite(maps).all()):
            raise ExplainerError(f"{type(self.explainer).__name__}.attribute returned values that are not finite")
        return maps

    def _by_class(self, images: Tensor, labels: Tensor) -> Tensor:
        rows = [(labels == label).nonzero()[:, 0] for label in torch.unique(labels)]
        judges = [given(self.discriminator, int(labels[part[0]])) for part in rows]
        maps = [self.explainer.attribute(D, images[part], 0).detach() for D, part in zip(judges, rows, strict=True)]
        return torch.cat(maps)[torch.cat(rows).argsort()]


class InputGradient:
    """The saliency of a discriminator, ``∂logit/∂x``."""

    def attribute(self, model: nn.Module, images: Tensor, target: int) -> Tensor:
        """Return the signed gradient ``[N, C, H, W]``."""
        images = images.detach().requires_grad_()
        return torch.autograd.grad(model(images)[:, target].sum(), images)[0]


def explains_itself(discriminator: nn.Module, images: Tensor, tolerance: float = 1e-2) -> bool:
    """Measure whether the gradient of a train-mode batch is each image's own eval-mode gradient.

    It is not where batch statistics, dropout, or anything else tie an image to its neighbours or make training differ.
    Measured rather than read off the types of the modules, since a forward method may do all of that on its own.

    Parameters
    ----------
    discriminator
        Left as it was, bit for bit.
    images
        A few images ``[N, C, H, W]``; at least two, or neighbours cannot be seen.
    tolerance
        Largest difference that passes, as a share of the largest gradient: well above what TF32 rounds, and well below
        what dropout or batch statistics do.
    """
    gradient = InputGradient().attribute
    with guard(discriminator):
        discriminator.train()  # first, for it moves spectral norm's power iteration
        together = gradient(discriminator, images, 0)
        discriminator.eval()
        alone = torch.cat([gradient(discriminator, image, 0) for image in torch.split(images, 1)])
    return bool((together - alone).abs().max() <= tolerance * alone.abs().max())
