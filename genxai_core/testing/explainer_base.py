"""What the checks of explainers share: which model and which inputs, and what must be left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from .. import models
from ..runtime import Runtime
from ..samples import Samples
from .contract import ComponentTests
from .data import PatchDataset
from .expectations import expect, failure
from .models import ConstantDiscriminator, LinearGenerator, PatchDiscriminator, planted_images
from .planted import TwoPatches
from .states import State, changed, environment, state_of

Sign = Literal["signed", "positive", "unsigned"]

MEND_GUARD = (
    "write `_explain` only and leave `explain` to the base class, whose guard restores the model; what a helper object "
    "holds (its own hooks, its own copy of a generator) must be undone by the explainer, in a `finally`"
)


class ExplainerBase(ComponentTests):
    """Traits, model and inputs of an explainer's conformance class; `ExplainerTests` documents them."""

    kind: ClassVar[str] = "explainer"
    shapes: ClassVar[str] = "'maps [N, H, W], in logits'"
    target_index: ClassVar[int | None] = None
    sign: ClassVar[Sign] = "signed"
    sign_reason: ClassVar[str] = ""
    inside: ClassVar[float] = 0.5
    monte_carlo: ClassVar[float] = 0.0
    cuda_tolerance: ClassVar[float] = 1e-3

    # -- what an author may override ------------------------------------------------------------------------------

    def model(self) -> Any:
        """Return a new model to explain, in eval mode, or None if it brings its own; called anew by every check."""
        explains = self.target().explains
        if explains == "nothing":
            return None
        if explains == "discriminator":
            return PatchDiscriminator().eval()
        generator = LinearGenerator().eval()
        if explains == "generator":
            return generator
        capability: Any = getattr(models, explains, ())
        offered: bool = isinstance(generator, capability)
        if offered:
            return generator
        raise failure(
            f"{self.component}: explains = {explains!r}, of which the kit has no tiny model",
            "override model(self) in the conformance class, and return a small one",
        )

    def inputs(self) -> Any:
        """Return inputs for the model, of the form that ``accepts`` names; at least three, if they are counted."""
        accepts = self.target().accepts
        if accepts == "nothing":
            return None
        if accepts == "latents":
            return LinearGenerator().sample_latents(5, seed=0)
        if accepts == "images":
            return planted_images(5)
        return PatchDataset(12) if accepts == "dataset" else PatchDataset(5)[:]

    def planted(self, sign: float) -> tuple[nn.Module, Samples]:
        """Return a discriminator, and images whose first mask is all that moves its logit: up for sign 1, down for -1.

        Override it for an explainer of images of another size, or of models with a certain layer.
        """
        mask = PatchDiscriminator().inside.expand(5, 1, 16, 16).clone()
        samples = Samples(planted_images(5), masks=mask, value_range=(-1.0, 1.0), concepts=("patch",))
        return PatchDiscriminator(sign=sign).eval(), samples

    def two_targets(self, height: int, width: int) -> tuple[nn.Module, Samples]:
        """Return a discriminator of two logits, and colour images of which mask k is all that moves logit k.

        Patches are aligned to 4 px. Override it for an explainer of models with a certain layer.
        """
        model = TwoPatches(height, width).eval()
        return model, model.images(5)

    def constant(self) -> nn.Module:
        """Return a discriminator of the images of `planted` whose logit is constant."""
        return ConstantDiscriminator().eval()

    # -- what the checks use --------------------------------------------------------------------------------------

    def explain(self, model: Any, inputs: Any, explainer: Any = None, **runtime: Any) -> Any:
        """Explain on the CPU with seed 0, unless told otherwise."""
        runtime = {"device": "cpu", "seed": 0, "quiet": True, **runtime}
        explainer = explainer or self.build()
        return explainer.explain(model, inputs, target=self.target_index, runtime=Runtime(**runtime))

    @property
    def counts(self) -> bool:
        """Whether there is a row for each input."""
        return self.target().accepts in ("images", "latents", "samples")

    @contextmanager
    def untouched(self, *models: nn.Module | None, when: str) -> Iterator[None]:
        """Fail if models, or the global generators and flags, are not as they were when the block ends."""
        held = [model for model in models if model is not None]
        before: State = {**state_of(*held), **environment()}
        try:
            yield
        finally:
            wrong = changed(before, {**state_of(*held), **environment()})
        expect(not wrong, f"{self.component} changed, {when}: {'; '.join(wrong[:6])}", MEND_GUARD)

    def used_model(self) -> Any:
        """Return a model as somebody may have it in the middle of training: gradients, train mode, a frozen weight."""
        model = self.model()
        if model is None:
            return None
        model.train()
        parameters = list(model.parameters())
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.5)
        for parameter in parameters[:1]:
            parameter.requires_grad_(False)
        return model
