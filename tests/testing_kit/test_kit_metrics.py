"""Every check of `MetricTests` fails on the metric that breaks it, and says how to mend it."""

from __future__ import annotations

import pytest
import torch

from genxai_core import Discriminator, Metric
from genxai_core.errors import InputError
from genxai_core.testing import MetricTests

TAKES = "test_it_takes_exactly_what_it_needs"
NAMED = "test_its_figures_are_plain_and_named"
BETTER = "test_good_is_better_than_bad"
SEEDED = "test_the_same_seed_gives_the_same_figures"
PARTS = "test_parts_give_what_the_whole_gives"
MERGED = "test_merging_gives_what_the_whole_gives"
ORDER = "test_the_order_of_the_rows_does_not_matter"
RESET = "test_reset_forgets"
EMPTY = "test_without_data_it_says_so"
COPIED = "test_copies_go_on_alone"
ALONE = "test_inputs_and_models_are_left_alone"
FITTING = "test_inputs_that_do_not_fit_are_refused"
MODEL = "test_another_kind_of_model_is_refused"
REFUSED = "test_nan_and_empty_data_are_refused"


class Gap(Metric):
    """How far apart the mean squares of real and of generated pixels are."""

    needs = frozenset({"real", "generated"})
    higher_is_better = {"gap": False}

    def __init__(self) -> None:
        self.reset()

    def reset(self):
        self.sums, self.counts = torch.zeros(2).double(), torch.zeros(2).double()

    def update(self, *, real, generated):
        for i, samples in enumerate((real, generated)):
            if len(samples) == 0 or not torch.isfinite(samples.images).all():
                raise InputError("metric/gap: samples are empty or hold NaN")
            self.sums[i] += samples.images.double().square().mean((1, 2, 3)).sum()
            self.counts[i] += len(samples)

    def compute(self):
        if not self.counts.all():
            raise InputError("metric/gap has seen no data")
        means = self.sums / self.counts
        return {"gap": float((means[0] - means[1]).abs())}

    def merge(self, other):
        self.sums += other.sums
        self.counts += other.counts


def mutant(**members):
    """A class that is `Gap` but for some of its members, and can be found by its name, as pickling asks."""
    name = f"Mutant{len(globals())}"
    globals()[name] = type(name, (Gap,), {"__doc__": Gap.__doc__, "__module__": __name__, **members})
    return globals()[name]


def computing(change):
    return mutant(compute=lambda self: change(Gap.compute(self)))


def measured(function):
    """Something is done around the base class's `measure`, which its guard does not see."""

    def measure(self, *, runtime=None, **inputs):
        return function(lambda **given: Metric.measure(self, runtime=runtime, **given), inputs)

    return mutant(measure=measure)


def drops_what_is_odd(base, inputs):
    return base(**{k: v for k, v in inputs.items() if k in Gap.needs})


def moves_generators(base, inputs):
    torch.rand(1)
    return base(**inputs)


def averages(self, *, real, generated):
    """The mean of the means of batches."""
    Gap.update(self, real=real, generated=generated)
    self.sums = torch.stack([s.images.double().square().mean() for s in (real, generated)]) * self.counts


def spoils_other(self, other):
    Gap.merge(self, other)
    other.sums *= 2


def empties_other(self, other):
    Gap.merge(self, other)
    other.reset()


def merges_full(self, other):
    if not self.counts.all():
        raise TypeError("None + Tensor")
    Gap.merge(self, other)


def counts_nothing(self, other):
    Gap.merge(self, other)
    self.counts[0] += float(other.counts[0] == 0)


def spends(self):
    figures = Gap.compute(self)
    self.sums[0] *= 1 + 1e-9
    return figures


def of_the_class(self):
    type(self).sums, type(self).counts = torch.zeros(2).double(), torch.zeros(2).double()


def first_rows(self, *, real, generated):
    Gap.update(self, real=real, generated=generated)
    self.first = getattr(self, "first", float(generated.images[0].square().mean()))


def forgets_half(self):
    self.counts = torch.zeros(2).double()
    self.sums = getattr(self, "sums", torch.zeros(2).double())


def optimistic(self):
    return {"gap": 0.0} if not self.counts.all() else Gap.compute(self)


def holds_lambda(self):
    Gap.reset(self)
    self.key = lambda x: x


def writes_labels(self, *, real, generated):
    Gap.update(self, real=real, generated=generated)
    real.labels.zero_()


def unchecked(self, *, real, generated):
    for i, samples in enumerate((real, generated)):
        self.sums[i] += samples.images.double().square().mean((1, 2, 3)).sum()
        self.counts[i] += len(samples)


MUTANTS = {
    "nothing is wrong": (Gap, {}),
    "drops what it does not know": (
        measured(drops_what_is_odd),
        {TAKES: "with something else: expected InputError, but nothing was raised"},
    ),
    "a figure too many": (computing(lambda f: {**f, "more": 1.0}), {NAMED: "compute gives ['gap', 'more']"}),
    "a tensor": (computing(lambda f: {"gap": torch.tensor(f["gap"])}), {NAMED: "gap = tensor("}),
    "the wrong way round": (mutant(higher_is_better={"gap": True}), {BETTER: "higher_is_better says True"}),
    "moves generators": (measured(moves_generators), {SEEDED: "and moved torch's random generator"}),
    "averages of averages": (
        mutant(update=averages),
        {PARTS: "in three updates and in one", MERGED: "merged and at once"},
    ),
    "merging forgets": (mutant(merge=lambda self, other: None), {MERGED: "merged and at once: gap differs"}),
    "merging spoils the other": (mutant(merge=spoils_other), {MERGED: "the other one, after merging and before"}),
    "merging empties the other": (mutant(merge=empties_other), {MERGED: "has seen no data"}),
    "merges what is full alone": (mutant(merge=merges_full), {MERGED: "merged into a new one, which has seen nothing"}),
    "merges nothing as one row": (mutant(merge=counts_nothing), {MERGED: "merged with a new one: gap differs"}),
    "small figures, averages of averages": (
        mutant(update=averages, compute=lambda self: {"gap": 1e-7 * Gap.compute(self)["gap"]}),
        {PARTS: "in three updates and in one", MERGED: "merged and at once"},
    ),
    "small figures": (computing(lambda f: {"gap": 1e-7 * f["gap"]}), {}),
    "compute spends": (mutant(compute=spends), {SEEDED: "compute asked twice gave"}),
    "kept in the class": (
        mutant(reset=of_the_class, merge=lambda self, other: None),
        {COPIED: "raised InputError", MERGED: ""},
    ),
    "looks at the first row": (
        mutant(update=first_rows, compute=lambda self: {"gap": Gap.compute(self)["gap"] + 0.5 * self.first}),
        {ORDER: "in another order", RESET: "after reset and new", MERGED: "merged into a new one, which has seen"},
    ),
    "forgets half": (mutant(reset=forgets_half), {RESET: "after reset and new", SEEDED: "measuring twice gave"}),
    "zero for nothing": (mutant(compute=optimistic), {EMPTY: "without data: expected GenxaiError"}),
    "a lambda": (mutant(reset=holds_lambda), {COPIED: "cannot be copied (sent to another process)"}),
    "writes": (mutant(update=writes_labels), {ALONE: "changed real.labels"}),
    "NaN for NaN": (mutant(update=unchecked), {REFUSED: "with one NaN: expected GenxaiError, but nothing was raised"}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails_its_check_and_no_other(conforms, failures, name):
    cls, expected = MUTANTS[name]
    found = failures(conforms(MetricTests, cls))
    assert found.keys() == expected.keys()
    for check, text in expected.items():
        assert text in found[check]


def test_every_check_has_a_mutant():
    own = {n for n in vars(MetricTests) if n.startswith("test_")}
    assert own == {check for _, expected in MUTANTS.values() for check in expected} | {FITTING, MODEL}


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"needs": {"real", "generated"}}, "needs = {"),
        ({"needs": frozenset({"pictures"})}, "needs = frozenset({'pictures'})"),
        ({"needs": frozenset({"real"})}, "update takes real, generated, needs says real"),
    ],
)
def test_needs_that_are_wrong(conforms, failures, members, text):
    tests = conforms(MetricTests, mutant(**members), good=lambda self: {})
    assert text in failures(tests, TAKES)[TAKES]


# -- metrics of explanations --------------------------------------------------------------------------------------


class Inside(Metric):
    """Share of a map's energy that lies in the mask."""

    needs = frozenset({"explanation", "inputs", "masks", "model"})
    higher_is_better = {"inside": True}

    def __init__(self) -> None:
        self.reset()

    def reset(self):
        self.shares = []

    def update(self, *, explanation, inputs, masks, model):
        if len(inputs) == 0 or not torch.isfinite(explanation.maps).all() or not torch.isfinite(inputs.images).all():
            raise InputError("metric/inside: maps or images hold NaN, or there are none")
        self.check(explanation.maps, inputs.images, masks)
        self.judge(model, inputs.images)
        energy = explanation.maps.double().square()
        self.shares += ((energy * masks[:, 0]).sum((1, 2)) / energy.sum((1, 2))).tolist()

    def check(self, maps, images, masks):
        if len(maps) != len(images) or maps.shape[1:] != images.shape[2:] or masks[:, 0].shape != maps.shape:
            raise InputError("metric/inside: maps, masks and images do not fit")

    def judge(self, model, images):
        if not isinstance(model, Discriminator):
            raise InputError("metric/inside asks a discriminator")
        model(images)

    def compute(self):
        if not self.shares:
            raise InputError("metric/inside has seen no data")
        return {"inside": sum(self.shares) / len(self.shares)}

    def merge(self, other):
        self.shares += other.shares


def inside(**members):
    return type("Mutant", (Inside,), {"__doc__": Inside.__doc__, **members})


@pytest.mark.parametrize(
    ("members", "check", "text"),
    [
        ({}, None, ""),
        ({"check": lambda self, maps, images, masks: None}, FITTING, "expected GenxaiError, but"),
        ({"judge": lambda self, model, images: model is None or model(images)}, MODEL, "with Identity as model"),
    ],
)
def test_a_metric_of_explanations(conforms, failures, members, check, text):
    found = failures(conforms(MetricTests, inside(**members) if members else Inside))
    if members:
        del found[COPIED]  # a class that is made here cannot be found by its name
    assert list(found) == ([check] if check else [])
    assert text in found.get(check, "")


def test_what_is_not_computed_of_parts_says_why(conforms, failures, run):
    tests = conforms(MetricTests, mutant(update=averages), mergeable=False)
    assert set(failures(tests)) == {PARTS, MERGED, ORDER}
    tests = type("T", (tests,), {"mergeable_reason": "one figure of a whole training"})
    assert "is not computed of parts: one figure of a whole training" in run(tests, PARTS)[PARTS]
    assert failures(tests) == {}
