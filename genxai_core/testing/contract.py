"""What every component promises, of whatever kind: how it is found, declared, documented and built."""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest

from .. import builtin, parameters, registry, saving
from ..component import API
from ..errors import GenxaiError
from ..plugins import GROUP, Plugin, canonical
from ..registry import Provided
from .expectations import expect, failure
from .fixtures import with_plugin
from .states import differences

_SHAPE = re.compile(r"\[([^\[\]]*,[^\[\]]*|[A-Za-z])\]")
"""``[N, H, W]``, ``[N]``, ``[U, concepts]``, ``[1, 4, 4]``; not ``[1]``, which is a reference."""


_MEND_FINDING = (
    f"let genxai_components return it, and name the module in pyproject.toml under [project.entry-points.{GROUP}]; "
    f"then install the project. Or set plugin = 'path/to/file.py'"
)


class ComponentTests:
    """The base of all kinds of conformance class. Subclass the one of your kind, and set `component`.

    Attributes
    ----------
    component
        The full name: ``"explainer/occlude"``.
    params
        Constructor parameters. Where they must be built (a file, a trained model), override `parameters` instead.
    plugin
        A plugin's file, for a component that is not packaged yet, beside the test or by its full path. It is loaded
        into a registry of its own; what concerns installing is then skipped.
    expected_failures
        ``{"test_…": "reason"}``: checks that are known to fail. Each must fail, or the class fails.
    rtol, atol
        Two results are equal if they differ by at most ``atol + rtol · (largest magnitude)``.
    """

    component: ClassVar[str] = ""
    params: ClassVar[Mapping[str, Any]] = {}
    plugin: ClassVar[Path | str | None] = None
    expected_failures: ClassVar[Mapping[str, str]] = {}
    rtol: ClassVar[float] = 1e-4
    atol: ClassVar[float] = 1e-5

    kind: ClassVar[str] = ""
    shapes: ClassVar[str] = ""
    """A shape that a docstring of this kind states, as an example; empty where none is asked for."""
    inherited: ClassVar[frozenset[str]] = frozenset()
    """Parameters that the base class documents."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.kind and cls.component and not cls.component.startswith(f"{cls.kind}/"):
            raise TypeError(f"{cls.__name__}: component {cls.component!r} is not of kind {cls.kind!r}: '{cls.kind}/…'")
        checks = [name for name in dir(cls) if name.startswith("test_")]
        for name, reason in cls.__dict__.get("expected_failures", {}).items():
            if name not in checks:
                near = difflib.get_close_matches(name, checks, n=1, cutoff=0.3)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{cls.__name__}.expected_failures: there is no check {name!r}{hint}")
            if not isinstance(reason, str) or not reason.strip():
                raise TypeError(f"{cls.__name__}.expected_failures[{name!r}] must say why, in words")
            setattr(cls, name, pytest.mark.xfail(strict=True, reason=reason)(_copy(getattr(cls, name))))

    # -- what an author may override ------------------------------------------------------------------------------

    def parameters(self) -> Mapping[str, Any]:
        """Return the constructor parameters; `params` unless overridden."""
        return self.params

    # -- what the checks use --------------------------------------------------------------------------------------

    @pytest.fixture(autouse=True)
    def _registry_of_the_kit(self) -> Iterator[None]:
        with with_plugin(self.plugin_file()):
            yield

    def plugin_file(self) -> Path | None:
        """Return the plugin's file; a relative path starts at the file that the class is written in."""
        if self.plugin is None:
            return None
        says = next(c for c in type(self).__mro__ if "plugin" in vars(c))
        return Path(inspect.getfile(says)).parent / self.plugin

    def build(self) -> Any:
        """Build the component through the registry, as a pipeline would."""
        return registry.create(self.component, **self.parameters())

    def provided(self) -> Provided:
        """Return the component's declaration, and the plugin that it comes from."""
        name, _, distribution = self.component.partition("@")
        for found in registry.default().provided():
            of = found.plugin.distribution
            if found.component.full_name == name and (not distribution or canonical(of) == canonical(distribution)):
                return found
        try:
            registry.default().find(self.component)
        except GenxaiError as error:
            raise failure(f"{self.component} is not to be had: {error}", _MEND_FINDING) from error
        raise failure(f"{self.component} is not in the registry", _MEND_FINDING)

    def target(self) -> Any:
        """Return the class (or function) that the component points at."""
        return registry.resolve(self.component)

    def skip(self, reason: str) -> NoReturn:
        """Skip a check, aloud."""
        pytest.skip(f"{self.component}: {reason}")

    def alike(self, one: Any, other: Any) -> list[str]:
        """Say where two values differ by more than the tolerance."""
        return differences(one, other, self.rtol, self.atol)

    # -- the checks -----------------------------------------------------------------------------------------------

    def test_it_is_found_through_its_installed_entry_point(self) -> None:
        """The distribution names the plugin module under the entry-point group ``genxai``."""
        _, plugin = self.provided()
        if plugin.source is not None:
            self.skip(f"loaded from {plugin.source.name}, not installed: package it to have this checked")
        if plugin.module is builtin:
            return
        entries = [e for e in importlib.metadata.entry_points(group=GROUP) if e.dist]
        mine = [e for e in entries if canonical(e.dist.name) == plugin.distribution]  # type: ignore[union-attr]
        if not mine and not _is_distribution(plugin.distribution):
            self.skip("registered by the test itself, not installed")
        expect(
            any(e.load() is plugin.module for e in mine),
            f"{self.component}: no entry point of {plugin.distribution} leads to {_module_name(plugin)}",
            f'add to pyproject.toml [project.entry-points.{GROUP}] the line  name = "{_module_name(plugin)}"  and '
            f"install it again",
        )

    def test_its_declaration_is_valid(self) -> None:
        """The name, the summary (at most 120 characters) and the API version are right, the target can be imported."""
        component, plugin = self.provided()
        expect(
            component.api == API,
            f"{self.component} ({plugin.distribution}) declares plugin API {component.api}; this kit checks {API}",
            f"hold it to what API {API} asks for, then declare api={API} (or leave it out)",
        )
        expect(
            len(component.summary) <= 120,
            f"{self.component}: the summary has {len(component.summary)} characters, too many for a line of a table",
            "write at most 120",
        )
        try:
            self.target()
        except GenxaiError as error:
            raise failure(
                f"{self.component}: {error}", "let target be 'package.module:Class', of the base class of its kind"
            ) from error

    def test_its_plugin_imports_no_torch(self) -> None:
        """Importing the plugin module and asking it for its components must be quick: ``genxai list`` does it."""
        _, plugin = self.provided()
        if plugin.source is None and not _is_distribution(plugin.distribution):
            self.skip("registered by the test itself, not from a module of its own")
        source = str(plugin.source) if plugin.source else ""
        report = _imports_of(source or _module_name(plugin), bool(source))
        expect(
            report == "light",
            f"{self.component}: the plugin module {_module_name(plugin)} is not light: {report}",
            "import torch inside the functions that use it, and types under `if TYPE_CHECKING:`; let Component.target "
            "name the module of the implementation, which is imported when it is first used",
        )

    def test_its_parameters_are_explicit_annotated_and_documented(self) -> None:
        """Who reads ``genxai info`` or writes YAML sees every parameter, its type and what it means."""
        target = self.target()
        starred = _starred(target)
        expect(
            not starred,
            f"{self.component}: the constructor takes {', '.join(starred)}",
            "name every parameter in the constructor, so that a misspelt one is an error",
        )
        for parameter in (p for p in parameters.of(target) if p.name not in self.inherited):
            expect(
                parameter.annotation,
                f"{self.component}: parameter {parameter.name!r} has no annotation",
                "annotate it (int, float, str, bool, Literal, tuple, Path for a file, Spec for a component)",
            )
            expect(
                parameter.doc,
                f"{self.component}: parameter {parameter.name!r} is not documented",
                "add it to the section Parameters of the class's docstring (numpydoc)",
            )

    def test_its_docstring_states_what_it_does(self) -> None:
        """The class's own docstring says what it is, with the shapes of what goes in or comes out."""
        doc = self.target().__doc__ or ""
        expect(
            doc.strip(),
            f"{self.component}: {self.target().__name__} has no docstring",
            "write one: what it computes, shapes, units, the paper",
        )
        expect(
            not self.shapes or _SHAPE.search(doc),
            f"{self.component}: the docstring of {self.target().__name__} states no shape",
            f"say what goes in and comes out, such as {self.shapes}",
        )

    def test_its_recipe_builds_it_again(self, tmp_path: Path) -> None:
        """The registry's name and the parameters are all that is needed: so it is saved, cached and reported."""
        built = self.build()
        mend = "take parameters that can be saved: plain values, Path, Spec, or what the registry built"
        try:
            again = saving.load_result(saving.save_result(built, tmp_path / "recipe"))
        except GenxaiError as error:
            raise failure(f"{self.component}: cannot be saved and built again: {error}", mend) from error
        expect(
            type(again) is type(built),
            f"{self.component}: was saved as {type(built).__name__} and loaded as {type(again).__name__}",
            "let the component point at the class itself",
        )
        wrong = differences(_spelled(built), _spelled(again), name="the recipe")
        expect(not wrong, f"{self.component}: {'; '.join(wrong)}", mend)


def _copy(function: Any) -> Any:
    """Copy a check, so that a mark on it does not reach other classes."""
    copied = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    functools.update_wrapper(copied, function)
    copied.__kwdefaults__ = function.__kwdefaults__
    copied.__dict__.pop("__wrapped__", None)
    if "pytestmark" in copied.__dict__:
        copied.__dict__["pytestmark"] = list(copied.__dict__["pytestmark"])
    return copied


def _spelled(built: Any) -> Any:
    """Return an object's recipe with paths as the texts that files hold."""
    recipe = saving.recipe_of(built)
    if recipe is None:
        return None
    params = {k: str(v) if isinstance(v, Path) else saving.describe(v) for k, v in recipe.params.items()}
    return {"use": recipe.use, "with": params}


def _starred(target: Any) -> list[str]:
    """Return the ``*args`` and ``**kwargs`` of a constructor that somebody wrote (not nn.Module's or object's)."""
    from torch import nn

    if inspect.isclass(target):
        written = next(c for c in inspect.getmro(target) if "__init__" in vars(c))
        if written in (object, nn.Module):
            return []
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    found = inspect.signature(target).parameters.values()
    return [f"{stars[p.kind]}{p.name}" for p in found if p.kind in stars]


def _is_distribution(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _module_name(plugin: Plugin) -> str:
    return str(getattr(plugin.module, "__name__", plugin.module))


_PROBE = """
import importlib, sys
from pathlib import Path
what, is_file = sys.argv[1], sys.argv[2] == "True"
from genxai_core.plugins import PluginHost
if is_file:
    PluginHost(entry_points=[]).load_file(Path(what))
else:
    PluginHost(builtin=[importlib.import_module(what)], entry_points=[])
print("it imports torch" if "torch" in sys.modules else "light")
"""


@functools.cache
def _imports_of(what: str, is_file: bool) -> str:
    """Load a plugin, a module or a file, in a process of its own, and say what is wrong with that, or ``light``."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, what, str(is_file)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        check=False,
    )
    if done.returncode:
        return f"it cannot be loaded alone: {done.stderr.strip().splitlines()[-1]}"
    return done.stdout.strip().splitlines()[-1]
