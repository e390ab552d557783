"""The adversarial training that both trainers share. What an explanation adds to it is a `Guide`."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from genxai_core import Dataset, Samples, Spec, Trained, Trainer, draws, models, saving
from genxai_core.adversarial import LOSSES, LossName, check_smoothing, r1_penalty
from genxai_core.errors import InputError
from genxai_core.training import Loop

from .conditioning import classes, given

if TYPE_CHECKING:
    from genxai_core import Discriminator, Runtime


GENERATOR, DISCRIMINATOR = Spec("generator/dcgan"), Spec("discriminator/dcgan")


class Guide(Protocol):
    """Takes part in the generator's step, between its forward and its backward pass."""

    def __call__(
        self, step: int, images: Tensor, logits: Tensor, labels: Tensor | None
    ) -> Mapping[str, Tensor | float]:
        """Hook the generated images, whose logits, and labels where there are any, are given; return a record.

        The record goes to the history. It is complete once the backward pass is through.
        """
        ...

    def info(self, history: Mapping[str, list[float]]) -> Mapping[str, Any]:
        """Return plain values on how the training was guided."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class AdversarialTrainer(Trainer):
    """Alternates one step of the discriminator with one of the generator; a subclass says what guides the latter.

    Both steps of an iteration use the same generated images, so the generator runs forward once. Where the models are
    conditional, generated image i has the label of real image i: labels come with the frequencies of the data, and what
    lies between the two is between images of one class.
    """

    produces: ClassVar[Mapping[str, str]] = {"generator": "generator", "discriminator": "discriminator"}
    name: ClassVar[str]

    generator: Spec = GENERATOR
    discriminator: Spec = DISCRIMINATOR
    steps: int = 600
    batch: int = 64
    generator_lr: float = 2e-3
    discriminator_lr: float = 2e-3
    betas: tuple[float, float] = (0.0, 0.9)
    loss: LossName = "non-saturating"
    gradient_penalty: float = 10.0
    r1: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "generator_lr", "discriminator_lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}; each must be at least 0 and below 1")
        if self.loss not in LOSSES:
            raise ValueError(f"loss {self.loss!r} is not one of {', '.join(get_args(LossName))}")
        for name in ("gradient_penalty", "r1"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be finite and not negative")
        check_smoothing(self.loss, self.label_smoothing)
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; it must be at least 0 and below 1")

    @abstractmethod
    def _guide(self, discriminator: Discriminator, data: Samples | Dataset, runtime: Runtime) -> Guide:
        """Return what guides the generator's steps."""

    def _fit(self, data: Samples | Dataset, runtime: Runtime) -> Trained:
        G, D = self._models(data)
        G.to(runtime.torch_device).train()
        D.to(runtime.torch_device).train()
        guide, loss = self._guide(D, data, runtime), LOSSES[self.loss]
        averaged = AveragedModel(G, multi_avg_fn=self._average) if self.ema else None
        loop = Loop(
            self.name,
            models={"generator": G, "discriminator": D} | ({"average": averaged} if averaged is not None else {}),
            optimizers={
                "generator": torch.optim.Adam(G.parameters(), lr=self.generator_lr, betas=self.betas),
                "discriminator": torch.optim.Adam(D.parameters(), lr=self.discriminator_lr, betas=self.betas),
            },
            steps=self.steps,
            runtime=runtime,
            config={field.name: saving.describe(getattr(self, field.name)) for field in fields(self)},
            data=data,
        )
        mine = runtime.shard(self.batch)

        def step(i: int) -> Mapping[str, Tensor | float]:
            rows = draws.batch_indices(runtime.seed, i, self.batch, len(data))[mine]
            batch = data[rows]
            real = batch.images.to(runtime.torch_device).detach().requires_grad_(self.r1 > 0)
            labels = self._labels(batch).to(runtime.torch_device) if classes(G) else None
            judge = given(D, labels)
            first = i * self.batch + mine.start
            latents = G.sample_latents(len(rows), runtime.seed, start=first)
            with runtime.autocast():
                latents = latents.to(runtime.torch_device)
                fake = (G(latents) if labels is None else G(latents, labels)).float()
                _same_shape(G, fake, data)
                on_real, on_fake = _logits(judge, real), _logits(judge, fake.detach())
                penalties = self._penalties(
                    judge, real, fake.detach(), on_real, range(first, first + len(rows)), runtime.seed
                )
            d_loss = loss.discriminator(on_real, on_fake, self.label_smoothing)
            loop.update("discriminator", d_loss + sum(penalties.values()))
            with frozen(D):
                with runtime.autocast():
                    judged = _logits(judge, fake)
                    g_loss = loss.generator(judged)
                guided = guide(i, fake, judged, labels)
                loop.update("generator", g_loss)
            if averaged is not None:
                averaged.update_parameters(G)
            means = {"logit_real": on_real.detach().mean(), "logit_fake": on_fake.detach().mean()}
            costs = {name: penalty.detach() for name, penalty in penalties.items()}
            return {"d_loss": d_loss.detach(), "g_loss": g_loss.detach(), **means, **costs, **guided}

        history = loop.run(step)
        info = {"steps": self.steps, "batch": self.batch, **guide.info(history)}
        made = G if averaged is None else averaged.module
        return Trained({"generator": made.eval().cpu(), "discriminator": D.eval().cpu()}, history, info)

    @torch.no_grad()
    def _average(self, averages: Sequence[Tensor], weights: Sequence[Tensor], seen: Tensor | int) -> None:
        """Move the averages towards the weights: by 9 / (10 + n) at first, in the end by 1 − ema."""
        decay = min(self.ema, (1 + float(seen)) / (10 + float(seen)))
        for average, weight in zip(averages, weights):
            average.lerp_(weight, 1 - decay)

    def _penalties(
        self, discriminator: nn.Module, real: Tensor, fake: Tensor, on_real: Tensor, images: range, seed: int
    ) -> dict[str, Tensor]:
        """Return the discriminator's weighted penalties; the points between pairs depend on seed and image only."""
        penalties = {}
        between = LOSSES[self.loss].penalty
        if between is not None and self.gradient_penalty > 0:
            mix = draws.uniform(seed, images, (1, 1, 1), "interpolation").to(real.device)
            value = between(lambda points: _logits(discriminator, points), real, fake, mix)
            penalties["gradient_penalty"] = self.gradient_penalty * value
        if self.r1 > 0:
            penalties["r1"] = self.r1 * r1_penalty(on_real, real)
        return penalties

    def _models(self, data: Samples | Dataset) -> tuple[Any, Any]:
        """Build both models for these data: conditional only where the generator is told a number of classes."""
        channels, height, width = data.image_shape
        if height != width:
            raise InputError(f"trainer/{self.name} needs square images, not {height}×{width}; crop or resize the data")
        wanted = self.generator.params.get("num_classes")
        if wanted:
            self._check_classes(wanted, data)
        named = {"class_names": data.class_names} if wanted else {}
        G = self.generator.build(size=height, channels=channels, **named)
        models.require(G, models.HasLatents, by=f"trainer/{self.name}")
        conditional = {"num_classes": classes(G)} if classes(G) else {}
        D = self.discriminator.build(size=height, channels=channels, **conditional)
        self._check_conditioning(G, D, data)
        for role, model in (("generator", G), ("discriminator", D)):
            if tuple(model.value_range) != tuple(data.value_range):
                raise InputError(
                    f"trainer/{self.name}: the data lie in {tuple(data.value_range)}, the {role} "
                    f"{saving.name_of(model)} works in {tuple(model.value_range)}; rescale the data "
                    f"(Samples.rescale) or choose another {role}"
                )
        return G, D

    def _check_conditioning(self, generator: nn.Module, discriminator: nn.Module, data: Samples | Dataset) -> None:
        """Refuse two models that are not conditional on the same classes, and data without their labels."""
        made, judged = classes(generator), classes(discriminator)
        if made != judged or (made and not hasattr(discriminator, "given")):
            raise InputError(
                f"trainer/{self.name}: the generator {saving.name_of(generator)} has {made} classes, the discriminator "
                f"{saving.name_of(discriminator)} {judged} (0 is unconditional); give both the same num_classes, and "
                f"take a discriminator that offers given(labels=…)"
            )
        if made:
            self._check_classes(made, data)

    def _check_classes(self, num_classes: int, data: Samples | Dataset) -> None:
        """Refuse data without labels, or of another number of classes."""
        self._labels(data[:1])
        if data.class_names and len(data.class_names) != num_classes:
            raise InputError(
                f"trainer/{self.name}: the data have {len(data.class_names)} classes, num_classes is {num_classes}; "
                f"give num_classes: {len(data.class_names)}"
            )

    def _labels(self, samples: Samples) -> Tensor:
        if samples.labels is None:
            raise InputError(
                f"trainer/{self.name}: the models are conditional, and the data have no labels; "
                f"take data with labels, or leave num_classes out"
            )
        return samples.labels


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


def _logits(discriminator: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = discriminator(images)
    if logits.shape != (len(images), 1):
        raise InputError(
            f"adversarial training needs one logit per image, [{len(images)}, 1], and {saving.name_of(discriminator)} "
            f"gives {list(logits.shape)}; reduce it with genxai_core.adapt.discriminator"
        )
    return logits.float()


def _same_shape(generator: nn.Module, images: Tensor, data: Samples | Dataset) -> None:
    if images.shape[1:] != data.image_shape:
        raise InputError(
            f"the generator {saving.name_of(generator)} makes images {tuple(images.shape[1:])}, "
            f"the data are {data.image_shape}; give both the same size and channels"
        )
