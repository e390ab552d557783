"""Samples drawn from a model, as a dataset."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NoReturn

import torch
from torch import nn

from genxai_core import Dataset, Runtime, Samples, models
from genxai_core.errors import InputError
from genxai_core.guard import guard

NAME = "dataset/generated"


class Generated(Dataset):
    """Samples drawn from a model that can sample: ``Generated(n=64).load(model=generator)`` returns `Samples`.

    Image i depends on ``(seed, start + i)`` only, so ``start`` makes disjoint draws from one seed.

    Parameters
    ----------
    n
        How many images.
    seed
        Seed of the draw; by default the runtime's.
    start
        Number of the first draw.
    labels
        For class-conditional models: one class for all images, or n classes. By default the model chooses.

    Raises
    ------
    ValueError
        If n or start is out of bounds, or there are not n labels.
    """

    def __init__(
        self, n: int = 64, seed: int | None = None, start: int = 0, labels: int | tuple[int, ...] | None = None
    ) -> None:
        if n < 1:
            raise ValueError(f"n {n} must be at least 1")
        if start < 0:
            raise ValueError(f"start {start} must not be negative")
        if isinstance(labels, tuple) and len(labels) != n:
            raise ValueError(f"labels has {len(labels)} classes for {n} images; give one class, or one per image")
        self.n, self.seed, self.start = n, seed, start
        self.labels = (labels,) * n if isinstance(labels, int) else labels

    def load(self, *, model: nn.Module, runtime: Runtime | None = None) -> Samples:  # type: ignore[override]
        """Draw the images, in eval mode and without gradients, leaving the model as it was.

        Parameters
        ----------
        model
            A model with the capability CanSample. It draws on the device where it is.
        runtime
            Seed (where none was given), batch size, precision, progress.

        Returns
        -------
        Samples
            n samples on the CPU, in the model's value range.

        Raises
        ------
        MissingCapability
            If the model cannot sample, or labels are given and it is not conditional.
        InputError
            If a label is out of range, or the model returns something else than it was asked for.
        """
        models.require(model, models.CanSample, by=NAME)
        if not isinstance(model, nn.Module):
            raise InputError(
                f"{NAME} draws from a torch module, not a {type(model).__name__}; derive it from Generator"
            )
        self._check_labels(model)
        with guard(model), torch.no_grad():
            parts = list(self._batches(model, runtime or Runtime()))
            return Samples.concat(parts) if len(parts) > 1 else parts[0]

    def _check_labels(self, model: nn.Module) -> None:
        if self.labels is None:
            return
        classes = models.require(model, models.Conditional, by=f"{NAME} with labels").num_classes
        for label in self.labels:
            if not 0 <= label < classes:
                raise InputError(f"{NAME}: label {label} is out of range; the model's classes are 0…{classes - 1}")

    def _batches(self, model: nn.Module, runtime: Runtime) -> Iterator[Samples]:
        seed = runtime.seed if self.seed is None else self.seed
        first = next((t for t in (*model.parameters(), *model.buffers())), None)
        device = None if first is None else first.device
        with runtime.progress("generated", self.n) as advance:
            for begin in range(0, self.n, runtime.batch_size):
                count = min(runtime.batch_size, self.n - begin)
                labels = None
                if self.labels is not None:
                    labels = torch.tensor(self.labels[begin : begin + count], device=device)
                with runtime.autocast():
                    batch = model.sample(count, seed, labels=labels, start=self.start + begin)  # type: ignore[operator]
                yield _checked(batch, count, model)
                advance(count)

    def __len__(self) -> int:
        self._refuse()

    def _samples(self, rows: list[int]) -> Samples:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"{NAME} holds no images until it has drawn them: use Generated(n={self.n}).load(model=…), "
            f"or in a pipeline call: {{model: $step.generator}}"
        )


def _checked(batch: Samples, count: int, model: nn.Module) -> Samples:
    name = type(model).__name__
    if not isinstance(batch, Samples) or len(batch) != count:
        got = f"{len(batch)} samples" if isinstance(batch, Samples) else type(batch).__name__
        raise InputError(f"{NAME}: {name}.sample({count}, …) returned {got}; it must return Samples of that length")
    total = float(batch.images.sum(dtype=torch.float32))  # seven times as fast as looking at each value
    if not math.isfinite(total) and not bool(torch.isfinite(batch.images).all()):
        raise InputError(f"{NAME}: {name} draws images with NaN or infinity; its training diverged, or its weights did")
    batch = batch.to("cpu")
    return replace(batch, images=batch.images.float())  # mixed precision ends here
