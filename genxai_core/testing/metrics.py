"""The conformance class of metrics."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..draws import uniform
from ..errors import GenxaiError, InputError, one_line
from ..explanation import Attribution
from ..guard import guard
from ..interfaces import Dataset, _modules
from ..runtime import Runtime
from ..samples import Samples
from .contract import ComponentTests
from .copies import COPIES
from .data import PatchDataset
from .expectations import expect, expect_error, failure
from .models import PatchDiscriminator, planted_images
from .states import bits, changed, differences, environment, state_of, tensors_in

Inputs = dict[str, Any]

ROUNDING = torch.finfo(torch.float64).eps
"""Below it, figures of pixels differ by nothing but rounding: a figure that is 0 in exact arithmetic."""


class MetricTests(ComponentTests):
    """Hold a metric to its contract: ``class TestMine(MetricTests): component = "metric/mine"``.

    Override `good` and `bad` where the defaults do not show the difference that the metric measures.

    Attributes
    ----------
    mergeable
        Whether data in parts must give what they give at once. False needs `mergeable_reason`.
    """

    kind: ClassVar[str] = "metric"
    mergeable: ClassVar[bool] = True
    mergeable_reason: ClassVar[str] = ""

    # -- what an author may override ------------------------------------------------------------------------------

    def good(self) -> Inputs:
        """Return inputs that must score better than `bad`: what `update` takes, by keyword, at least four rows."""
        return self._inputs(PatchDataset(32, seed=1)[:], _right_maps())

    def bad(self) -> Inputs:
        """Return inputs that must score worse than `good`: images of noise, maps of noise."""
        noise = Samples(uniform(3, range(32), (1, 16, 16)) * 2 - 1, value_range=(-1.0, 1.0))
        return self._inputs(noise, uniform(4, range(32), (16, 16)) - 0.5)

    # -- what the checks use --------------------------------------------------------------------------------------

    def _inputs(self, generated: Samples, maps: Tensor) -> Inputs:
        images = planted_images(32)
        masks = PatchDiscriminator().inside.expand(32, 1, 16, 16).clone()
        known: Inputs = {
            "real": PatchDataset(32)[:],
            "generated": generated,
            "model": PatchDiscriminator().eval(),
            "inputs": Samples(images, masks=masks, value_range=(-1.0, 1.0), concepts=("patch",)),
            "explanation": Attribution(maps=maps, target=0, images=images),
            "masks": masks,
            "labels": PatchDataset(32)[:].labels,
        }
        return {name: known[name] for name in self.target().needs}

    def measured(self, inputs: Inputs) -> dict[str, float]:
        """Measure at once, on the CPU."""
        found: dict[str, float] = self.build().measure(**inputs, runtime=Runtime(device="cpu", quiet=True))
        return found

    def updated(self, *parts: Inputs) -> Any:
        """Return a new metric that has seen parts, one after another."""
        metric = self.build()
        metric.runtime = Runtime(device="cpu", quiet=True)
        with guard(*_modules(metric, list(parts))):
            for part in parts:
                metric.update(**part)
        return metric

    def _expect_same(self, found: Mapping[str, float], expected: Mapping[str, float], what: str, mend: str) -> None:
        wrong = []
        for name, value in expected.items():
            pair = float(found.get(name, math.nan)), float(value)
            if differences(*pair, rtol=self.rtol):  # of small figures `atol` alone would see nothing
                wrong += differences(*pair, self.rtol, max(self.atol * self._scale(name), ROUNDING), name)
        expect(not wrong, f"{self.component}: {what}: {'; '.join(wrong)}", mend)

    def _scale(self, name: str) -> float:
        """Return the unit of ``atol``: the larger magnitude of a figure, of `good` and of `bad`."""
        return max(abs(float(self.measured(inputs)[name])) for inputs in (self.good(), self.bad()))

    def _parts(self, inputs: Inputs) -> list[Inputs]:
        """Cut inputs into three parts of unequal size."""
        if not self.mergeable:
            expect(
                self.mergeable_reason.strip(),
                f"{self.component}: mergeable = False without a reason",
                "set mergeable_reason = '…'",
            )
            self.skip(f"is not computed of parts: {self.mergeable_reason}")
        n = min(len(v) for v in inputs.values() if _by_row(v))
        return [_rows(inputs, list(rows)) for rows in (range(1), range(1, n // 2), range(n // 2, n))]

    # -- the checks -----------------------------------------------------------------------------------------------

    def test_it_takes_exactly_what_it_needs(self) -> None:
        """``needs`` are known names, ``update`` takes them by keyword, and more or less is refused."""
        target = self.target()
        known = {"real", "generated", "model", "inputs", "explanation", "masks", "labels"}
        expect(
            isinstance(target.needs, frozenset) and target.needs and target.needs <= known,
            f"{self.component}: needs = {target.needs!r}",
            f"declare needs = frozenset({{…}}), of {', '.join(sorted(known))}",
        )
        found = [p for p in inspect.signature(target.update).parameters.values() if p.name != "self"]
        open_ended = any(p.kind is p.VAR_KEYWORD for p in found)
        expect(
            open_ended or {p.name for p in found} == target.needs,
            f"{self.component}: update takes {', '.join(p.name for p in found)}, needs says "
            f"{', '.join(sorted(target.needs))}",
            "let update take exactly these: def update(self, *, real: Samples, generated: Samples)",
        )
        inputs = self.good()
        less = {k: v for k, v in inputs.items() if k != min(inputs)}
        mend = "leave `measure` to the base class, which compares with `needs`"
        for given, what in ((less, f"without {min(inputs)}"), ({**inputs, "extra": 1}, "with something else")):
            expect_error(InputError, partial(self.measured, given), f"{self.component} {what}", mend)

    def test_its_figures_are_plain_and_named(self) -> None:
        """``compute`` returns finite floats, and ``higher_is_better`` has the same names."""
        found, declared = self.measured(self.good()), self.target().higher_is_better
        expect(
            isinstance(found, dict) and found.keys() == declared.keys() and found,
            f"{self.component}: compute gives {sorted(found)}, higher_is_better names {sorted(declared)}",
            "name every figure in higher_is_better: True, False, or None where neither is better",
        )
        wrong = [f"{k} = {v!r}" for k, v in found.items() if type(v) is not float or not math.isfinite(v)]
        expect(
            not wrong,
            f"{self.component}: {', '.join(wrong)}",
            "return float(x), finite; raise InputError where there are too few data",
        )

    def test_good_is_better_than_bad(self) -> None:
        """Every figure that has a direction is better for `good` than for `bad`."""
        good, bad = self.measured(self.good()), self.measured(self.bad())
        for name, higher in self.target().higher_is_better.items():
            if higher is not None:
                better = good[name] > bad[name] if higher else good[name] < bad[name]
                expect(
                    better,
                    f"{self.component}: {name} is {good[name]:.4g} for good and {bad[name]:.4g} for bad inputs, and "
                    f"higher_is_better says {higher}",
                    "turn the direction round, or override good() and bad() by inputs that differ in what it measures",
                )

    def test_the_same_seed_gives_the_same_figures(self) -> None:
        """Bit for bit, whatever was drawn before, also of ``compute`` asked twice; global generators are left alone."""
        inputs, metric = self.good(), self.build()
        runtime = Runtime(device="cpu", quiet=True)
        one = metric.measure(**inputs, runtime=runtime)
        with guard():
            Runtime(seed=12345).seed_global()
            before = environment()
            again = metric.measure(**inputs, runtime=runtime)
            moved = changed(before, environment())
        expect(
            one == again and not moved,
            f"{self.component}: measuring twice gave {one} and {again}{', and moved ' + moved[0] if moved else ''}",
            "draw from genxai_core.draws by self.runtime.seed; leave `measure` to the base class",
        )

        metric = self.updated(inputs)
        asked = []
        for _ in range(2):
            with guard(*_modules(metric)):
                runtime.seed_global()
                asked.append(metric.compute())
        expect(
            asked[0] == asked[1],
            f"{self.component}: compute asked twice gave {asked[0]} and {asked[1]}",
            "let compute change nothing of what update has kept",
        )

    def test_parts_give_what_the_whole_gives(self) -> None:
        """Three updates with a third of the data each are one update with all."""
        inputs = self.good()
        self._expect_same(
            self.updated(*self._parts(inputs)).compute(),
            self.updated(inputs).compute(),
            "in three updates and in one",
            "keep sums, or the rows themselves; never average the averages of batches",
        )

    def test_merging_gives_what_the_whole_gives(self) -> None:
        """What two processes have seen, merged, is what one would have seen, also if one saw none; the other stays."""
        inputs = self.good()
        first, *rest = self._parts(inputs)
        one, other = self.updated(first), self.updated(*rest)
        alone = other.compute() if len(rest[-1]) else {}
        one.merge(other)
        mend = "add the other's sums, or append its rows, to this one's; do not change the other"
        self._expect_same(one.compute(), self.updated(inputs).compute(), "merged and at once", mend)
        try:
            after = other.compute()
        except GenxaiError as error:
            raise failure(f"{self.component}: the other one, after merging: {error}", mend) from error
        self._expect_same(after, alone, "the other one, after merging and before", mend)
        for how, parts in {"merged into a new one": ((), (inputs,)), "merged with a new one": ((inputs,), ())}.items():
            one, other = self.updated(*parts[0]), self.updated(*parts[1])
            try:
                one.merge(other)
                found = one.compute()
            except Exception as error:
                raise failure(
                    f"{self.component}: {how}, which has seen nothing, it raised {one_line(error)}",
                    "a process may have got no rows: let reset put in sums of 0 or empty lists, or look for None",
                ) from error
            self._expect_same(found, self.updated(inputs).compute(), how, mend)

    def test_the_order_of_the_rows_does_not_matter(self) -> None:
        """The same data in another order give the same figures."""
        inputs = self.good()
        self._parts(inputs)  # skips where it is not computed of rows
        n = min(len(v) for v in inputs.values() if _by_row(v))
        self._expect_same(
            self.measured(_rows(inputs, list(reversed(range(n))))),
            self.measured(_rows(inputs, list(range(n)))),
            "in another order",
            "do not draw subsets by position; use all rows, or draw by what they are",
        )

    def test_reset_forgets(self) -> None:
        """After ``reset`` it is as new."""
        metric = self.updated(self.bad())
        metric.reset()
        with guard(*_modules(metric)):
            metric.update(**self.good())
        mend = "let reset put back every attribute that update changes"
        self._expect_same(metric.compute(), self.updated(self.good()).compute(), "after reset and new", mend)

    def test_without_data_it_says_so(self) -> None:
        """``compute`` before any ``update``, and after ``reset``, is an error in words, not NaN."""
        mend = "raise InputError in compute where nothing (or too little) has been seen"
        expect_error(GenxaiError, lambda: self.build().compute(), f"{self.component} without data", mend)
        metric = self.updated(self.good())
        metric.reset()
        expect_error(GenxaiError, metric.compute, f"{self.component} after reset", mend)

    def test_copies_go_on_alone(self) -> None:
        """It can be copied, and sent to another process, with what it has seen."""
        inputs = self.good()
        expected = self.updated(inputs).compute()
        for how, copied in COPIES.items():
            metric = self.updated(inputs)
            try:
                other = copied(metric)
            except Exception as error:
                raise failure(
                    f"{self.component} cannot be copied ({how}): {error}",
                    "hold plain values and tensors; no lambda, open file, generator or local class",
                ) from error
            metric.reset()
            mend = "hold what was seen in attributes of the instance, not of the class or a module"
            try:
                found = other.compute()
            except Exception as error:
                raise failure(
                    f"{self.component}: a copy ({how}), after the original was reset, raised {one_line(error)}", mend
                ) from error
            self._expect_same(found, expected, f"a copy ({how}), after the original was reset", mend)

    def test_inputs_and_models_are_left_alone(self) -> None:
        """Neither the data nor a model that it holds or is given change."""
        inputs, metric = self.good(), self.build()
        held = _modules(metric, inputs)
        for module in held:
            module.train()
        tensors = [(n, t) for n, t in tensors_in({k: v for k, v in inputs.items() if not isinstance(v, nn.Module)}, "")]
        before, models = [bits(t) for _, t in tensors], state_of(*held)
        metric.measure(**inputs, runtime=Runtime(device="cpu", quiet=True))
        wrong = [n for (n, t), b in zip(tensors, before) if bits(t) != b] + changed(models, state_of(*held))
        expect(
            not wrong,
            f"{self.component} changed {'; '.join(wrong[:6])}",
            "work on copies, and leave `measure` to the base class, whose guard restores models",
        )

    def test_nan_and_empty_data_are_refused(self) -> None:
        """One NaN in an image or a map, or no rows at all, is an InputError, not a figure."""
        inputs = self.good()
        for name, value in inputs.items():
            for how, spoilt in _spoilt(value):
                call = {**inputs, name: spoilt}
                expect_error(
                    GenxaiError,
                    partial(self.measured, call),
                    f"{self.component} with {name} {how}",
                    "check at the door: raise InputError in update where inputs are empty or not finite",
                )

    def test_inputs_that_do_not_fit_are_refused(self) -> None:
        """A map, mask or label less than there are images, and maps or masks of another size, are InputErrors."""
        inputs = self.good()
        matching = {k: v for k, v in inputs.items() if k in ("inputs", "explanation", "masks", "labels")}
        if len(matching) < 2:
            self.skip("takes nothing that must fit something else, row by row")
        mend = "compare lengths and sizes at the door: raise InputError in update; IoU broadcasts in silence"
        for name, value in matching.items():
            wrong = {"one row short": value[:-1]}
            if name == "masks":
                wrong["one column short"] = value[..., :-1]
            if name == "explanation" and isinstance(value, Attribution):
                wrong["one column short"] = replace(value, maps=value.maps[..., :-1])
            for how, spoilt in wrong.items():
                what = f"{self.component} with {name} {how}"
                expect_error(GenxaiError, partial(self.measured, {**inputs, name: spoilt}), what, mend)

    def test_another_kind_of_model_is_refused(self) -> None:
        """What is no model, or lacks what the metric asks of it, is an InputError or a MissingCapability."""
        inputs = self.good()
        if "model" not in inputs:
            self.skip("takes no model")
        mend = "models.require(model, models.HasFeatures, by=…), or isinstance(model, Discriminator), in update"
        for model in (nn.Identity(), None):
            what = f"{self.component} with {type(model).__name__} as model"
            expect_error(GenxaiError, partial(self.measured, {**inputs, "model": model}), what, mend)


def _right_maps() -> Tensor:
    """Return the right maps ``[32, 16, 16]`` of the planted images: pixel times gradient, which is 0 elsewhere."""
    return planted_images(32)[:, 0] * PatchDiscriminator().inside


def _by_row(value: Any) -> bool:
    return isinstance(value, Samples | Dataset | Attribution | Tensor)


def _rows(inputs: Inputs, rows: list[int]) -> Inputs:
    return {name: value[rows] if _by_row(value) else value for name, value in inputs.items()}


def _spoilt(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Dataset):
        value = value[:]
    if isinstance(value, Samples):
        images = value.images.clone()
        images[-1, 0, 0, 0] = float("nan")
        return [("with one NaN", replace(value, images=images)), ("empty", value[:0])]
    if isinstance(value, Attribution):
        maps = value.maps.clone()
        maps[-1, 0, 0] = float("nan")
        return [("with one NaN", replace(value, maps=maps))]
    return []
