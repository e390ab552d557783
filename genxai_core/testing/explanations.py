"""The conformance class of result types."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ..errors import GenxaiError
from ..explanation import Explanation
from .contract import ComponentTests
from .expectations import expect, expect_error, failure
from .results import check_saving, check_showing
from .states import differences


class ExplanationTests(ComponentTests):
    """Hold a result type to its contract: ``class TestMine(ExplanationTests): component = "explanation/mine"``.

    Override `example`, which returns a small result with every field filled in.
    """

    kind: ClassVar[str] = "explanation"
    shapes: ClassVar[str] = "'maps [N, H, W]'"
    inherited: ClassVar[frozenset[str]] = frozenset({"provenance"})

    def example(self) -> Any:
        """Return a result: of at least three rows, if it is per sample."""
        raise failure(
            f"{type(self).__name__} has no example of {self.component}",
            "override example(self), which returns a small result with every field filled in",
        )

    # -- the checks -----------------------------------------------------------------------------------------------

    def test_it_is_a_frozen_dataclass_with_its_name(self) -> None:
        """Its ``type_name`` is the name under which it is registered, so that `Explanation.load` finds it."""
        kind = self.target()
        frozen = is_dataclass(kind) and getattr(kind, "__dataclass_params__").frozen  # noqa: B009 - not typed
        expect(
            frozen and issubclass(kind, Explanation) and "__dataclass_fields__" in vars(kind),
            f"{self.component}: {kind.__name__} is no frozen dataclass of its own",
            "decorate it with @dataclass(frozen=True, eq=False) and derive it from genxai_core.Explanation",
        )
        name = self.component.partition("/")[2].partition("@")[0]
        expect(
            kind.type_name == name,
            f"{self.component}: type_name is {kind.type_name!r}",
            f"set type_name = {name!r}",
        )
        unknown = set(kind.per_sample) - {f.name for f in fields(kind)}
        expect(not unknown, f"{self.component}: per_sample names {sorted(unknown)}, which are no fields", "name fields")

    def test_it_survives_saving(self, tmp_path: Path) -> None:
        """What is loaded equals what was saved, bit for bit."""
        check_saving(self.example(), tmp_path / "result", self.component)

    def test_it_can_be_shown(self) -> None:
        """``plot()`` gives a figure, ``table()`` plain values."""
        check_showing(self.example(), self.component)

    def test_rows_can_be_taken_and_joined(self) -> None:
        """Parts that are joined give the whole; what is not per sample is kept."""
        result = self.example()
        if not result.per_sample:
            self.skip("is not per sample")
        expect(len(result) >= 3, f"{self.component}: the example has {len(result)} rows", "let example() have three")
        joined = type(result).concat([result[:1], result[[1]], result[2:]])
        wrong = differences(joined, result)
        expect(
            not wrong,
            f"{self.component}: parts that are joined are not the whole: {'; '.join(wrong)}",
            "name in per_sample the fields whose first axis is the sample, and no other; take fields as they are given",
        )

    def test_fields_of_unequal_length_are_refused(self) -> None:
        """A field that has a row less than the others is an error when the result is made."""
        result = self.example()
        names = [name for name in result.per_sample if getattr(result, name) is not None]
        if len(names) < 2:
            self.skip("has not two fields per sample")
        for name in names:
            less = {name: getattr(result, name)[:-1]}
            mend = "compare the lengths of per_sample fields in __post_init__, and raise ExplainerError"
            what = f"{self.component} with a row of {name} missing"
            expect_error(GenxaiError, partial(replace, result, **less), what, mend)

    def test_its_recipe_builds_it_again(self, tmp_path: Path) -> None:
        """A result is saved by itself, not by a recipe."""
        self.skip("a result is saved by itself")
