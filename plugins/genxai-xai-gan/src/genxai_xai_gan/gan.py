"""Plain adversarial training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from genxai_core import Spec as Spec  # annotations of the inherited parameters are resolved in this module
from genxai_core.adversarial import LossName as LossName

from .training import AdversarialTrainer, Guide

if TYPE_CHECKING:
    from torch import Tensor

    from genxai_core import Dataset, Discriminator, Runtime, Samples


@dataclass(frozen=True, eq=False, kw_only=True)
class GANTrainer(AdversarialTrainer):
    """Trains a generator against a discriminator with any of the adversarial losses, both with Adam.

    By default the discriminator minimises ``softplus(−D(x)) + softplus(D(G(z)))``, the generator ``softplus(−D(G(z)))``
    (Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014; architecture and Adam's first beta after Radford et
    al., 2016). `fit` returns ``generator`` and ``discriminator``; its history holds ``d_loss``, ``g_loss``, the
    discriminator's mean logit on real and on generated images (``logit_real``, ``logit_fake``), and weighted penalties
    where there are any (``gradient_penalty``, ``r1``), all before the step.

    Parameters
    ----------
    generator
        A generator with latents; image size and channels are filled in from the data. With ``num_classes`` it is
        trained on their labels: generated image i of a batch has the label of real image i.
    discriminator
        A discriminator with a single logit (above zero means real). If the generator has classes, it has as many,
        filled in, and offers ``given(labels=…)``.
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
    loss
        What the two play for: non-saturating, minimax, least-squares, hinge, wasserstein-gp, or an f-divergence: kl,
        reverse-kl, pearson, squared-hellinger, total-variation, jensen-shannon (see `genxai_core.adversarial.LOSSES`).
    gradient_penalty
        Weight λ of ``(|∇D(x̂)| − 1)²`` between real and generated images; of wasserstein-gp alone.
    r1
        Weight γ of ``½|∇D(x)|²`` at real images, with any loss; 0 leaves it out.
    label_smoothing
        s of the label 1 − s of real images, for non-saturating, minimax and least-squares.
    ema
        Decay of a running average of the generator's weights (Yazıcı et al., "The Unusual Effectiveness of Averaging in
        GAN Training", ICLR 2019), such as 0.999: `fit` returns the average, which draws better than the last step. Over
        the first steps the decay is at most (1 + n) / (10 + n), n steps in. 0 returns the generator of the last step.

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

    def __call__(
        self, step: int, images: Tensor, logits: Tensor, labels: Tensor | None
    ) -> Mapping[str, Tensor | float]:
        """Do nothing."""
        return {}

    def info(self, history: Mapping[str, list[float]]) -> Mapping[str, Any]:
        """Return nothing."""
        return {}
