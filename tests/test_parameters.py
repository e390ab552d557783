"""What a constructor accepts: names, types, places, and the documentation of each."""

import math
from abc import ABC
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional

import pytest
import torch
from torch import nn

from genxai_core import Attribution, Explainer, Samples, Spec, parameters
from genxai_core.errors import BadParameter

if TYPE_CHECKING:
    from torch import Tensor


def check(target, _name="kind/thing", _where="", **params):
    return parameters.check(target, params, name=_name, where=_where)


def refusal(target, where="", **params):
    with pytest.raises(BadParameter) as caught:
        check(target, _where=where, **params)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 300
    return str(caught.value)


def cam(layer: str, method: Literal["gradcam", "layercam"] = "gradcam", *, steps: int = 3) -> None: ...


# -- names -----------------------------------------------------------------------------------------------------------


def test_an_unknown_name_gets_the_nearest_one_and_all_others():
    assert refusal(cam, "p.yaml:7: steps.cams.with", layr="x") == (
        "p.yaml:7: steps.cams.with.layr: kind/thing has no such parameter; did you mean 'layer'? "
        "(it accepts: layer, method, steps)"
    )
    assert "did you mean" not in refusal(cam, zzzzz=1, layer="x")


def test_a_missing_one_is_named_with_its_place():
    assert refusal(cam) == "kind/thing: kind/thing needs 'layer', which is not given"
    assert refusal(cam, "p.yaml:7: steps.cams.with").startswith("p.yaml:7: steps.cams.with: kind/thing needs 'layer'")


def test_a_class_that_takes_nothing_says_none():
    class Bare:
        pass

    class Abstract(ABC):  # noqa: B024
        pass

    class Net(nn.Module):
        pass

    for target in (Bare, Abstract, Net):
        assert parameters.of(target) == ()
        assert check(target) == {}
        assert "(it accepts: none)" in refusal(target, x=1)


def test_parameters_are_in_order_with_defaults():
    layer, method, steps = parameters.of(cam)
    assert (layer.name, layer.required, layer.annotation) == ("layer", True, "str")
    assert (method.name, method.required, method.default) == ("method", False, "gradcam")
    assert (steps.default, steps.annotation) == (3, "int")
    assert not parameters.Parameter("x", "None", default=None).required, "None is a default"


def test_an_inherited_constructor_and_star_arguments():
    class Base:
        def __init__(self, size: int, *rest, **more) -> None: ...

    class Derived(Base):
        pass

    assert [p.name for p in parameters.of(Derived)] == ["size"]
    assert "(it accepts: size)" in refusal(Derived, size=1, more=2)


# -- types -----------------------------------------------------------------------------------------------------------


def everything(
    i: int = 0,
    f: float = 0.0,
    b: bool = False,
    s: str = "",
    path: Path | None = None,
    pair: tuple[int, int] = (0, 0),
    many: tuple[float, ...] = (),
    names: list[str] | None = None,
    table: dict[str, float] | None = None,
    choice: Literal["a", 1] = "a",
    layer: int | Literal["auto"] = "auto",
    spec: Spec | None = None,
    specs: list[Spec] | None = None,
    optional: Optional[int] = None,  # noqa: UP045 - an author may write it so
    anything: Any = None,
    module: nn.Module | None = None,
    samples: Samples | None = None,
    several: list[Samples] | None = None,
    attribution: Attribution | None = None,
    tensor: "Tensor | None" = None,
    absent: "torch.NoSuchThing | None" = None,
    free=None,
) -> None: ...


SAMPLES = Samples(torch.zeros(1, 1, 2, 2), value_range=(0.0, 1.0))
ATTRIBUTION = Attribution(torch.zeros(1, 2, 2))

GOOD = [
    ("i", 3, 3),
    ("i", -(10**30), -(10**30)),
    ("f", 1, 1.0),
    ("f", 1.5, 1.5),
    ("f", math.inf, math.inf),
    ("b", True, True),
    ("s", "3", "3"),
    ("path", "a/b", Path("a/b")),
    ("path", Path("a"), Path("a")),
    ("path", None, None),
    ("pair", [1, 2], (1, 2)),
    ("pair", (1, 2), (1, 2)),
    ("many", [1, 2.5], (1.0, 2.5)),
    ("many", [], ()),
    ("names", ["a"], ["a"]),
    ("table", {"a": 1}, {"a": 1.0}),
    ("choice", "a", "a"),
    ("choice", 1, 1),
    ("layer", "auto", "auto"),
    ("layer", 2, 2),
    ("spec", Spec("a/b"), Spec("a/b")),
    ("specs", [Spec("a/b")], [Spec("a/b")]),
    ("optional", None, None),
    ("optional", 2, 2),
    ("anything", {"x": [1]}, {"x": [1]}),
    ("free", "x", "x"),
]

BAD = [
    *[("i", v) for v in (True, "3", 3.0, None, [3], math.nan)],
    *[("f", v) for v in (True, "1.0", None)],
    *[("b", v) for v in (1, 0, "true", None)],
    *[("s", v) for v in (1, True, None, ["a"])],
    *[("path", v) for v in (1, True, ["a"])],
    *[("pair", v) for v in ([1], [1, 2, 3], [1, "2"], [1, True], 1, "12", (1, 2.5))],
    *[("many", v) for v in (1.5, ["1"], "12")],
    *[("names", v) for v in ("a", [1])],
    *[("table", v) for v in ({"a": "1"}, [1])],
    *[("choice", v) for v in ("b", "1", 2, None)],
    *[("layer", v) for v in ("last", 1.5, True)],
    *[("spec", v) for v in ("generator/dcgan", 3, {"using": "x"})],
    *[("specs", v) for v in (["generator/dcgan"], Spec("a/b"))],
    *[("optional", v) for v in ("1", 1.5)],
    *[("module", v) for v in (3, "relu", SAMPLES)],
    *[("samples", v) for v in (3, torch.zeros(2, 3), ATTRIBUTION)],
    *[("attribution", v) for v in ({"maps": [1]}, SAMPLES)],
    ("i", torch.zeros(4, 5)),
    ("s", "\ud800"),
]


@pytest.mark.parametrize(("name", "given", "expected"), GOOD)
def test_what_fits_is_taken_and_converted_as_the_annotation_says(name, given, expected):
    found = check(everything, **{name: given})[name]
    assert found == expected
    if not (name == "f" and given == 1):
        assert type(found) is type(expected)


@pytest.mark.parametrize("name", ["module", "samples", "several", "attribution", "tensor", "absent"])
def test_objects_pass_as_they_are(name):
    objects = {"module": nn.ReLU(), "samples": SAMPLES, "several": [SAMPLES], "attribution": ATTRIBUTION}
    value = objects.get(name, object())
    assert check(everything, **{name: value})[name] is value
    assert check(everything, **{name: None})[name] is None


@pytest.mark.parametrize(("name", "given"), BAD)
def test_what_does_not_fit_is_refused_with_name_value_and_type(name, given):
    message = refusal(everything, "p.yaml:3: steps.a.with", **{name: given})
    assert message.startswith(f"p.yaml:3: steps.a.with.{name}: ")
    assert " does not fit " in message
    assert "pydantic" not in message
    assert "JsonOrPython" not in message


def test_a_long_value_is_cut():
    assert len(refusal(everything, i="x" * 10_000)) < 200


def test_postponed_annotations_are_resolved_where_they_were_written():
    from genxai_core.draws import normal

    assert normal.__annotations__["seed"] == "int", "or this test tests nothing"
    assert "does not fit int" in refusal(normal, seed="3", indices=[0], shape=[2])


def test_references_are_not_checked_but_their_neighbours_are():
    def is_reference(value):
        return isinstance(value, str) and value.startswith("$")

    params = {"i": "$a", "pair": [1, "$b"], "table": {"x": "$c"}, "f": 1}
    found = parameters.check(everything, params, name="n", unknown_values=is_reference)
    assert found == params
    with pytest.raises(BadParameter, match=r"n: b: "):
        parameters.check(everything, {"i": "$a", "b": 3}, name="n", unknown_values=is_reference)


# -- documentation ---------------------------------------------------------------------------------------------------


class Documented:
    """A thing.

    Parameters
    ----------
    a, b : int
        Two sizes,
        in pixels.
    plain
        Without a type.
    typed: {'x', 'y'}
        With a colon at once.
    *rest
        Not a parameter of a pipeline.

        A second paragraph.

    Raises
    ------
    ValueError
        Never.
    """

    def __init__(self, a: int, b: int, plain: str, typed: str, undocumented: int = 1) -> None: ...


def test_numpydoc_is_read():
    docs = {p.name: p.doc for p in parameters.of(Documented)}
    assert docs == {
        "a": "Two sizes, in pixels.",
        "b": "Two sizes, in pixels.",
        "plain": "Without a type.",
        "typed": "With a colon at once.",
        "undocumented": "",
    }


def test_the_class_docstring_wins_over_the_constructor_and_both_are_read():
    class Both:
        """A thing.

        Parameters
        ----------
        a
            From the class.
        """

        def __init__(self, a: int, b: int) -> None:
            """Make one.

            Parameters
            ----------
            a
                From the constructor.
            b
                Only here.
            """

    assert [p.doc for p in parameters.of(Both)] == ["From the class.", "Only here."]


def test_no_docstring_and_a_strange_one_give_empty_texts():
    class Strange:
        """Parameters
        ----------"""

        def __init__(self, a: int) -> None: ...

    def bare(a): ...

    assert [p.doc for p in (*parameters.of(Strange), *parameters.of(bare))] == ["", ""]


def test_an_explainer_without_a_constructor_takes_nothing():
    class Mine(Explainer):
        def _explain(self, model, inputs, target): ...

    assert parameters.of(Mine) == ()
