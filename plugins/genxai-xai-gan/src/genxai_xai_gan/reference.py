"""The mask as the xAI-GAN authors' code makes it (github.com/explainable-gan/XAIGAN, 2020), faults included."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from genxai_core import Discriminator
from genxai_core.errors import ExplainerError
from genxai_core.guard import guard

from .conditioning import given

if TYPE_CHECKING:
    from genxai_core import Attributes, Runtime


class Probability(Discriminator):
    """D = σ(logit), which is what the authors explain."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator, self.sigmoid = discriminator, nn.Sigmoid()
        self.value_range, self.image_shape = discriminator.value_range, discriminator.image_shape

    def forward(self, images: Tensor) -> Tensor:
        """Return ``[N, 1]`` in (0, 1)."""
        probability: Tensor = self.sigmoid(self.discriminator(images))
        return probability


class ReferenceMask:
    """What that code does, step by step.

    Images that the discriminator takes for real (D ≥ ½) get the value 1 at every pixel; those that it rejects get the
    attribution of D, each explained alone and in train mode, with the discriminator's dropout and the statistics of a
    batch of one. Then the whole batch together is scaled to [0, 1]. With fewer than two rejected images nothing is
    explained, every value is 1, and scaling that gives 0/0, which becomes 0: no mask at all.

    One thing it does not copy: the discriminator, and the global generators, are left as they were, bit for bit.

    Parameters
    ----------
    explainer
        What attributes D.
    discriminator
        The discriminator in training.
    runtime
        Seed, precision and process.
    absolute
        Take the absolute attribution, as captum's saliency does; others enter with their sign.
    """

    def __init__(
        self, explainer: Attributes, discriminator: Discriminator, runtime: Runtime, *, absolute: bool
    ) -> None:
        self.explainer, self.discriminator = explainer, discriminator
        self.runtime, self.absolute = runtime, absolute

    def __call__(self, step: int, images: Tensor, logits: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the mask ``[N, C, H, W]``, given the logits ``[N, 1]`` that the running pass gave the images.

        Of a conditional discriminator the images' ``labels`` ``[N]`` are given too.

        Raises
        ------
        ExplainerError
            If the explainer's maps do not fit the images, or are not finite.
        """
        values = torch.ones_like(images)
        rejected = (logits.detach()[:, 0] < 0).nonzero()[:, 0].tolist()
        if len(rejected) > 1:
            # a copy, for what one image does to the statistics reaches the next one, but not the running pass
            copied = copy.deepcopy(self.discriminator)
            with guard(), self.runtime.autocast():
                self.runtime.seed_global(step * self.runtime.processes + self.runtime.rank)
                for i in rejected:
                    judge = given(copied, None if labels is None else int(labels[i]))
                    values[i] = self._explained(Probability(judge), images[i : i + 1].detach().clone())
        return scaled_over_batch(values)

    def _explained(self, model: Discriminator, image: Tensor) -> Tensor:
        maps = self.explainer.attribute(model, image, 0).detach()
        fits = maps.shape in (image.shape, (1, 1, *image.shape[2:]), (1, *image.shape[2:]))
        if not fits or not bool(torch.isfinite(maps).all()):
            raise ExplainerError(
                f"{type(self.explainer).__name__}.attribute returned {list(maps.shape)}, or values that are not "
                f"finite, for images {list(image.shape)}; maps are [N, H, W] or [N, C, H, W]"
            )
        return maps[0].abs() if self.absolute else maps[0]  # of [1, H, W] the plane, which all channels share


def scaled_over_batch(values: Tensor) -> Tensor:
    """Return (v − min v)/max(v − min v) over all values together; 0 where that is 0/0."""
    lifted = values - values.min()
    return torch.nan_to_num(lifted / lifted.max(), nan=0.0)
