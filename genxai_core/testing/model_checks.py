"""What generators and discriminators share: they are built alike by a seed, and saved and loaded bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import saving
from ..draws import uniform
from ..errors import GenxaiError, one_line
from ..guard import guard
from ..runtime import Runtime
from .contract import ComponentTests
from .expectations import expect, failure
from .states import changed, counted, differences, state_of


class ModelTests(ComponentTests):
    """Checks of `GeneratorTests` and `DiscriminatorTests`; see there."""

    cuda_tolerance: ClassVar[float] = 1e-3
    base: ClassVar[type[nn.Module]] = nn.Module

    def new(self, seed: int = 0) -> Any:
        """Build a model with the weights of a seed, in eval mode, leaving the global generators as they are."""
        with guard():
            Runtime(seed=seed).seed_global()
            return self.build().eval()

    def answers(self, model: Any) -> dict[str, Tensor]:
        """Return what a model says of given inputs, by name: it must be the same after loading, and on CUDA."""
        raise NotImplementedError

    def draw(self, model: Any, n: int = 4) -> Tensor:
        """Return n images ``[n, C, H, W]`` of noise, of the model's shape and range (16 px gray where it has none)."""
        low, high = model.value_range
        shape = getattr(model, "image_shape", None) or (1, 16, 16)
        noise: Tensor = low + (high - low) * uniform(0, range(n), shape, "testing")
        return noise

    # -- the checks -----------------------------------------------------------------------------------------------

    def test_it_is_a_model_of_its_kind(self) -> None:
        """It is of the kind's base class, and says in which range pixels are."""
        model = self.new()
        expect(
            isinstance(model, self.base),
            f"{self.component} builds a {type(model).__name__}, which is no {self.base.__name__}",
            f"derive the class from genxai_core.{self.base.__name__}, or return an adapted model",
        )
        found = getattr(model, "value_range", None)
        expect(
            isinstance(found, tuple) and len(found) == 2 and found[0] < found[1],
            f"{self.component}: value_range is {found!r}",
            "declare the smallest and the largest pixel value: value_range = (-1.0, 1.0)",
        )

    def test_the_same_seed_builds_the_same_model(self) -> None:
        """First weights come from torch's global generator, which whoever builds a model seeds."""
        one, other = (counted(state_of(self.new(seed=0))) for _ in range(2))
        wrong = changed(one, other)
        expect(
            not wrong,
            f"{self.component}: one seed built two models: {'; '.join(wrong[:4])}",
            "draw first weights with torch's own initialisers, from its global generator; let no attribute, flag or "
            "hook depend on how many models were built before",
        )

    def test_a_saved_model_answers_the_same(self, tmp_path: Path) -> None:
        """Weights, buffers and answers are the same after saving and loading, bit for bit, and it is in eval mode."""
        model = self.new()
        try:
            again = saving.load_model(saving.save_model(model, tmp_path / "model"))
        except GenxaiError as error:
            raise failure(
                f"{self.component}: cannot be saved and loaded: {error}",
                "take what shapes the model as constructor parameters; keep weights in parameters and buffers",
            ) from error
        wrong = [n for n in changed(state_of(model), state_of(again)) if "value" in n or "flag" in n]
        wrong += differences(self.answers(model), self.answers(again))
        expect(
            not wrong,
            f"{self.component}: after saving and loading, {'; '.join(wrong[:4])}",
            "keep everything that decides the answer in constructor parameters, nn.Parameter or register_buffer; a "
            "tensor that is a plain attribute is not saved",
        )

    def test_it_gives_finite_answers(self) -> None:
        """No NaN or infinity, in float32 and in mixed precision."""
        model = self.new()
        for precision in ("float32", "bfloat16"):
            with Runtime(device="cpu", precision=precision).autocast():
                found = self.answers(model)
            wrong = [name for name, value in found.items() if not bool(torch.isfinite(value).all())]
            expect(
                not wrong,
                f"{self.component}: NaN or infinity in {', '.join(wrong)} ({precision})",
                "guard logarithms and divisions; compute what overflows in float32",
            )

    def test_answering_leaves_it_as_it_was(self) -> None:
        """In eval mode, nothing of the model changes: no statistics, no flags, no counters; nor in train mode flags."""
        model = self.new()
        before = state_of(model)
        self.answers(model)
        wrong = changed(before, state_of(model))
        expect(
            not wrong,
            f"{self.component}: answering in eval mode changed {'; '.join(wrong[:4])}",
            "update statistics only `if self.training`, and never call train() or eval() on yourself",
        )
        model.train()
        self.answers(model)
        expect(
            all(module.training for module in model.modules()),
            f"{self.component}: answering switched parts of it to eval mode",
            "never call train() or eval() on yourself; who uses the model decides",
        )

    def test_cuda_agrees_with_the_cpu(self) -> None:
        """Within ``cuda_tolerance`` of the largest magnitude."""
        if not torch.cuda.is_available():
            self.skip("there is no CUDA device here, so CPU and GPU are not compared")
        here = self.answers(self.new())
        there = {name: value.cpu() for name, value in self.answers(self.new().to("cuda")).items()}
        wrong = differences(there, here, self.cuda_tolerance, self.atol)
        expect(
            not wrong,
            f"{self.component}: CUDA and the CPU differ: {'; '.join(wrong)}",
            "make tensors on the device of the inputs; draw on the CPU (genxai_core.draws) and move",
        )

    def one_at_a_time(self, call: Any, inputs: Tensor, what: str, mend: str) -> None:
        """Fail unless a call gives for each row alone what it gives for it among others."""
        with torch.no_grad():
            together = call(inputs)
            for i in range(len(inputs)):
                try:
                    alone = call(inputs[i : i + 1])[0]
                except Exception as error:  # BatchNorm in train mode raises on a batch of one
                    raise failure(f"{self.component}: {what} {i} alone raised {one_line(error)}", mend) from error
                wrong = self.alike(alone, together[i])
                expect(not wrong, f"{self.component}: {what} {i} alone and in a batch differ: {'; '.join(wrong)}", mend)
