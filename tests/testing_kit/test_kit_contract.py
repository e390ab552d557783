"""What all kinds promise: found, declared, documented, built again; failures that are known; tests that pytest runs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import genxai_core
from genxai_core import Component, hookimpl, registry
from genxai_core.interfaces import Explainer
from genxai_core.plugins import PluginHost
from genxai_core.testing import ComponentTests, ExplainerTests, IsolatedRegistry, with_plugin

OCCLUDE = Path(__file__).resolve().parents[2] / "examples" / "occlude.py"

FOUND = "test_it_is_found_through_its_installed_entry_point"
DECLARED = "test_its_declaration_is_valid"
LIGHT = "test_its_plugin_imports_no_torch"
PARAMETERS = "test_its_parameters_are_explicit_annotated_and_documented"
DOCUMENTED = "test_its_docstring_states_what_it_does"
RECIPE = "test_its_recipe_builds_it_again"


class Documented(Explainer):
    """Maps [N, H, W] of nothing.

    Parameters
    ----------
    size
        A side.
    other
        Anything.
    """

    def __init__(self, size: int = 1, other: object = None) -> None:
        self.size = size

    def _explain(self, model, inputs, target): ...


class Starred(Documented):
    """Maps [N, H, W].

    Parameters
    ----------
    size
        A side.
    """

    def __init__(self, size: int = 1, **options: int) -> None: ...


class Unannotated(Documented):
    """Maps [N, H, W].

    Parameters
    ----------
    size
        A side.
    """

    def __init__(self, size=1) -> None: ...


class Undocumented(Documented):
    """Maps [N, H, W].

    Parameters
    ----------
    sizes
        A side.
    """

    def __init__(self, size: int = 1) -> None: ...


class Shapeless(Documented):
    """Maps of nothing (see [1], and x[0]).

    Parameters
    ----------
    size, other
        Sides.
    """


class Mute(Documented):
    def __init__(self) -> None: ...


@pytest.mark.parametrize(
    ("cls", "members", "check", "text"),
    [
        (Documented, {}, None, ""),
        (Starred, {}, PARAMETERS, "the constructor takes **options"),
        (Unannotated, {}, PARAMETERS, "parameter 'size' has no annotation"),
        (Undocumented, {}, PARAMETERS, "parameter 'size' is not documented"),
        (Shapeless, {}, DOCUMENTED, "the docstring of Shapeless states no shape"),
        (Mute, {}, DOCUMENTED, "Mute has no docstring"),
        (Documented, {"params": {"other": object()}}, RECIPE, "cannot be saved and built again"),
        (Documented, {"summary": "long " * 30}, DECLARED, "too many for a line of a table"),
        (int, {}, DECLARED, "is not a subclass of Explainer"),
    ],
)
def test_a_mutant_fails_its_check(conforms, failures, cls, members, check, text):
    tests = conforms(ComponentTests, cls, "explainer", **{"shapes": "[N, H]", **members})
    found = failures(tests, *([DECLARED] if cls is int else []))
    assert list(found) == ([check] if check else [])
    assert text in found.get(check, "")


def test_a_component_without_shapes_needs_none(conforms, failures):
    assert failures(conforms(ComponentTests, Shapeless, "explainer")) == {}


def test_a_name_that_is_not_there(isolated_registry, failures):
    tests = type("T", (ComponentTests,), {"component": "explainer/occlud"})
    assert "no component is named 'explainer/occlud'" in failures(tests, FOUND)[FOUND]


def test_a_component_of_another_api(isolated_registry, failures):
    plugin = type("Plugin", (), {})()
    plugin.genxai_components = hookimpl(lambda: [Component("explainer", "new", "m:C", "of tomorrow", api=2)])
    isolated_registry.host._add(plugin, "stranger", "1")
    text = failures(type("T", (ComponentTests,), {"component": "explainer/new"}), DECLARED)[DECLARED]
    assert "declares plugin API 2; this kit checks 1" in text


# -- installed ----------------------------------------------------------------------------------------------------

MODULE = """
from genxai_core import Component, hookimpl
{extra}
@hookimpl
def genxai_components():
    {inside}
    return [Component("explainer", "strange", "{module}:Strange", "a stranger's")]
def __getattr__(name):
    from genxai_core import Explainer
    return type("Strange", (Explainer,), {{"_explain": lambda self, model, inputs, target: None}})
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a plugin as far as Python's metadata are concerned: a module and a dist-info with an entry point."""

    def make(module, extra="", inside="pass", entry=True):
        (tmp_path / f"{module}.py").write_text(MODULE.format(extra=extra, inside=inside, module=module))
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[genxai]\nx = {module}\n" if entry else "[other]\nx = y\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        return type("TestStranger", (ExplainerTests,), {"component": "explainer/strange"})

    return make


@pytest.fixture
def discovered():
    """The process's registry, discovered anew."""
    from genxai_core import builtin

    def discover(*modules):
        return registry.using(registry.Registry(PluginHost(builtin=[builtin, *modules])))

    return discover


def test_an_installed_plugin_is_found_and_light(install, discovered, failures, run):
    tests = install("kit_stranger_light")
    with discovered():
        assert run(tests, FOUND, LIGHT, DECLARED) == {FOUND: None, LIGHT: None, DECLARED: None}


@pytest.mark.parametrize(("extra", "inside"), [("import torch", "pass"), ("", "from torch import nn")])
def test_a_plugin_that_imports_torch(install, discovered, failures, extra, inside):
    tests = install(f"kit_stranger_heavy_{len(extra)}", extra, inside)
    with discovered():
        found = failures(tests, FOUND, LIGHT)
    assert list(found) == [LIGHT]
    assert "is not light: it imports torch" in found[LIGHT]


def test_a_plugin_that_cannot_be_loaded_alone(install, discovered, failures):
    tests = install("kit_stranger_fails", "import sys\nif 'pytest' not in sys.modules: raise RuntimeError('alone')")
    with discovered():
        assert "it cannot be loaded alone: RuntimeError: alone" in failures(tests, LIGHT)[LIGHT]


def test_a_plugin_without_an_entry_point(install, discovered, failures):
    tests = install("kit_stranger_hidden", entry=False)
    with discovered() as found:
        text = failures(tests, FOUND)[FOUND]
        assert "no component is named 'explainer/strange'" in text
        assert "[project.entry-points.genxai]" in text
        found.host._add(__import__("kit_stranger_hidden"), "kit-stranger-hidden", "1.0")
        text = failures(tests, FOUND)[FOUND]
    assert "no entry point of kit-stranger-hidden leads to kit_stranger_hidden" in text


def test_an_ambiguous_name_is_decided_by_its_distribution(install, discovered, run):
    tests = install("kit_stranger_one")
    install("kit_stranger_two")
    with discovered():
        named = type("T", (tests,), {"component": "explainer/strange@kit-stranger-two"})
        assert run(named, FOUND) == {FOUND: None}
        with with_plugin(None):
            assert named().provided().plugin.distribution == "kit-stranger-two"


# -- a plugin file ------------------------------------------------------------------------------------------------


class TestOccludeFromAFile(ExplainerTests):
    """The tutorial's explainer, held to the kit before it is packaged."""

    component = "explainer/occlude"
    plugin = OCCLUDE


def test_a_file_is_loaded_for_the_class_alone(run):
    assert "occlude.py, not installed: package it" in run(TestOccludeFromAFile, FOUND)[FOUND]
    assert run(TestOccludeFromAFile, LIGHT) == {LIGHT: None}
    assert "occlude" not in sys.modules
    assert not any(p.component.full_name == "explainer/occlude" for p in registry.default().provided())


def test_a_relative_file_lies_beside_the_test(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tests = type("T", (TestOccludeFromAFile,), {"plugin": "../../examples/occlude.py", "__module__": __name__})
    assert tests().plugin_file().resolve() == OCCLUDE
    assert run(tests, DECLARED) == {DECLARED: None}


def test_a_file_that_imports_torch(tmp_path, failures):
    (tmp_path / "kit_heavy_file.py").write_text(MODULE.format(extra="import torch", inside="pass", module="x"))
    tests = type("T", (ExplainerTests,), {"component": "explainer/strange", "plugin": tmp_path / "kit_heavy_file.py"})
    assert "is not light: it imports torch" in failures(tests, LIGHT)[LIGHT]


def test_the_tiny_models_are_registered_only_while_a_class_runs():
    names = {"generator/tiny-linear", "discriminator/tiny-patch", "dataset/tiny-patches"}

    def known():
        return {p.component.full_name for p in registry.default().provided()}

    assert not names & known()
    with with_plugin(None):
        assert names <= known()
        with with_plugin(None):
            assert names <= known()
        assert names <= known()
    assert not names & known()


def test_an_isolated_registry_sees_nothing_that_is_installed(isolated_registry):
    assert isinstance(isolated_registry, IsolatedRegistry)
    assert registry.default() is isolated_registry
    assert {p.plugin.distribution for p in isolated_registry.provided()} == {"genxai-core"}
    assert isolated_registry.register("explainer/x", Documented) == "explainer/x"
    assert type(genxai_core.create("explainer/x", size=2)) is Documented


# -- known failures -----------------------------------------------------------------------------------------------


def test_a_misspelt_known_failure_is_an_error():
    with pytest.raises(TypeError, match="there is no check 'test_positiv_speaks'; did you mean 'test_positive_speaks"):
        type("T", (ExplainerTests,), {"expected_failures": {"test_positiv_speaks": "why"}})
    with pytest.raises(TypeError, match="must say why"):
        type("T", (ExplainerTests,), {"expected_failures": {"test_its_numbers_are_finite": " "}})
    with pytest.raises(TypeError, match="'dataset/digits' is not of kind 'explainer'"):
        type("T", (ExplainerTests,), {"component": "dataset/digits"})


def test_a_known_failure_is_marked_for_its_class_alone():
    check = "test_its_numbers_are_finite"
    marked = type("T", (ExplainerTests,), {"expected_failures": {check: "NaN at zero"}})
    (mark,) = getattr(marked, check).pytestmark
    assert (mark.name, mark.kwargs) == ("xfail", {"strict": True, "reason": "NaN at zero"})
    assert not hasattr(getattr(ExplainerTests, check), "pytestmark")
    other = "test_provenance_is_stamped"
    below = type("T", (marked,), {"expected_failures": {other: "not yet"}})
    assert [m.name for c in (check, other) for m in getattr(below, c).pytestmark] == ["xfail", "xfail"]
    assert not hasattr(getattr(marked, other), "pytestmark")
    assert getattr(marked, check).__doc__ == getattr(ExplainerTests, check).__doc__
    assert inspect.signature(getattr(marked, check)) == inspect.signature(getattr(ExplainerTests, check))


AUTHORS = f"""
from genxai_core.testing import ExplainerTests, isolated_registry

class TestOcclude(ExplainerTests):
    component = "explainer/occlude"
    plugin = {str(OCCLUDE)!r}

class TestKnown(TestOcclude):
    expected_failures = {{"test_its_numbers_are_finite": "it does not"}}

    def model(self):
        raise AssertionError("no model")
"""


def test_an_authors_file_runs_under_pytest(tmp_path):
    (tmp_path / "test_author.py").write_text(
        AUTHORS
        + "\nclass TestPassesUnexpectedly(TestOcclude):\n"
        + "    expected_failures = {'test_its_numbers_are_finite': 'but they are'}\n"
        + "\ndef test_fixture(isolated_registry):\n    assert isolated_registry.resolve('generator/tiny-linear')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-rsxX", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    command += ["-k", "finite or entry_point or fixture", "test_author.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "[XPASS(strict)] but they are" in done.stdout
    assert "it does not" in done.stdout
    assert "package it to have this checked" in done.stdout
    assert re.search(r"2 failed, 4 passed, 3 skipped, \d+ deselected, 1 xfailed", done.stdout)
