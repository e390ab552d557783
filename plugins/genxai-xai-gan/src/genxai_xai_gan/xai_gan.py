"""Adversarial training guided by an explanation of the discriminator."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from genxai_core import Attributes, Spec
from genxai_core.adversarial import LossName as LossName  # an inherited annotation is resolved in this module
from genxai_core.errors import MissingCapability

from .conditioning import classes, given
from .controls import Control, Kind
from .guidance import InputGradient, Mask, MaskGuide, SeparatePass, explains_itself, scaled
from .reference import ReferenceMask
from .training import AdversarialTrainer, Guide

if TYPE_CHECKING:
    from genxai_core import Dataset, Discriminator, Runtime, Samples

Mode = Literal["exact", "reference"]
SALIENCY = Spec("explainer/saliency")
PROBE = 4  # images on which the discriminator is asked whether its running backward pass explains it


@dataclass(frozen=True, eq=False, kw_only=True)
class XAIGANTrainer(AdversarialTrainer):
    """`trainer/gan` whose generator learns more from the pixels that the discriminator looks at (xAI-GAN).

    From a fraction ``start`` of the training on, the generator's gradient at its output is ``g′ = g + α·g⊙M``, with
    ``M`` the absolute attribution of the discriminator at the generated image, scaled to [0, 1] per sample over C·H·W
    (Nagisetty, Graves, Scott, Ganesh, "xAI-GAN: Enhancing Generative Adversarial Networks via Explainable AI Systems",
    2020, arXiv:2002.10438). With plain saliency the mask comes out of the backward pass that is running anyway, at no
    extra pass; any other explainer, or a discriminator with batch statistics or dropout, takes a pass of its own in
    eval mode. ``Trained.info["mask"]`` says which it was. The history adds ``mask_mean``, 0 where nothing is guided.

    Parameters
    ----------
    generator
        A generator with latents; image size and channels are filled in from the data. With ``num_classes`` it is
        trained on their labels: generated image i of a batch has the label of real image i.
    discriminator
        A discriminator with a single logit (above zero means real). If the generator has classes, it has as many,
        filled in, and offers ``given(labels=…)``.
    explainer
        What attributes the discriminator's logit; any that implements ``attribute`` (`genxai_core.Attributes`).
    alpha
        How much the mask counts: pixels with mask 1 have their gradient multiplied by 1 + alpha.
    start
        The fraction of the training from which on it is guided: 0 throughout, 1 never.
    mode
        ``exact`` as above. ``reference`` makes the mask as the authors' code does: the sigmoid of the logit is
        explained in train mode, image by image, for rejected images only; the others count as 1, and the whole batch
        is scaled together. For replication; it is slow, and the documentation lists its faults.
    every
        From then on every k-th step is guided; those between are plain, and no mask is kept for them. For explainers
        that cost more than the step itself.
    control
        A placebo in the place of the mask, to compare with, with the mask's mean over each image. ``none``: the mask.
        ``uniform``: the mean everywhere. ``shuffled``: the mask's own values, its pixels permuted within the image.
        ``random``: values drawn uniformly, scaled to the mean.
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

    name: ClassVar[str] = "xai-gan"

    explainer: Spec = SALIENCY
    alpha: float = 0.2
    start: float = 0.5
    mode: Mode = "exact"
    every: int = 1
    control: Kind = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha < float("inf"):
            raise ValueError(f"alpha is {self.alpha}; it must be finite and not negative")
        if not 0 <= self.start <= 1:
            raise ValueError(f"start is {self.start}; it is a fraction of the training, from 0 to 1")
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode {self.mode!r} is not one of {', '.join(get_args(Mode))}")
        if self.every < 1:
            raise ValueError(f"every is {self.every}; it must be at least 1")
        if self.control not in get_args(Kind):
            raise ValueError(f"control {self.control!r} is not one of {', '.join(get_args(Kind))}")

    def _guide(self, discriminator: Discriminator, data: Samples | Dataset, runtime: Runtime) -> Guide:
        mask: Mask | None = None
        how = "saliency, from the running backward pass"
        if self.mode == "reference":
            plain = self.explainer == SALIENCY
            explainer = InputGradient() if plain else self._attributes()
            mask = ReferenceMask(explainer, discriminator, runtime, absolute=plain)
            how = f"{self.explainer.use}, as the reference makes it: rejected images, train mode, scaled over the batch"
        elif self.explainer != SALIENCY:
            mask = scaled(SeparatePass(self._attributes(), discriminator, runtime))
            how = f"{self.explainer.use}, from a separate pass in eval mode"
        else:
            probe = data[[i % len(data) for i in range(PROBE)]].images.to(runtime.torch_device)
            if not explains_itself(given(discriminator, 0 if classes(discriminator) else None), probe):
                mask = scaled(SeparatePass(InputGradient(), discriminator, runtime))
                how = (
                    "saliency, from a separate pass in eval mode: in training this discriminator's gradient at an "
                    "image is not the image's own (batch statistics, dropout)"
                )
        if self.control != "none":
            how = f"a placebo ({self.control}) with the mean of: {how}"
        logging.getLogger(__name__).info("trainer/%s: the mask is %s", self.name, how)
        control = Control(self.control, runtime, self.batch)
        return MaskGuide(self.alpha, round(self.start * self.steps), mask, how, self.every, control)

    def _attributes(self) -> Attributes:
        explainer = self.explainer.build()
        if not isinstance(explainer, Attributes):
            raise MissingCapability(
                f"trainer/{self.name}: {self.explainer.use} cannot explain inside a training step (it has no "
                f"attribute(model, images, target)); use explainer/saliency or another that has it"
            )
        return explainer
