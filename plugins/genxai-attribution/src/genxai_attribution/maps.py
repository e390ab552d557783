"""What the explainers of this distribution share that are one function from images to maps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from genxai_core import Attribution, Discriminator, Explainer, Runtime

from .baselines import Reference
from .logits import logit


class Call(NamedTuple):
    """How one call runs: images that pass through the model at once, and the seed of what is drawn."""

    at_once: int
    seed: int = 0

    def chunks(self, total: int, images: int) -> Iterator[range]:
        """Divide ``total`` repetitions of a batch of ``images``, so that at most ``at_once`` images pass at once."""
        step = max(1, self.at_once // max(1, images))
        for start in range(0, total, step):
            yield range(start, min(total, start + step))


class Maps(Explainer):
    """Base: an author writes `_maps`; `attribute` and `explain` follow from it.

    Attributes
    ----------
    complete
        Whether the maps promise to sum to f(x) − f(b); then the result carries ``delta``.
    passes
        Images that pass together for each image explained.
    """

    explains, accepts, returns = "discriminator", "images", Attribution
    complete: ClassVar[bool] = False
    passes: ClassVar[int] = 1

    @abstractmethod
    def _maps(self, model: Discriminator, images: Tensor, target: int, call: Call) -> Tensor:
        """Return maps ``[N, H, W]`` or ``[N, C, H, W]``; whatever the mode of the model and of autograd."""

    def _reference(self) -> Reference | None:
        """The baseline, for the methods that have one."""
        return None

    def _references(self) -> int:
        """How many references an image is compared with."""
        return 1

    def _notes(self) -> dict[str, Any]:
        """What a reader of the picture should know."""
        return {}

    def attribute(self, model: Discriminator, images: Tensor, target: int) -> Tensor:
        """Return the maps alone, detached: no guard, the model in its present mode, its hooks and gradients untouched.

        What is drawn is drawn from seed 0 and the same at every call; the global generators do not move.

        Raises
        ------
        TargetError
            If the model has no such logit.
        InputError
            If the method does not apply to the model; the message says why.
        """
        return self._maps(model, images.detach(), target, Call(self.passes * len(images))).detach()

    def _explain(
        self, model: Discriminator, images: Tensor, target: int | None, runtime: Runtime | None = None
    ) -> Attribution:
        target = target or 0
        runtime = runtime or Runtime()
        call = Call(max(runtime.batch_size, len(images)), runtime.seed)
        maps = self._maps(model, images, target, call).detach()
        found: dict[str, Any] = {"notes": self._notes()}
        reference = self._reference()
        if reference is not None:
            found["notes"] = {"baseline": reference.name, **found["notes"]}
            found |= self._compared(model, images, target, maps, reference, call.seed)
        return Attribution(maps=maps, target=target, **found)

    def _compared(
        self, model: Discriminator, images: Tensor, target: int, maps: Tensor, reference: Reference, seed: int
    ) -> dict[str, Any]:
        count = reference.count(self._references())
        with torch.no_grad():
            logits = logit(model, images, target)
            total = torch.zeros_like(logits, dtype=torch.float64)
            for index in range(count):
                baseline = reference.at(index, images, model.value_range, seed)
                total += logit(model, baseline, target).double()
        found: dict[str, Any] = {"logits": logits}
        if count == 1:
            found["baseline"] = baseline
        if self.complete:
            gap = logits.double() - total / count
            found["delta"] = (maps.double().flatten(1).sum(1) - gap).to(maps.dtype)
        return found
