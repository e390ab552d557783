"""Training by maximum likelihood, or by a bound on it: what the trainers of models with a density share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from genxai_core import Dataset, Generator, Runtime, Samples, Spec, Trained, Trainer, draws, saving
from genxai_core.errors import InputError
from genxai_core.training import Loop

from .holdout import channels_and_side, split

Draw = Callable[[Callable[..., Tensor], tuple[int, ...], str], Tensor]
"""Draws ``[images, *shape]`` by a function of `genxai_core.draws`: for the whole batch at once, of which each process
takes its share, which is faster than image by image and does not depend on the number of processes either."""


class LikelihoodTrainer(Trainer):
    """Adam on the mean loss of batches, and the log density of images that the model never saw.

    Which images are held out, the order of the others and the noise of a step depend on the seed only, and each process
    of several takes an equal share of every batch. The images that are held out are those of ``trainer/classifier``.
    """

    produces = {"generator": "generator"}
    name: ClassVar[str]
    family: ClassVar[type[Generator]]

    def __init__(self, model: Spec, steps: int, batch: int, lr: float, holdout: float) -> None:
        if steps < 1 or batch < 1 or not lr > 0:
            raise ValueError(f"steps ({steps}), batch ({batch}) and lr ({lr}) must be positive")
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout {holdout} must be at least 0 and below 1")
        self.model, self.steps, self.batch, self.lr, self.holdout = model, steps, batch, lr, holdout

    @abstractmethod
    def _losses(self, model: Any, images: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Return means over a batch; ``loss`` is what is minimised. Noise is taken from ``draw``."""

    def _prepare(self, model: Any, data: Samples | Dataset, train: list[int]) -> None:
        """Take from the training images what a model must know before the first step; nothing by default."""

    def _said(self) -> list[Any]:
        """Return what beside the parameters of this class tells this training from another."""
        return []

    def _fit(self, data: Samples | Dataset, runtime: Runtime) -> Trained:
        train, held = split(len(data), self.holdout, runtime.seed, f"trainer/{self.name}")
        share = runtime.shard(self.batch)
        model = self._build(data).to(runtime.torch_device)
        self._prepare(model, data, train)
        model.train()
        adam = torch.optim.Adam(model.parameters(), lr=self.lr)
        said = [saving.describe(self.model), self.batch, self.lr, self.holdout, *self._said()]
        loop = Loop(
            self.name,
            models={"generator": model},
            optimizers={"generator": adam},
            steps=self.steps,
            runtime=runtime,
            config=said,
            data=data,
        )

        def step(i: int) -> dict[str, Tensor]:
            chosen = draws.batch_indices(runtime.seed, i, self.batch, len(train))[share]
            images = data[[train[j] for j in chosen]].images.to(runtime.torch_device)
            adam.param_groups[0]["lr"] = self.lr * (1 - i / self.steps)

            def draw(distribution: Callable[..., Tensor], shape: tuple[int, ...], stream: str) -> Tensor:
                return distribution(runtime.seed, [i], (self.batch, *shape), stream)[0][share].to(images.device)

            with runtime.autocast():
                losses = self._losses(model, images, draw)
            loop.update("generator", losses["loss"])
            return {name: value.detach() for name, value in losses.items()}

        history = loop.run(step)
        model.eval()
        info: dict[str, float] = {
            "steps": self.steps,
            "batch": self.batch,
            "trained_on": len(train),
            "held_out": len(held),
        }
        if held:
            info["held_out_log_prob"] = _mean_log_prob(model, data, held, runtime)
        return Trained({"generator": model.cpu()}, history, info)

    def _build(self, data: Samples | Dataset) -> Any:
        """Build the model for the images of the data."""
        channels, side = channels_and_side(data, f"trainer/{self.name}")
        model = self.model.build(size=side, channels=channels, value_range=data.value_range)
        if not isinstance(model, self.family):
            raise InputError(f"trainer/{self.name} trains a generator/{self.name}, not {self.model.use}")
        if tuple(model.value_range) != tuple(data.value_range):
            raise InputError(
                f"trainer/{self.name}: the images are in {tuple(data.value_range)}, the model is told "
                f"{tuple(model.value_range)}; leave its value_range out, or use samples.rescale(…)"
            )
        return model


@torch.no_grad()
def _mean_log_prob(model: Any, data: Samples | Dataset, rows: list[int], runtime: Runtime) -> float:
    """Mean of ``log_prob`` over rows, in nats."""
    total = 0.0
    for start in range(0, len(rows), runtime.batch_size):
        images = data[rows[start : start + runtime.batch_size]].images.to(runtime.torch_device)
        total += float(model.log_prob(images).double().sum())
    return total / len(rows)
