"""Registries for tests: the installed plugins with the tiny models beside them, a plugin file, or nothing installed."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import builtin, registry
from ..component import Component
from ..hookspecs import hookimpl
from ..plugins import Plugin, PluginHost
from ..registry import Registry

HERE = __name__.rpartition(".")[0]


class TinyPlugin:
    """The kit's own components, in the registry only while a test runs."""

    @hookimpl
    def genxai_components(self) -> list[Component]:
        """Return the tiny models and the tiny data."""
        of = {
            "generator": {"tiny-linear": "models:LinearGenerator"},
            "discriminator": {
                "tiny-linear": "models:LinearDiscriminator",
                "tiny-quadratic": "models:QuadraticDiscriminator",
                "tiny-patch": "models:PatchDiscriminator",
                "tiny-constant": "models:ConstantDiscriminator",
            },
            "dataset": {"tiny-patches": "data:PatchDataset"},
        }
        return [
            Component(kind, name, f"{HERE}.{target}", "of the conformance kit, for tests")
            for kind, targets in of.items()
            for name, target in targets.items()
        ]


TINY = TinyPlugin()


class IsolatedRegistry(Registry):
    """A registry of the core and the tiny models, whatever is installed, to which a test adds components.

    Parameters
    ----------
    host
        Its plugins; default: the core and the tiny models.
    """

    def __init__(self, host: PluginHost | None = None) -> None:
        super().__init__(host or PluginHost(builtin=[builtin, TINY], entry_points=[]))  # type: ignore[list-item]
        self._modules: list[str] = []

    def register(self, full_name: str, target: Any, summary: str = "for a test") -> str:
        """Register a class under ``kind/name``, as a plugin would that has nothing else.

        Parameters
        ----------
        full_name
            ``kind/name``.
        target
            The class, or a function that builds one.
        summary
            The line for ``genxai list``.

        Returns
        -------
        str
            The full name.
        """
        kind, _, name = full_name.partition("/")
        module = types.ModuleType(f"genxai_registered_{kind}_{name.replace('-', '_')}_{len(self._modules)}")
        module.target = target  # type: ignore[attr-defined]
        component = Component(kind, name, f"{module.__name__}:target", summary)
        module.genxai_components = hookimpl(lambda: [component])  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
        self._modules.append(module.__name__)
        self.host._add(module, "registered-by-a-test", "0")
        return component.full_name

    def forget(self) -> None:
        """Drop the modules that `register` made."""
        for name in self._modules:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def isolated() -> Iterator[IsolatedRegistry]:
    """Make a registry in which nothing is installed the process's one inside the block."""
    found = IsolatedRegistry()
    try:
        with registry.using(found):
            yield found
    finally:
        found.forget()


@pytest.fixture
def isolated_registry() -> Iterator[IsolatedRegistry]:
    """A registry of the core and the tiny models, the process's one while the test runs; `register` adds to it."""
    with isolated() as found:
        yield found


_files: dict[Path, tuple[Registry, Plugin]] = {}


@contextlib.contextmanager
def with_plugin(plugin: Path | str | None) -> Iterator[Plugin | None]:
    """Add the tiny models to the process's registry inside the block; or use one that also holds a plugin file.

    Parameters
    ----------
    plugin
        The file, which is executed once per process; or None for the registry as it is.
    """
    if plugin is None:
        host = registry.default().host
        if any(p.module is TINY for p in host.plugins):
            yield None
            return
        with host.observed_by(TINY):
            yield None
        return
    path = Path(plugin).resolve()
    name = path.stem
    before = sys.modules.pop(name, None)  # the test itself may have imported the file
    try:
        if path not in _files:
            found = Registry(PluginHost(builtin=[builtin, TINY]))  # type: ignore[list-item]
            _files[path] = (found, found.host.load_file(path))
        found, loaded = _files[path]
        sys.modules[name] = loaded.module
        with registry.using(found):
            yield loaded
    finally:
        sys.modules.pop(name, None)
        if before is not None:
            sys.modules[name] = before
