"""What an explainer leaves alone, and what it refuses: the model, the inputs, and inputs that are wrong."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import models
from ..errors import GenxaiWarning, InputError, MissingCapability, TargetError, one_line
from ..guard import guard
from ..interfaces import Attributes, Dataset, _modules
from ..models import Discriminator
from ..samples import Samples
from .expectations import expect, expect_error, failure
from .explainer_base import ExplainerBase
from .models import LinearGenerator, PatchDiscriminator
from .states import bits, changed, state_of, tensors_in

_MEND_INPUTS = (
    "leave `explain` to the base class, which checks images and latents; an explainer of a whole dataset checks what "
    "it reads, and raises InputError in one line: what, where, how to mend it"
)


class BrokenModelError(Exception):
    """What a model raises that the kit broke: no code expects it."""


class SafetyChecks(ExplainerBase):
    """The checks of `ExplainerTests` that concern what is left alone and what is refused."""

    # -- left alone -----------------------------------------------------------------------------------------------

    def test_inputs_are_not_written_into(self) -> None:
        """Neither their values nor their gradient flags change."""
        inputs = self.inputs()
        if inputs is None:
            self.skip("takes no inputs")
        held = list(tensors_in(inputs[:] if isinstance(inputs, Dataset) else inputs, "inputs"))
        before = [(name, bits(t), t.requires_grad) for name, t in held]
        self.explain(self.model(), inputs)
        now = list(tensors_in(inputs[:] if isinstance(inputs, Dataset) else inputs, "inputs"))
        wrong = [n for (n, b, r), (_, t) in zip(before, now) if (bits(t), t.requires_grad, t.grad) != (b, r, None)]
        expect(
            not wrong,
            f"{self.component} wrote into {', '.join(wrong)}, or made it require a gradient",
            "work on a copy: images.clone(), images.detach().requires_grad_()",
        )

    def test_the_model_is_left_as_it_was(self) -> None:
        """Weights, gradients, buffers, flags and hooks, and the global generators, bit for bit."""
        model, explainer, inputs = self.used_model(), self.build(), self.inputs()
        with self.untouched(model, *_modules(explainer), when="explaining"):
            self.explain(model, inputs, explainer)

    def test_the_model_is_left_as_it_was_after_a_bad_target(self) -> None:
        """A class that the model does not have is refused as TargetError, and nothing has changed."""
        if self.target().accepts in ("latents", "nothing") or not isinstance(self.model(), Discriminator):
            self.skip("its target is not one of a discriminator's outputs for given images")
        model, explainer, inputs = self.used_model(), self.build(), self.inputs()
        mend = "leave `explain` to the base class, which checks the target against the model's outputs"
        with self.untouched(model, *_modules(explainer), when="refusing a target"):
            for target in (10_000, -1, "first"):
                call = _later(explainer, model, inputs, target)
                expect_error(TargetError, call, f"{self.component} with target {target!r}", mend)

    def test_the_model_is_left_as_it_was_after_it_raised(self) -> None:
        """A model that raises at its first, second or third call: the error reaches the user, and no hook stays."""
        explainer, raised = self.build(), 0
        for nth in (1, 2, 3):
            model, inputs = self.used_model(), self.inputs()
            broken = self._break(model, nth)
            with self.untouched(model, *_modules(explainer), when=f"when the model raised at its call {nth}"):
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", GenxaiWarning)  # of maps of zero, which swallowing makes
                        self.explain(model, inputs, explainer)
                except Exception as error:
                    if not broken:
                        raise failure(
                            f"{self.component} raised {one_line(error)}, though the model raised nothing",
                            "mend this first: it cannot explain the kit's inputs at all (or override model and inputs)",
                        ) from error
                    raised += 1
                    causes: list[BaseException | None] = [error]
                    while causes[-1] is not None:
                        causes.append(causes[-1].__cause__)
                    if not any(isinstance(e, BrokenModelError) for e in causes):
                        raise failure(
                            f"{self.component} hid what the model raised behind {one_line(error)}",
                            "let it pass, or chain it: raise … from error",
                        ) from error
                else:
                    if broken:
                        raise failure(
                            f"{self.component} swallowed an error that the model raised at its call {nth}",
                            "catch no errors of the model: what is made of them looks like a result",
                        )
        if not raised:
            self.skip("does not call the model")

    def test_attribute_leaves_no_trace_when_the_model_raises(self) -> None:
        """``attribute`` works without a guard, inside training steps: what it hooks, it unhooks, whatever happens."""
        explainer = self.build()
        if not isinstance(explainer, Attributes):
            self.skip("has no attribute(model, images, target): nothing of it can stay on a model in training")
        inputs = self.inputs()
        images = inputs.images if isinstance(inputs, Samples) else inputs
        for nth in (1, 2):
            model: Any = self.model().requires_grad_(True).eval()
            self._break(model, nth)
            before = state_of(model)
            with guard(), contextlib.suppress(BrokenModelError):
                explainer.attribute(model, images, self.target_index or 0)
            wrong = changed(before, state_of(model))
            expect(
                not wrong,
                f"{self.component}: attribute changed, when the model raised at its call {nth}: {'; '.join(wrong[:6])}",
                "hook by a context manager, or remove hooks in a `finally`; captum and grad-cam leave theirs behind",
            )

    def _break(self, model: nn.Module, nth: int) -> list[int]:
        """Let the n-th call of the model raise, after its layers (and hooks on them) have run; say whether it did."""
        capability = getattr(models, self.target().explains, None)
        names = {"forward", *(models.methods(capability) if capability else ())}
        calls = 0
        raised: list[int] = []

        def breaking(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal calls
                calls += 1
                mine = calls
                result = original(*arguments, **named)
                if mine == nth:
                    raised.append(nth)
                    raise BrokenModelError(f"the model raised at call {nth}, as the check made it")
                return result

            return call

        for name in names:
            if hasattr(model, name):
                object.__setattr__(model, name, breaking(getattr(model, name)))
        return raised

    # -- refused --------------------------------------------------------------------------------------------------

    def test_a_model_that_lacks_what_it_needs_is_refused(self) -> None:
        """Another kind of model (any, where it brings its own) is an InputError, a missing capability its own error."""
        explains, inputs = self.target().explains, self.inputs()
        other: nn.Module = LinearGenerator() if explains == "discriminator" else PatchDiscriminator()
        error = InputError if explains in ("discriminator", "generator", "nothing") else MissingCapability
        if error is MissingCapability:
            other = nn.Identity()
        mend = "leave `explain` to the base class, and say in `explains` what the explainer needs"
        for wrong in (other,) if explains == "nothing" else (other, None):
            what = f"{self.component} with {'no model' if wrong is None else type(wrong).__name__}"
            expect_error(error, _later(self.build(), wrong, inputs, self.target_index), what, mend)

    def test_missing_inputs_are_refused(self) -> None:
        """None where inputs are needed, inputs where none are taken, and inputs of another type."""
        given: list[Any] = [PatchDiscriminator()] if self.target().accepts == "nothing" else [None, [1, 2], "images"]
        for inputs in given:
            self._expect_refused(inputs, f"inputs {inputs!r:.20}")

    def test_empty_inputs_are_refused(self) -> None:
        """No rows is an InputError."""
        self._expect_spoilt_refused("empty", lambda x: x[:0])

    def test_inputs_with_nan_are_refused(self) -> None:
        """One NaN, or one infinity, is an InputError."""
        for value in (float("nan"), float("inf")):
            self._expect_spoilt_refused(f"with one {value}", partial(_with_one, value=value))

    def test_inputs_of_wrong_shape_are_refused(self) -> None:
        """Images without the channel axis, or of another size than the model takes; latents one number short."""
        if self.target().accepts == "latents":
            self._expect_spoilt_refused("one number short", lambda x: x[:, :-1])
            return
        if self.target().accepts == "images":
            self._expect_spoilt_refused("without the channel axis", lambda x: x[:, 0])
        if getattr(self.model(), "image_shape", None) is not None and self.target().accepts != "dataset":
            self._expect_spoilt_refused("of another size", lambda x: x[..., :-1])

    def test_inputs_out_of_range_are_refused(self) -> None:
        """Pixels far outside the model's range, bytes instead of floats, or Samples of another range."""
        accepts = self.target().accepts
        if getattr(self.model(), "value_range", None) is None or accepts == "latents":
            self.skip("what it takes has no value range")
        if accepts in ("images", "samples"):
            self._expect_spoilt_refused("ten times as large", lambda x: x * 10 + 20)
        if accepts == "images":
            self._expect_spoilt_refused("of bytes", lambda x: x.to(torch.uint8))
        inputs = self.inputs()
        if isinstance(inputs, Dataset):
            inputs = inputs[:]
        if isinstance(inputs, Samples):
            low, high = inputs.value_range
            self._expect_refused(inputs.rescale((low, high + 254)), "Samples of another value range")

    def _expect_spoilt_refused(self, how: str, spoil: Callable[[Tensor], Tensor]) -> None:
        inputs = self.inputs()
        if inputs is None:
            self.skip("takes no inputs")
        if isinstance(inputs, Dataset):
            inputs = inputs[:]
        if isinstance(inputs, Samples):
            images = spoil(inputs.images)
            if images.shape == inputs.images.shape:
                inputs = replace(inputs, images=images)
            else:  # what is known of the images would no longer fit them
                inputs = Samples(images, value_range=inputs.value_range)
        else:
            inputs = spoil(inputs)
        self._expect_refused(inputs, f"inputs {how}")

    def _expect_refused(self, inputs: Any, what: str) -> None:
        call = _later(self.build(), self.model(), inputs, self.target_index)
        expect_error(InputError, call, f"{self.component} with {what}", _MEND_INPUTS)


def _later(explainer: Any, model: Any, inputs: Any, target: Any) -> Callable[[], Any]:
    return lambda: explainer.explain(model, inputs, target=target)


def _with_one(values: Tensor, value: float) -> Tensor:
    spoilt = values.clone()
    spoilt[-1].view(-1)[0] = value
    return spoilt
