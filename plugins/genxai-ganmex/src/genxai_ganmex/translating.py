"""The training that both trainers share: a generator that translates, a discriminator, and whoever judges classes."""

from __future__ import annotations

import contextlib
import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from genxai_core import Dataset, Samples, Spec, Trained, Trainer, draws, models, saving
from genxai_core.adapt.modules import rescale
from genxai_core.adversarial import LOSSES, LossName, r1_penalty
from genxai_core.errors import InputError
from genxai_core.training import Loop

from .judging import Judge
from .measuring import measured

if TYPE_CHECKING:
    from genxai_core import Runtime

GENERATOR, DISCRIMINATOR = Spec("generator/stargan"), Spec("discriminator/stargan")


@dataclass(frozen=True)
class Settings:
    """What a preset decides; the trainers' documentation says what each is."""

    loss: LossName = "non-saturating"
    lambda_cls: float = 1.0
    lambda_sim: float = 0.0
    lambda_rec: float = 2.0
    generator_lr: float = 1e-3
    discriminator_lr: float = 1e-3
    betas: tuple[float, float] = (0.0, 0.99)
    critic_steps: int = 1
    gradient_penalty: float = 10.0
    r1: float = 1.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss {self.loss!r} is not one of {', '.join(get_args(LossName))}")
        for name in ("generator_lr", "discriminator_lr", "critic_steps"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be finite and above 0")
        for name in ("lambda_cls", "lambda_sim", "lambda_rec", "gradient_penalty", "r1"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be finite and not negative")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}; each must be at least 0 and below 1")


@dataclass(frozen=True, eq=False, kw_only=True)
class TranslationTrainer(Trainer):
    """Alternates steps of a discriminator with one of a generator that moves images to a class drawn for each.

    Of the images x of a batch, their classes c and the targets t, uniform over all classes and drawn by the seed and
    the image's number in the training, the generator minimises

        L_adv(D(G(x, t))) + λ_cls · CE(class(G(x, t)), t) + λ_sim · |x − G(x, t)| + λ_rec · |x − G(G(x, t), c)|

    with means over pixels, channels and images of absolute differences in the generator's range.
    """

    produces: ClassVar[Mapping[str, str]] = {"generator": "generator", "discriminator": "discriminator"}
    name: ClassVar[str]
    presets: ClassVar[Mapping[str, Settings]]

    generator: Spec = GENERATOR
    discriminator: Spec = DISCRIMINATOR
    steps: int = 1500
    batch: int = 64
    holdout: float = 0.2
    loss: LossName | None = None
    lambda_cls: float | None = None
    lambda_sim: float | None = None
    lambda_rec: float | None = None
    generator_lr: float | None = None
    discriminator_lr: float | None = None
    betas: tuple[float, float] | None = None
    critic_steps: int | None = None
    gradient_penalty: float | None = None
    r1: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout is {self.holdout}; it must be at least 0 and below 1")
        if self._preset not in self.presets:
            raise ValueError(f"preset {self._preset!r} is not one of {', '.join(self.presets)}")
        _ = self.settings  # refuses what is out of range

    @property
    def settings(self) -> Settings:
        """What the preset says, and what was given instead."""
        preset = self.presets[self._preset]
        given = {f.name: getattr(self, f.name) for f in fields(preset) if getattr(self, f.name) is not None}
        return dataclasses.replace(preset, **given)

    @property
    @abstractmethod
    def _preset(self) -> str:
        """The name of the preset."""

    @abstractmethod
    def _judge(self, data: Samples | Dataset, runtime: Runtime) -> contextlib.AbstractContextManager[Judge]:
        """Yield who judges classes, and leave what is not this training's own as it was."""

    @abstractmethod
    def _heads(self, judge: Judge) -> int:
        """Return the number of logits that the discriminator's class head must have; 0 where none is used."""

    def _about(self, judge: Judge) -> list[Any]:
        """Return plain values that tell this judge from another, for checkpoints."""
        return []

    def _fit(self, data: Samples | Dataset, runtime: Runtime) -> Trained:
        with self._judge(data, runtime) as judge:
            return self._trained(data, judge, runtime)

    def _trained(self, data: Samples | Dataset, judge: Judge, runtime: Runtime) -> Trained:
        s, loss = self.settings, LOSSES[self.settings.loss]
        train, held = self._split(len(data), runtime.seed)
        G, D = self._models(data, judge)
        judge.value_range = tuple(G.value_range)
        G.to(runtime.torch_device).train()
        D.to(runtime.torch_device).train()
        optimizers = {
            "generator": torch.optim.Adam(G.parameters(), lr=s.generator_lr, betas=s.betas),
            "discriminator": torch.optim.Adam(D.parameters(), lr=s.discriminator_lr, betas=s.betas),
        }
        loop = Loop(
            self.name,
            models={"generator": G, "discriminator": D},
            optimizers=optimizers,
            steps=self.steps,
            runtime=runtime,
            data=data,
            config=[
                {field.name: saving.describe(getattr(self, field.name)) for field in fields(self)},
                [len(data), *data.image_shape],
                self._about(judge),
            ],
        )
        share = runtime.shard(self.batch)

        def drawn(number: int) -> tuple[Tensor, Tensor, Tensor, range]:
            """Return images in the generator's range, their classes, targets, and the images' numbers."""
            chosen = draws.batch_indices(runtime.seed, number, self.batch, len(train))[share]
            batch = data[[train[j] for j in chosen]]
            rows = range(number * self.batch + share.start, number * self.batch + share.start + len(chosen))
            images = rescale(batch.images, data.value_range, G.value_range).to(runtime.torch_device)
            target = draws.integers(runtime.seed, rows, judge.num_classes, "targets").to(images.device)
            return images.detach(), judge.labels(batch, images), target, rows

        def step(i: int) -> Mapping[str, Tensor | float]:
            rate = min(1.0, 2 * (1 - i / self.steps))
            for name, first in (("generator", s.generator_lr), ("discriminator", s.discriminator_lr)):
                optimizers[name].param_groups[0]["lr"] = first * rate
            said: dict[str, Tensor | float] = {}
            for j in range(s.critic_steps):
                x, c, t, rows = drawn(i * s.critic_steps + j)
                with runtime.autocast():
                    last = j == s.critic_steps - 1
                    with contextlib.nullcontext() if last else torch.no_grad():
                        made = G(x, t).float()
                    costs = self._discriminator_costs(D, judge, x, c, made.detach(), t, rows, runtime.seed)
                loop.update("discriminator", torch.stack(list(costs.values())).sum())
                said |= {name: cost.detach() for name, cost in costs.items()}
            with frozen(D):
                with runtime.autocast():
                    source, class_loss = judge.on_generated(D, made, t, rows)
                    terms = {
                        "g_loss": loss.generator(source),
                        "g_class": s.lambda_cls * class_loss,
                        "g_similarity": s.lambda_sim * distance(x, made),
                    }
                    if s.lambda_rec:
                        terms["g_cycle"] = s.lambda_rec * distance(x, G(made, c).float())
                loop.update("generator", torch.stack(list(terms.values())).sum())
            return said | {name: term.detach() for name, term in terms.items()}

        history = loop.run(step)
        G.eval()
        D.eval()
        info: dict[str, Any] = {"steps": self.steps, "batch": self.batch, "preset": self._preset}
        info |= {name: saving.describe(value) for name, value in dataclasses.asdict(s).items()}
        info |= {"trained_on": len(train), "held_out": len(held)}
        if held:
            info |= self._measured(G, D, judge, data, held, runtime)
        return Trained({"generator": G.cpu(), "discriminator": D.cpu()}, history, info)

    def _discriminator_costs(
        self, D: nn.Module, judge: Judge, x: Tensor, c: Tensor, made: Tensor, t: Tensor, rows: range, seed: int
    ) -> dict[str, Tensor]:
        """Return what the discriminator minimises, weighted, by name."""
        s, loss = self.settings, LOSSES[self.settings.loss]
        x = x.detach().requires_grad_(s.r1 > 0)
        on_real, class_loss = judge.on_real(D, x, c)
        costs = {"d_loss": loss.discriminator(on_real, judge.source(D, made, t))}
        if class_loss is not None:
            costs["d_class"] = s.lambda_cls * class_loss
        if loss.penalty is not None and s.gradient_penalty > 0:
            mix = draws.uniform(seed, rows, (1, 1, 1), "interpolation").to(x.device)
            value = loss.penalty(lambda points: judge.source(D, points, t), x.detach(), made, mix)
            costs["gradient_penalty"] = s.gradient_penalty * value
        if s.r1 > 0:
            costs["r1"] = s.r1 * r1_penalty(on_real, x)
        return costs

    def _measured(
        self, G: nn.Module, D: nn.Module, judge: Judge, data: Samples | Dataset, held: list[int], runtime: Runtime
    ) -> dict[str, float]:
        """Measure the images that were held out."""
        made: Any = G
        batch = data[held].to(runtime.torch_device)
        low, high = made.value_range
        images = rescale(batch.images, data.value_range, (low, high))
        labels = judge.labels(batch, images)
        found = measured(
            made.translate,
            lambda x: judge.sees(D, x),
            images,
            labels,
            judge.num_classes,
            high - low,
            runtime.batch_size,
        )
        return {f"held_out_{name}": value for name, value in found.items()}

    def _split(self, n: int, seed: int) -> tuple[list[int], list[int]]:
        """Return the rows to train on and those held out: of one seed and share those of trainer/classifier."""
        order = [int(i) for i in draws.permutation(seed, 0, n, stream="holdout")]
        count = round(n * self.holdout)
        if count == n:
            raise InputError(f"trainer/{self.name}: {n} images with holdout {self.holdout} leave none to train on")
        return order[count:], order[:count]

    def _models(self, data: Samples | Dataset, judge: Judge) -> tuple[Any, Any]:
        """Build both models for these data and classes."""
        channels, height, side = data.image_shape
        if height != side:
            raise InputError(f"trainer/{self.name} needs square images, not {height}×{side}; crop or resize the data")
        classes = {"num_classes": judge.num_classes, "class_names": judge.class_names}
        G = self.generator.build(size=height, channels=channels, **classes)
        models.require(G, models.Translates, by=f"trainer/{self.name}")
        D = self.discriminator.build(size=height, channels=channels, num_classes=self._heads(judge))
        if tuple(G.value_range) != tuple(D.value_range):
            raise InputError(
                f"trainer/{self.name}: the generator {saving.name_of(G)} works in {tuple(G.value_range)}, the "
                f"discriminator {saving.name_of(D)} in {tuple(D.value_range)}; choose two of one range"
            )
        if getattr(G, "num_classes", None) != judge.num_classes:
            raise InputError(
                f"trainer/{self.name}: the generator {saving.name_of(G)} has {getattr(G, 'num_classes', 'no')} "
                f"classes, and there are {judge.num_classes}; leave num_classes out, or give that many"
            )
        if self._heads(judge) and not hasattr(D, "heads"):
            raise InputError(
                f"trainer/{self.name} needs a discriminator with a class head (heads(images) gives both logits), which "
                f"{saving.name_of(D)} has not; take discriminator/stargan"
            )
        return G, D


def distance(images: Tensor, others: Tensor) -> Tensor:
    """Return the mean absolute difference of ``[N, C, H, W]``, a scalar."""
    return (images - others).abs().mean()


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Switch ``requires_grad`` off for a block: gradients pass through the model, its weights get none."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
