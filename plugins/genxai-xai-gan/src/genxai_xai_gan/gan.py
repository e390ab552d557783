"""Plain adversarial training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from genxai_core import Spec as Spec  # an annotation of the inherited parameters is resolved in this module

from .training import AdversarialTrainer, Guide

if TYPE_CHECKING:
    from torch import Tensor

    from genxai_core import Dataset, Discriminator, Runtime, Samples


@dataclass(frozen=True, eq=False, kw_only=True)
class GANTrainer(AdversarialTrainer):
    """Trains a generator against a discriminator with the non-saturating loss, both with Adam.

    The discriminator minimises ``softplus(−D(x)) + softplus(D(G(z)))``, the generator ``softplus(−D(G(z)))``
    (Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014; architecture and Adam's first beta after Radford et
    al., 2016). `fit` returns ``generator`` and ``discriminator``; its history holds ``d_loss``, ``g_loss``, and the
    discriminator's mean logit on real and on generated images (``logit_real``, ``logit_fake``), all before the step.

    Parameters
    ----------
    generator
        A generator with latents; image size and channels are filled in from the data.
    discriminator
        A discriminator with a single logit (above zero means real).
    steps
        Iterations; each steps the discriminator once and the generator once.
    batch
        Real images, and generated images, per step, over all processes together.
    generator_lr
        Adam's learning rate for the generator.
    discriminator_lr
        Adam's learning rate for the discriminator.
    betas
        Adam's decay rates, for both.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """

    name: ClassVar[str] = "gan"

    def _guide(self, discriminator: Discriminator, data: Samples | Dataset, runtime: Runtime) -> Guide:
        return Unguided()


class Unguided:
    """Leaves the generator's gradient as it is."""

    def __call__(self, step: int, images: Tensor) -> Mapping[str, Tensor | float]:
        """Do nothing."""
        return {}

    def info(self, history: Mapping[str, list[float]]) -> Mapping[str, Any]:
        """Return nothing."""
        return {}
