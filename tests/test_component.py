"""The frozen declarations: Component and Spec."""

import dataclasses

import pytest

from genxai_core import Component, Spec, component, errors
from genxai_core.errors import BadComponent


def declare(**changes):
    return Component(**{"kind": "explainer", "name": "cam", "target": "a.b:C", "summary": "maps", **changes})


def test_a_component_is_frozen_and_knows_its_full_name():
    cam = declare()
    assert cam.full_name == "explainer/cam"
    assert cam.api == component.API == 1
    assert cam == declare()
    assert len({cam, declare(), declare(name="cam-2")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        cam.name = "other"


@pytest.mark.parametrize("name", ["cam", "integrated-gradients", "kid3", "2d", "a-b-c"])
def test_good_names(name):
    assert declare(name=name).name == name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        *[({"name": n}, "kebab-case") for n in ("Cam", "a_b", "a--b", "-a", "a-", "", "a b", "a/b", "a@b", "é", "a\n")],
        *[({"name": n}, "kebab-case") for n in (None, 3)],
        *[({"kind": k}, "is not one of generator, discriminator") for k in ("explainers", "", None, ["explainer"])],
        *[({"target": t}, "package.module:Attribute") for t in ("a.b.C", "a:b:c", ":C", "a:", "a b:C", "a/b:C")],
        *[({"target": t}, "package.module:Attribute") for t in ("a:b.c", "a:b\n", None)],
        *[({"summary": s}, "one line") for s in ("", "  ", "a\nb", "a\n", "a\rb", "a\u2028b", None)],
    ],
)
def test_what_is_malformed_is_refused_in_one_line(changes, said):
    with pytest.raises(BadComponent, match=said) as caught:
        declare(**changes)
    assert len(str(caught.value).splitlines()) == 1


def test_a_spec_has_no_parameters_by_default_and_does_not_share_them():
    assert dict(Spec("generator/dcgan").params) == {}
    assert Spec("a/b", {"x": 1}) == Spec("a/b", {"x": 1}) != Spec("a/b", {"x": 2})


def test_every_error_is_a_genxai_error_with_an_exit_code_and_a_docstring():
    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.GenxaiError)]
    assert len(kinds) > 15
    for kind in kinds:
        assert kind.__doc__
        assert kind.exit_code in (1, 2, 3, 4, 130)
    assert not issubclass(errors.GenxaiWarning, errors.GenxaiError)
