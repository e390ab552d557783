"""Every check of `ExplainerTests` fails on the explainer that breaks it, alone, and says how to mend it."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from genxai_core import Attribution, Discriminator, Explainer, Samples
from genxai_core.errors import TargetError
from genxai_core.testing import ExplainerTests


class Good(Explainer):
    """Input times gradient: maps [N, H, W], in logits."""

    explains, accepts, returns = "discriminator", "images", Attribution

    def _maps(self, model, images, target):
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(images)[:, target].sum(), images)
        return (images * gradient).sum(1).detach()

    def _explain(self, model, images, target):
        return Attribution(maps=self._maps(model, images, target), target=target)


def mutant(**members):
    """A class that is `Good` but for some of its members."""
    return type("Mutant", (Good,), {"__doc__": Good.__doc__, **members})


def mapped(change):
    """Good's map, changed by a function of the map and the images."""

    def explain(self, model, images, target):
        return Attribution(maps=change(self._maps(model, images, target), images), target=target)

    return mutant(_explain=explain)


def around(function):
    """An explainer that does something around the base class's `explain`, which its guard does not see."""

    def explain(self, model, inputs=None, *, target=None, runtime=None):
        def base(model=model, inputs=inputs, target=target):
            return Good.explain(self, model, inputs, target=target, runtime=runtime)

        return function(base, model, inputs, target)

    return mutant(explain=explain)


# -- mutants ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Nameless(Attribution):
    type_name: ClassVar[str] = "nameless"


@dataclass(frozen=True, eq=False)
class Blank(Attribution):
    type_name: ClassVar[str] = "blank"

    def plot(self, n=8, title=""):
        return None


@dataclass(frozen=True, eq=False)
class Rough(Attribution):
    type_name: ClassVar[str] = "rough"

    def table(self):
        return [{"sum": self.maps.sum()}]


@dataclass(frozen=True, eq=False)
class Doubling(Attribution):
    type_name: ClassVar[str] = "doubling"

    def __post_init__(self):
        object.__setattr__(self, "maps", self.maps * (1 + 2 ** -len(self.notes)))
        super().__post_init__()


def returning(kind, **fields):
    def explain(self, model, images, target):
        return kind(maps=self._maps(model, images, target), target=target, **fields)

    return mutant(returns=kind, _explain=explain)


def with_delta(delta):
    def explain(self, model, images, target):
        maps = self._maps(model, images, target)
        return Attribution(maps=maps, target=target, delta=torch.full((len(maps),), delta()))

    return mutant(_explain=explain)


def other_type(base, model, inputs, target):
    return {"maps": base().maps}


def unstamped(base, model, inputs, target):
    return dataclasses.replace(base(), provenance={})


def first_half(base, model, inputs, target):
    return base()[: max(1, len(inputs) // 2)]


def requires_gradient(base, model, inputs, target):
    result = base()
    if isinstance(inputs, torch.Tensor):
        inputs.requires_grad_()
    return result


def leaves_eval_mode(base, model, inputs, target):
    result = base()
    model.eval()
    return result


def draws_on(base, model, inputs, target):
    result = base()
    torch.rand(1)
    return result


def flinches_at_bad_target(base, model, inputs, target):
    try:
        return base()
    except TargetError:
        model.register_forward_hook(lambda *_: None)
        raise


def guesses_target(base, model, inputs, target):
    try:
        return base()
    except TargetError:
        return base(target=0)


def leaves_hook_when_it_raises(base, model, inputs, target):
    try:
        return base()
    except Exception as error:
        if "the model raised" in str(error):
            model.register_forward_hook(lambda *_: None)
        raise


def hides_cause(base, model, inputs, target):
    try:
        return base()
    except Exception as error:
        if "the model raised" in str(error):
            raise RuntimeError("something went wrong") from None
        raise


def swallows(base, model, inputs, target):
    try:
        return base()
    except Exception as error:
        if "the model raised" in str(error):
            return None
        raise


def swallows_its_own_call(self, model, images, target):
    try:
        maps = self._maps(model, images, target)
    except Exception:
        maps = torch.zeros_like(images[:, 0])
    return Attribution(maps=maps, target=target)


def takes_any_model(base, model, inputs, target):
    return base() if isinstance(model, Discriminator) else None


def invents_inputs(base, model, inputs, target):
    return base() if isinstance(inputs, torch.Tensor | Samples) else None


def accepts_empty(base, model, inputs, target):
    return None if isinstance(inputs, torch.Tensor) and len(inputs) == 0 else base()


def mends_nan(base, model, inputs, target):
    return base(inputs=inputs.nan_to_num(0, 0, 0)) if isinstance(inputs, torch.Tensor) else base()


def crops(base, model, inputs, target):
    odd = isinstance(inputs, torch.Tensor) and inputs.shape[1:] != (1, 16, 16) and len(inputs)
    return None if odd else base()


def clamps(base, model, inputs, target):
    return base(inputs=inputs.float().clamp(-1, 1)) if _floats(inputs) else base()


def _floats(inputs):
    return isinstance(inputs, torch.Tensor) and inputs.ndim == 4 and len(inputs) and bool(torch.isfinite(inputs).all())


SAVED = "test_its_result_survives_saving"
DECLARED = "test_it_returns_what_it_declares"
SHOWN = "test_its_result_can_be_shown"
BATCHED = "test_one_at_a_time_equals_batched"
SEEDED = "test_the_same_seed_gives_the_same_result"
SIGNED = "test_positive_speaks_for_the_target"
PLACED = "test_the_map_is_of_its_target_at_its_place"
CONSTANT = "test_a_constant_model_gets_a_map_of_zero"
FINITE = "test_its_numbers_are_finite"
HALF = "test_bfloat16_gives_finite_numbers"
UNHOOKED = "test_attribute_leaves_no_trace_when_the_model_raises"
LEFT = "test_the_model_is_left_as_it_was"
AFTER_TARGET = f"{LEFT}_after_a_bad_target"
AFTER_RAISING = f"{LEFT}_after_it_raised"

MUTANTS = {
    "nothing is wrong": (Good, {}),
    "a type that nobody registered": (
        returning(Nameless),
        {DECLARED: "no component is named 'explanation/nameless'", SAVED: "loaded as GenericExplanation"},
    ),
    "rows are missing": (around(first_half), {DECLARED: "2 rows for 5 inputs"}),
    "NaN beside the maps": (with_delta(lambda: float("nan")), {FINITE: "infinity in delta", HALF: "in bfloat16"}),
    "NaN in bfloat16": (
        with_delta(lambda: float("nan") if torch.is_autocast_enabled("cpu") else 0.0),
        {HALF: "infinity in delta in bfloat16"},
    ),
    "no provenance": (around(unstamped), {"test_provenance_is_stamped": "the provenance says {}"}),
    "a note that cannot be saved": (returning(Attribution, notes={"f": object()}), {SAVED: "cannot be saved"}),
    "batch normalised": (
        mapped(lambda maps, images: maps / maps.abs().max().clamp(min=1e-9)),
        {BATCHED: "batches of 2 and of all differ: maps differs by"},
    ),
    "noise of the seed, not declared": (
        mapped(lambda maps, images: maps + 1e-7 * torch.rand_like(maps)),
        {SEEDED: "declare stochastic = True"},
    ),
    "noise without a seed": (
        with_delta(lambda: 1e-6 * random.SystemRandom().random()),
        {SEEDED: "the same seed gave two results"},
    ),
    "magnitudes": (mapped(lambda maps, images: maps.abs()), {SIGNED: "the patch speaks against the target"}),
    "opposite": (
        mapped(lambda maps, images: -maps),
        {SIGNED: "where the patch speaks for the target", PLACED: "the map of logit 0 of two sums up to -"},
    ),
    "upside down": (
        mapped(lambda maps, images: maps.flip(1, 2)),
        {SIGNED: "only 0% of a map's energy", PLACED: "only 0% of a map's energy"},
    ),
    "an offset": (mapped(lambda maps, images: maps + 0.01), {CONSTANT: "the map reaches 0.01"}),
    "writes into the inputs": (
        around(requires_gradient),
        {"test_inputs_are_not_written_into": "wrote into inputs"},
    ),
    "eval mode stays": (around(leaves_eval_mode), {LEFT: "the train/eval flag of"}),
    "draws": (around(draws_on), {LEFT: "torch's random generator"}),
    "a hook stays after a bad target": (around(flinches_at_bad_target), {AFTER_TARGET: "forward_hooks"}),
    "guesses the target": (around(guesses_target), {AFTER_TARGET: "expected TargetError, but nothing was raised"}),
    "a hook stays after raising": (
        around(leaves_hook_when_it_raises),
        {AFTER_RAISING: "the model raised at its call 1"},
    ),
    "hides the cause": (around(hides_cause), {AFTER_RAISING: "hid what the model raised"}),
    "swallows": (around(swallows), {AFTER_RAISING: "swallowed an error"}),
    "swallows at a later call": (
        mutant(_explain=swallows_its_own_call),
        {AFTER_RAISING: "swallowed an error that the model raised at its call 2"},
    ),
    "any model": (
        around(takes_any_model),
        {"test_a_model_that_lacks_what_it_needs_is_refused": "with LinearGenerator: expected InputError"},
    ),
    "invents inputs": (around(invents_inputs), {"test_missing_inputs_are_refused": "with inputs None"}),
    "accepts none": (around(accepts_empty), {"test_empty_inputs_are_refused": "with inputs empty"}),
    "mends NaN": (around(mends_nan), {"test_inputs_with_nan_are_refused": "with inputs with one nan"}),
    "any shape": (
        around(crops),
        {"test_inputs_of_wrong_shape_are_refused": "without the channel axis", PLACED: "two logits raised"},
    ),
    "any range": (around(clamps), {"test_inputs_out_of_range_are_refused": "with inputs ten times as large"}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails_its_check_and_no_other(conforms, failures, name):
    cls, expected = MUTANTS[name]
    found = failures(conforms(ExplainerTests, cls))
    assert found.keys() == expected.keys()
    for check, text in expected.items():
        assert text in found[check]


def test_every_check_has_a_mutant():
    own = {n for n in dir(ExplainerTests) if n.startswith("test_")} - {
        n for n in dir(ExplainerTests.__mro__[-2]) if n.startswith("test_")
    }
    tested = {check for _, expected in MUTANTS.values() for check in expected}
    elsewhere = {PLACED, SHOWN, UNHOOKED, "test_attribute_equals_explain", "test_cuda_agrees_with_the_cpu"}
    assert own == tested | elsewhere


# -- types --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "check", "text"),
    [
        (Blank, SHOWN, "plot() of its Blank gave NoneType"),
        (Rough, SHOWN, "with 'sum': Tensor"),
        (Doubling, SAVED, "after saving and loading, maps differs"),
    ],
)
def test_a_result_type_that_is_wrong(isolated_registry, conforms, failures, kind, check, text):
    isolated_registry.register(f"explanation/{kind.type_name}", kind)
    found = failures(conforms(ExplainerTests, returning(kind)), check, DECLARED)
    assert list(found) == [check]
    assert text in found[check]


def test_a_result_of_another_type_than_declared(conforms, failures):
    found = failures(conforms(ExplainerTests, around(other_type)), DECLARED)
    assert "returned dict" in found[DECLARED]
    found = failures(conforms(ExplainerTests, mutant(accepts="image")), DECLARED)
    assert "accepts = 'image'" in found[DECLARED]


def test_an_explainer_that_never_works_is_not_said_to_hide_an_error(conforms, failures):
    small = mapped(lambda maps, images: maps[:, ::2, ::2])
    text = failures(conforms(ExplainerTests, small), AFTER_RAISING)[AFTER_RAISING]
    assert "though the model raised nothing" in text
    assert "hid" not in text


# -- skips, and traits --------------------------------------------------------------------------------------------


def test_what_does_not_apply_is_skipped_with_its_reason(conforms, run):
    found = run(conforms(ExplainerTests, Good))
    assert "does not work inside training steps" in found["test_attribute_equals_explain"]
    assert "registered by the test itself" in found["test_it_is_found_through_its_installed_entry_point"]
    if not torch.cuda.is_available():
        assert "no CUDA device" in found["test_cuda_agrees_with_the_cpu"]


def test_a_method_without_sign_says_why(conforms, failures):
    magnitudes = mapped(lambda maps, images: maps.abs())
    opposite = mapped(lambda maps, images: -maps)
    for cls, sign, passes in [
        (magnitudes, "positive", True),
        (magnitudes, "unsigned", True),
        (opposite, "unsigned", True),
        (opposite, "positive", False),
    ]:
        tests = conforms(ExplainerTests, cls, sign=sign, sign_reason="by definition")
        assert (failures(tests, SIGNED) == {}) is passes
    assert "without a reason" in failures(type("TestMute", (tests,), {"sign_reason": " "}), SIGNED)[SIGNED]


def per_batch(self, model, images, target):
    maps = self._maps(model, images, target)
    return Attribution(maps=maps * (1 + 0.01 * torch.rand(len(maps), 1, 1)), target=target)


def test_monte_carlo_error_is_for_those_that_declare_it(conforms, failures):
    tests = conforms(ExplainerTests, mutant(_explain=per_batch, stochastic=True))
    assert list(failures(tests)) == [BATCHED]
    assert failures(type("TestLoose", (tests,), {"monte_carlo": 0.02})) == {}
    undeclared = conforms(ExplainerTests, Good, monte_carlo=0.1)
    assert "does not declare stochastic = True" in failures(undeclared, BATCHED)[BATCHED]
