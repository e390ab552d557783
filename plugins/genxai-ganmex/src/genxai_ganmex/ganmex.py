"""GANMEX: StarGAN whose class head is the frozen classifier that is to be explained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from genxai_core import Discriminator, Spec, saving
from genxai_core.adversarial import LossName as LossName  # an inherited annotation is resolved in this module
from genxai_core.errors import InputError
from genxai_core.guard import guard

from .judging import Frozen, Judge, fingerprint
from .translating import Settings, TranslationTrainer

if TYPE_CHECKING:
    from genxai_core import Dataset, Runtime, Samples

Preset = Literal["default", "lecture", "paper"]


@dataclass(frozen=True)
class FrozenSettings(Settings):
    """What a preset of this trainer decides besides."""

    matched: bool = False
    shift: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shift < 0 or not 0 <= self.noise < float("inf"):
            raise ValueError(f"shift ({self.shift}) and noise ({self.noise}) must be finite and not negative")


@dataclass(frozen=True, eq=False, kw_only=True)
class GANMEXTrainer(TranslationTrainer):
    """Trains a generator that moves images to any class of a given classifier, near to where they were.

    Shih, Tien and Karnin, "GANMEX: One-vs-One Attributions Guided by GAN-based Counterfactual Explanation Baselines",
    ICML 2021, arXiv:2011.06015: StarGAN whose class head is the classifier S under explanation. S is never trained and
    never changed, and comes back bit for bit as it was; only the source head D learns. With targets t that are drawn
    uniformly, and c the class that S sees in x, the generator minimises

        L_adv(D(G(x, t))) + λ_cls · CE(S(G(x, t)), t) + λ_sim · |x − G(x, t)| + λ_rec · |x − G(G(x, t), c)|

    with means of absolute differences over pixels, channels and images, in the generator's range. No labels are
    needed. Images are brought from the range of the data to that of the generator and of S; a classifier of one logit
    has two classes, the opposite first. Both learning rates fall linearly to zero over the second half.

    A generator can please S without painting the class (an adversarial change). Two things of ours stand against it.
    ``matched`` judges the source together with the class, by both heads of the discriminator: s(x) + c_t(x), as a
    projection discriminator does (Miyato and Koyama, ICLR 2018), so that a 3 that S takes for an 8 is no realistic 8.
    ``shift`` and ``noise`` take half of the class loss on a copy that is moved and noisy.

    `fit` returns ``generator`` and ``discriminator``; the history holds each term, weighted, before its step. ``info``
    says what held-out images do, as S sees them: ``held_out_flips`` and the rest of
    `genxai_ganmex.measuring.measured`. Whether the changes are more than adversarial, S cannot say: ask a classifier
    that this training never saw.

    Parameters
    ----------
    classifier
        The classifier under explanation: any discriminator, or its recipe. In a pipeline ``$step.classifier``, or
        ``{use: discriminator/classifier, with: {pretrained: digits}}``.
    preset
        What the parameters are that are not given. ``default``: for small images on a laptop. ``lecture``:
        E[log(1 − D(G(x, t)))] − λ_cls · log S_t(G(x, t)) + λ_sim · |x − G(x, t)|, nothing else. ``paper``: Wasserstein
        loss with a gradient penalty, λ_cls 1000, λ_sim 100, rates 2e-5 and 1e-4, betas 0.9 and 0.999 as the authors'
        code has them, neither ``matched`` nor copies.
    generator
        A generator with ``translate``; size and channels of the data, classes and their names of the classifier are
        filled in.
    discriminator
        A discriminator with a single logit, and with ``heads(images)`` where it is ``matched``; the same are filled in.
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
        Weight of the class loss.
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
    matched
        Whether source and class are judged together.
    shift
        The copy is moved by up to so many pixels, rows and columns each.
    noise
        Standard deviation of the copy's noise, as a share of the value range.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """

    name: ClassVar[str] = "ganmex"
    presets: ClassVar[Mapping[str, Settings]] = {
        "default": FrozenSettings(lambda_cls=1.0, lambda_sim=2.0, lambda_rec=1.0, matched=True, shift=1, noise=0.05),
        "lecture": FrozenSettings(loss="minimax", lambda_cls=1.0, lambda_sim=10.0, lambda_rec=0.0, r1=0.0),
        "paper": FrozenSettings(
            loss="wasserstein-gp",
            lambda_cls=1000.0,
            lambda_sim=100.0,
            lambda_rec=0.0,
            generator_lr=2e-5,
            discriminator_lr=1e-4,
            betas=(0.9, 0.999),
            r1=0.0,
        ),
    }

    classifier: Spec | Discriminator
    preset: Preset = "default"
    matched: bool | None = None
    shift: int | None = None
    noise: float | None = None

    @property
    def _preset(self) -> str:
        return self.preset

    @contextlib.contextmanager
    def _judge(self, data: Samples | Dataset, runtime: Runtime) -> Iterator[Judge]:
        with guard():  # what building it draws changes nothing of what is trained
            made: Any = self.classifier.build() if isinstance(self.classifier, Spec) else self.classifier
        if not isinstance(made, Discriminator):
            raise InputError(f"trainer/ganmex: the classifier is a {type(made).__name__}, not a Discriminator")
        if made.image_shape is not None and tuple(made.image_shape) != tuple(data.image_shape):
            raise InputError(
                f"trainer/ganmex: the classifier {saving.name_of(made)} takes images {tuple(made.image_shape)}, the "
                f"data are {tuple(data.image_shape)}; give both the same size and channels"
            )
        s = self._frozen
        with guard(made):
            made.to(runtime.torch_device)
            yield Frozen(made, matched=s.matched, shift=s.shift, noise=s.noise, seed=runtime.seed)

    @property
    def _frozen(self) -> FrozenSettings:
        found = self.settings
        assert isinstance(found, FrozenSettings)
        return found

    def _heads(self, judge: Judge) -> int:
        return judge.num_classes if self._frozen.matched else 0

    def _about(self, judge: Judge) -> list[Any]:
        assert isinstance(judge, Frozen)
        return [fingerprint(judge.classifier)]
