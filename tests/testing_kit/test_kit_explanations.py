"""Every check of `ExplanationTests` fails on the type that breaks it; the core's own types conform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from genxai_core import Attribution, Explanation
from genxai_core.errors import ExplainerError
from genxai_core.results import Counterfactual, Direction, ImageScores, Inversion, UnitEdits, UnitScores
from genxai_core.testing import ExplanationTests, planted_images

NAMED = "test_it_is_a_frozen_dataclass_with_its_name"
SAVED = "test_it_survives_saving"
SHOWN = "test_it_can_be_shown"
JOINED = "test_rows_can_be_taken_and_joined"
UNEVEN = "test_fields_of_unequal_length_are_refused"


@dataclass(frozen=True, eq=False)
class Pair(Explanation):
    """Two numbers per sample.

    Parameters
    ----------
    first, second
        ``[N]``.
    """

    type_name: ClassVar[str] = "tested-0"
    per_sample: ClassVar[tuple[str, ...]] = ("first", "second")

    first: torch.Tensor
    second: torch.Tensor

    def __post_init__(self):
        if len(self.first) != len(self.second):
            raise ExplainerError("first and second differ in length")

    def table(self):
        return [{"first": float(a), "second": float(b)} for a, b in zip(self.first, self.second)]

    def plot(self):
        from matplotlib.figure import Figure

        return Figure()


def pair(self):
    return self.target()(torch.arange(3.0), torch.ones(3))


def mutant(**members):
    cls = type("Mutant", (Pair,), {"__doc__": Pair.__doc__, **members})
    return dataclass(frozen=True, eq=False)(cls)


def doubling(self):
    object.__setattr__(self, "first", self.first * 2)


MUTANTS = {
    "nothing is wrong": (Pair, {}),
    "another name": (mutant(type_name="pair"), {NAMED: "type_name is 'pair'", SAVED: "loaded as GenericExplanation"}),
    "no dataclass": (
        type("Bare", (Pair,), {"__doc__": Pair.__doc__}),
        {NAMED: "Bare is no frozen dataclass"},
    ),
    "no field": (mutant(per_sample=("third",)), {NAMED: "per_sample names ['third']"}),
    "no picture": (mutant(plot=lambda self: None), {SHOWN: "plot() of its Mutant gave NoneType"}),
    "no rows": (mutant(table=lambda self: []), {SHOWN: "gave 0 rows"}),
    "doubles": (
        mutant(__post_init__=doubling),
        {SAVED: "first differs", JOINED: "not the whole", UNEVEN: "missing"},
    ),
    "any length": (mutant(__post_init__=lambda self: None), {UNEVEN: "with a row of first missing"}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails_its_check_and_no_other(conforms, failures, name):
    cls, expected = MUTANTS[name]
    checks = [NAMED] if name == "no field" else []
    found = failures(conforms(ExplanationTests, cls, example=pair), *checks)
    assert found.keys() == expected.keys()
    for check, text in expected.items():
        assert text in found[check]


def test_an_example_is_asked_for(conforms, failures):
    found = failures(conforms(ExplanationTests, Pair), SAVED)
    assert "override example(self)" in found[SAVED]


# -- the core's own -----------------------------------------------------------------------------------------------

IMAGES = planted_images(4)
RANGE = (-1.0, 1.0)


class TestAttribution(ExplanationTests):
    component = "explanation/attribution"

    def example(self):
        known = {"logits": torch.ones(4), "baseline": IMAGES * 0, "delta": torch.zeros(4), "images": IMAGES}
        return Attribution(IMAGES[:, 0], torch.zeros(4).long(), **known, value_range=RANGE, notes={"layer": "conv"})


class TestImageScores(ExplanationTests):
    component = "explanation/image-scores"

    def example(self):
        return ImageScores(torch.arange(4.0), images=IMAGES, value_range=RANGE)


class TestUnitScores(ExplanationTests):
    component = "explanation/unit-scores"

    def example(self):
        return UnitScores(
            {"a": torch.rand(3, 2), "b": torch.rand(2, 2)}, {"a": torch.ones(3), "b": torch.ones(2)}, ("x", "y")
        )


class TestUnitEdits(ExplanationTests):
    component = "explanation/unit-edits"

    def example(self):
        where = torch.zeros(3, 4, 4, dtype=torch.bool)
        where[:, :2] = True
        return UnitEdits(("a", "a", "b"), torch.tensor([0, 2, 1]), torch.zeros(3), torch.ones(3), where)


class TestCounterfactual(ExplanationTests):
    component = "explanation/counterfactual"

    def example(self):
        return Counterfactual(
            IMAGES,
            IMAGES * 0.9,
            target=torch.ones(4).long(),
            source=torch.zeros(4).long(),
            logits_before=torch.randn(4, 2),
            logits_after=torch.randn(4, 2),
            realism=torch.rand(4),
            failures=("", "not reached", "", ""),
            value_range=RANGE,
            class_names=("cat", "dog"),
        )


class TestInversion(ExplanationTests):
    component = "explanation/inversion"

    def example(self):
        reconstructions = IMAGES * 0.9
        errors = (IMAGES - reconstructions).square().mean((1, 2, 3)).sqrt()
        failed = torch.zeros(4, dtype=torch.bool)
        return Inversion(
            IMAGES, reconstructions, torch.randn(4, 3), errors, failed, torch.rand(4, 5), value_range=RANGE
        )


class TestDirection(ExplanationTests):
    component = "explanation/direction"

    def example(self):
        vectors, names = torch.nn.functional.normalize(torch.randn(3, 5), dim=1), ("size", "smile", "age")
        shown = IMAGES[:2].expand(3, 2, 1, 16, 16)
        return Direction(vectors, names, torch.zeros(3), torch.ones(3), shown, torch.arange(2.0), RANGE)
