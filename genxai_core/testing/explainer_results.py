"""What an explainer's result is: of its type, finite, reproducible, independent of the batch."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from .. import registry
from ..errors import RegistryError
from ..explanation import Attribution, Explanation
from ..guard import guard
from ..interfaces import Accepts, Attributes
from ..runtime import Runtime
from ..samples import Samples
from .expectations import expect, failure
from .explainer_base import MEND_GUARD, ExplainerBase
from .results import check_saving, check_showing
from .states import changed, differences, state_of, tensors_in


class ResultChecks(ExplainerBase):
    """The checks of `ExplainerTests` that concern what is returned."""

    # -- results --------------------------------------------------------------------------------------------------

    def test_it_returns_what_it_declares(self) -> None:
        """The type is ``returns``, registered by its type name, on the CPU, detached, with a row for each input."""
        target = self.target()
        expect(
            target.accepts in get_args(Accepts),
            f"{self.component}: accepts = {target.accepts!r}",
            f"declare one of {', '.join(get_args(Accepts))}",
        )
        inputs, returns = self.inputs(), target.returns
        result = self.explain(self.model(), inputs)
        expect(
            isinstance(result, returns) and isinstance(result, Explanation),
            f"{self.component} declares returns = {returns.__name__}, but returned {type(result).__name__}",
            "return what is declared, or declare what is returned",
        )
        try:
            registry.resolve(f"explanation/{result.type_name}")
        except RegistryError as error:
            raise failure(
                f"{self.component}: its result's type is not registered: {error}",
                "set type_name, and let genxai_components return Component('explanation', type_name, …)",
            ) from error
        wrong = [n for n, t in tensors_in(result) if t.requires_grad or t.device.type != "cpu"]
        expect(not wrong, f"{self.component}: {', '.join(wrong)} not detached, or not on the CPU", MEND_GUARD)
        if self.counts and result.per_sample:
            expect(
                len(result) == len(inputs),
                f"{self.component} returned {len(result)} rows for {len(inputs)} inputs",
                "return one row per input, in their order",
            )
        if isinstance(result, Attribution):
            shape = tuple(result.maps.shape)
            images = inputs.images if isinstance(inputs, Samples) else result.images
            good = images is None or shape in ((len(images), *images.shape[2:]), tuple(images.shape))
            expect(
                good and result.maps.is_floating_point(),
                f"{self.component}: maps are {result.maps.dtype} {list(shape)}",
                "maps are float [N, H, W] or [N, C, H, W] at the images' size (bilinear, align_corners=False)",
            )

    def test_its_numbers_are_finite(self) -> None:
        """No NaN or infinity, in any tensor of the result."""
        self._expect_finite(self.explain(self.model(), self.inputs()), "")

    def _expect_finite(self, result: Any, when: str) -> None:
        wrong = [n for n, t in tensors_in(result) if t.is_floating_point() and not bool(torch.isfinite(t).all())]
        expect(
            not wrong,
            f"{self.component} returned NaN or infinity in {', '.join(wrong)}{when}",
            "guard divisions and logarithms; what is constant becomes 0, not 0/0; None stands for what is unknown",
        )

    def test_provenance_is_stamped(self) -> None:
        """The result says which explainer with which parameters made it, of what, with which seed."""
        found = self.explain(self.model(), self.inputs(), seed=3).provenance
        told = found.get("explainer", {})
        use = told.get("use") if isinstance(told, dict) else told
        expect(
            use is not None and use.partition("@")[0] == self.component.partition("@")[0] and found.get("seed") == 3,
            f"{self.component}: the provenance says {dict(found)!r}",
            "leave `explain` to the base class, which stamps it",
        )

    def test_its_result_survives_saving(self, tmp_path: Path) -> None:
        """What is loaded equals what was saved, bit for bit."""
        check_saving(self.explain(self.model(), self.inputs()), tmp_path / "result", self.component)

    def test_its_result_can_be_shown(self) -> None:
        """``plot()`` gives a figure, ``table()`` plain values."""
        check_showing(self.explain(self.model(), self.inputs()), self.component)

    # -- sameness -------------------------------------------------------------------------------------------------

    def test_one_at_a_time_equals_batched(self) -> None:
        """A row does not depend on its neighbours, nor a whole result on the batch size."""
        inputs, model, explainer = self.inputs(), self.model(), self.build()
        stochastic = self.target().stochastic
        expect(
            not self.monte_carlo or stochastic,
            f"{self.component}: monte_carlo = {self.monte_carlo}, but the explainer does not declare stochastic = True",
            "declare it, or leave monte_carlo out",
        )
        mend = (
            "scale, normalise and average per sample, never over the batch; draw noise by index "
            "(genxai_core.draws), or allow for Monte-Carlo error with stochastic = True and monte_carlo = …"
        )
        rtol, atol = max(self.rtol, self.monte_carlo), self.atol
        whole = self.explain(model, inputs, explainer)
        small = self.explain(model, inputs, explainer, batch_size=2)
        wrong = differences(_rows(small), _rows(whole), rtol, atol)
        expect(not wrong, f"{self.component}: batches of 2 and of all differ: {'; '.join(wrong)}", mend)
        if not self.counts or not whole.per_sample or len(whole) != len(inputs):
            return
        for i in range(len(inputs)):
            alone = self.explain(model, inputs[i : i + 1], explainer)
            wrong = differences(_rows(alone), _rows(whole[[i]]), rtol, atol)
            expect(not wrong, f"{self.component}: input {i} alone and in a batch differ: {'; '.join(wrong)}", mend)

    def test_the_same_seed_gives_the_same_result(self) -> None:
        """Bit for bit, whatever was drawn before; and without ``stochastic`` the seed changes nothing."""
        inputs = self.inputs()
        one = self.explain(self.model(), inputs)
        with guard():  # restores the global generators
            Runtime(seed=12345).seed_global()
            again = self.explain(self.model(), inputs)
        wrong = differences(one, again)
        expect(
            not wrong,
            f"{self.component}: the same seed gave two results: {'; '.join(wrong)}",
            "draw from genxai_core.draws by (runtime.seed, index), or from torch's global generator, which is seeded; "
            "never from an unseeded generator of your own, the clock or a set's order",
        )
        if not self.target().stochastic:
            wrong = differences(one, self.explain(self.model(), inputs, seed=1))
            expect(
                not wrong,
                f"{self.component}: seeds 0 and 1 gave different results: {'; '.join(wrong)}",
                "it draws random numbers, so declare stochastic = True",
            )

    def test_bfloat16_gives_finite_numbers(self) -> None:
        """In mixed precision the result is finite and of the same type and shape."""
        inputs = self.inputs()
        full = self.explain(self.model(), inputs)
        half = self.explain(self.model(), inputs, precision="bfloat16")
        self._expect_finite(half, " in bfloat16")
        shapes = [{n: tuple(t.shape) for n, t in tensors_in(r)} for r in (full, half)]
        expect(
            type(full) is type(half) and shapes[0] == shapes[1],
            f"{self.component}: in bfloat16 the result has other shapes: {shapes[1]}, not {shapes[0]}",
            "let shapes depend on the inputs, not on values",
        )

    def test_cuda_agrees_with_the_cpu(self) -> None:
        """Within ``cuda_tolerance`` of the largest magnitude."""
        if not torch.cuda.is_available():
            self.skip("there is no CUDA device here, so CPU and GPU are not compared")
        inputs = self.inputs()
        here = self.explain(self.model(), inputs)
        model = self.model()
        there = self.explain(model if model is None else model.to("cuda"), inputs, device="cuda")
        wrong = differences(_rows(there), _rows(here), max(self.cuda_tolerance, self.monte_carlo), self.atol)
        expect(
            not wrong,
            f"{self.component}: CUDA and the CPU differ: {'; '.join(wrong)}",
            "make tensors on the device of the inputs; draw on the CPU (genxai_core.draws) and move",
        )

    def test_attribute_equals_explain(self) -> None:
        """``attribute``, for training steps, gives the maps that ``explain`` gives, and leaves the model alone."""
        explainer = self.build()
        if not isinstance(explainer, Attributes):
            self.skip("has no attribute(model, images, target): it does not work inside training steps")
        model: Any = self.model().requires_grad_(True).eval()
        images = self.inputs()
        images = images.images if isinstance(images, Samples) else images
        target, kept = self.target_index or 0, images.clone()
        expected = self.explain(model, images, explainer)
        with guard():  # restores the global generators
            Runtime(seed=0).seed_global()
            before = state_of(model)
            maps = explainer.attribute(model, images, target)
            wrong = changed(before, state_of(model))
        expect(not wrong, f"{self.component}: attribute changed {'; '.join(wrong[:6])}", "undo it in a `finally`")
        expect(
            isinstance(maps, Tensor) and not maps.requires_grad and torch.equal(images, kept),
            f"{self.component}: attribute wrote into the images, or returned no detached Tensor",
            "work on images.detach(), and return maps.detach()",
        )
        wrong = differences(maps, expected.maps, max(self.rtol, self.monte_carlo), self.atol, "maps")
        expect(
            not wrong,
            f"{self.component}: attribute and explain differ: {'; '.join(wrong)}",
            "let `_explain` wrap `attribute`",
        )


def _rows(result: Explanation) -> dict[str, Any]:
    """Return what is per sample, or of a result that is not, all but notes: what batches must not change."""
    names = result.per_sample or [f.name for f in fields(result) if f.name not in ("provenance", "notes")]
    return {name: getattr(result, name) for name in names}
