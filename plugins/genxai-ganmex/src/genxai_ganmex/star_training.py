"""StarGAN's trainer: the discriminator learns the classes that the generator is to paint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from genxai_core import Spec as Spec  # annotations of the inherited parameters are resolved in this module
from genxai_core.adversarial import LossName as LossName
from genxai_core.errors import InputError

from .judging import Judge, OwnHead
from .translating import Settings, TranslationTrainer

if TYPE_CHECKING:
    from genxai_core import Dataset, Runtime, Samples

Preset = Literal["default", "paper"]


@dataclass(frozen=True, eq=False, kw_only=True)
class StarGANTrainer(TranslationTrainer):
    """Trains a generator that moves labelled images to any other class, and a discriminator with two heads.

    Choi et al., "StarGAN: Unified Generative Adversarial Networks for Multi-Domain Image-to-Image Translation", CVPR
    2018, arXiv:1711.09020, eq. 5 and 6. The discriminator minimises the adversarial loss of its source head and
    ``λ_cls · CE(D_cls(x), c)`` at real images; the generator, with targets t that are drawn uniformly,

        L_adv(D(G(x, t))) + λ_cls · CE(D_cls(G(x, t)), t) + λ_sim · |x − G(x, t)| + λ_rec · |x − G(G(x, t), c)|,

    with means of absolute differences over pixels, channels and images, in the generator's range. λ_sim is 0 there.
    Both learning rates fall linearly to zero over the second half, as there. `fit` returns ``generator`` and
    ``discriminator``; the history holds each term, weighted, before its step. ``info`` says what held-out images do,
    as the class head sees them: ``held_out_flips`` and the rest of `genxai_ganmex.measuring.measured`.

    Parameters
    ----------
    preset
        What the parameters are that are not given. ``default``: non-saturating loss with r1, for small images on a
        laptop. ``paper``: Wasserstein loss with a gradient penalty of weight 10, λ_cls 1, λ_rec 10, rates 1e-4, betas
        0.5 and 0.999, five steps of the discriminator for one of the generator.
    generator
        A generator with ``translate``; size, channels, classes and their names are filled in from the data.
    discriminator
        A discriminator with ``heads(images)``; the same are filled in.
    steps
        Steps of the generator.
    batch
        Images per step, over all processes together.
    holdout
        Share of the images that is kept out of training, to measure on; 0 keeps none. Of one seed and share they are
        those that trainer/classifier holds out.
    loss
        What the two play for: one of `genxai_core.adversarial.LOSSES`, such as non-saturating, minimax or
        wasserstein-gp.
    lambda_cls
        Weight of the class losses.
    lambda_sim
        Weight of the distance of an image to what it becomes.
    lambda_rec
        Weight of the distance of an image to what comes back.
    generator_lr
        Adam's learning rate for the generator.
    discriminator_lr
        Adam's learning rate for the discriminator.
    betas
        Adam's decay rates, for both.
    critic_steps
        Steps of the discriminator before each of the generator, each on images of its own.
    gradient_penalty
        Weight of ``(|∇D(x̂)| − 1)²`` between real and generated images; of wasserstein-gp alone.
    r1
        Weight γ of ``½|∇D(x)|²`` at real images, with any loss; 0 leaves it out.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """

    name: ClassVar[str] = "stargan"
    presets: ClassVar[Mapping[str, Settings]] = {
        "default": Settings(),
        "paper": Settings(
            loss="wasserstein-gp",
            lambda_rec=10.0,
            generator_lr=1e-4,
            discriminator_lr=1e-4,
            betas=(0.5, 0.999),
            critic_steps=5,
            r1=0.0,
        ),
    }

    preset: Preset = "default"

    @property
    def _preset(self) -> str:
        return self.preset

    @contextlib.contextmanager
    def _judge(self, data: Samples | Dataset, runtime: Runtime) -> Iterator[Judge]:
        names = tuple(data.class_names)
        if not names:
            labels = data[:].labels
            names = () if labels is None else tuple(str(i) for i in range(int(labels.max()) + 1))
        if len(names) < 2:
            raise InputError("trainer/stargan needs labelled data of at least two classes; use such a dataset")
        yield OwnHead(names)

    def _heads(self, judge: Judge) -> int:
        return judge.num_classes
