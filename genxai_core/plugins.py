"""Safe discovery: each plugin is loaded in its own `try`, so that one broken plugin never breaks the others."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from . import __version__, hookspecs
from .component import Component
from .errors import BadComponent, GenxaiWarning, PluginFailed, StorageError, one_line

GROUP = "genxai"
"""The entry-point group under which a distribution names its plugin module."""


@dataclass(frozen=True)
class Plugin:
    """A plugin that discovery met: loaded, failed (``error``) or switched off (``disabled``).

    ``source`` is set for a plugin that came from a file (``--plugin``) rather than from a distribution; ``beside`` are
    the files next to it that it imports.
    """

    distribution: str
    version: str
    components: tuple[Component, ...] = ()
    error: BaseException | None = None
    disabled: bool = False
    source: Path | None = None
    beside: tuple[Path, ...] = ()
    module: Any = field(default=None, repr=False)


def canonical(distribution: str) -> str:
    """Normalise a distribution name as the package index does (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def disabled_names() -> frozenset[str]:
    """Distributions that ``GENXAI_DISABLE_PLUGINS`` names, comma-separated; ``all`` switches every plugin off."""
    raw = os.environ.get("GENXAI_DISABLE_PLUGINS", "")
    return frozenset(canonical(name.strip()) for name in raw.split(",") if name.strip())


def _strict() -> bool:
    return os.environ.get("GENXAI_STRICT") == "1"


class PluginHost:
    """The plugins of one registry and the hooks that they implement.

    Parameters
    ----------
    builtin
        Modules of the core that take part like plugins.
    entry_points
        What to discover; default: the installed entry points of group ``genxai``.

    Attributes
    ----------
    plugins
        Every plugin that discovery met.
    problems
        What `add_commands` found wrong with plugins that were loaded, one line each.
    """

    def __init__(
        self,
        builtin: Iterable[ModuleType] = (),
        entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
    ) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self.plugins: list[Plugin] = []
        self.problems: list[str] = []
        for module in builtin:
            self._add(module, "genxai-core", _version("genxai-core"))
        found = importlib.metadata.entry_points(group=GROUP) if entry_points is None else entry_points
        off = disabled_names()
        for entry in sorted(found, key=lambda e: (e.dist.name if e.dist else "", e.name)):
            name = canonical(entry.dist.name) if entry.dist else entry.name
            version = entry.dist.version if entry.dist else "unknown"
            if name in off or "all" in off:
                self.plugins.append(Plugin(name, version, disabled=True))
                continue
            try:
                self._add(entry.load(), name, version)
            except (KeyboardInterrupt, MemoryError):
                raise
            except BaseException as error:  # a plugin may even call sys.exit at import; it is reported, not obeyed
                if _strict():
                    raise PluginFailed(_failure(name, version, error)) from error
                self.plugins.append(Plugin(name, version, error=error))

    def _add(self, module: Any, distribution: str, version: str, source: Path | None = None) -> Plugin:
        """Register a module's hooks and read its components; undo the registration if any of that fails."""
        if self._manager.is_registered(module):
            raise BadComponent(f"{getattr(module, '__name__', module)} is registered already, by another entry point")
        try:
            self._manager.register(module)
            self._manager.check_pending()
            components = tuple(self._components(module))
        except BaseException:
            if self._manager.is_registered(module):  # a hook with a wrong argument fails half-way through
                self._manager.unregister(module)
            raise
        beside = tuple(_imported_beside(source)) if source else ()
        plugin = Plugin(distribution, version, components, source=source, beside=beside, module=module)
        self.plugins.append(plugin)
        return plugin

    def _only(self, hook: str, module: Any) -> Any:
        others = [p for p in self._manager.get_plugins() if p is not module]
        return self._manager.subset_hook_caller(hook, others)

    def _implements(self, hook: str, module: Any) -> bool:
        return hook in {caller.name for caller in self._manager.get_hookcallers(module) or ()}

    def _components(self, module: Any) -> Iterator[Component]:
        seen: set[str] = set()
        batches = self._only("genxai_components", module)()
        if not batches and self._implements("genxai_components", module):
            raise BadComponent("genxai_components returned None; let it return a list of Component")
        for batch in batches:
            for component in batch:
                if not isinstance(component, Component):
                    raise BadComponent(f"genxai_components returned {component!r}, which is not a Component")
                if component.full_name in seen:
                    raise BadComponent(f"genxai_components returns {component.full_name} twice")
                seen.add(component.full_name)
                yield component

    def load_file(self, path: Path) -> Plugin:
        """Load a plugin from one Python file, at the user's explicit word (``--plugin``). The file is executed.

        Raises
        ------
        StorageError
            If there is no such file, or its name is taken by an importable module.
        PluginFailed
            If it cannot be imported or declares malformed components; the cause is chained.
        """
        path = Path(path).resolve()
        if not path.is_file():
            raise StorageError(f"--plugin {path}: no such file")
        for plugin in self.plugins:
            if plugin.source == path:
                return plugin
        name = path.stem
        if not name.isidentifier():
            raise StorageError(f"--plugin {path}: the file's name must be a Python identifier; rename it")
        if not _is_free(name, path):
            raise StorageError(f"--plugin {path}: a module named {name!r} exists already; rename the file")
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise StorageError(f"--plugin {path}: not a Python file (its name must end in .py)")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
            plugin = self._add(module, path.name, "file", source=path)
        except BaseException as error:
            sys.modules.pop(name, None)
            if isinstance(error, KeyboardInterrupt | MemoryError):
                raise
            raise PluginFailed(_failure(str(path), "file", error)) from error
        if not plugin.components:
            warnings.warn(f"--plugin {path} registers no component", GenxaiWarning, stacklevel=2)
        return plugin

    @contextlib.contextmanager
    def observed_by(self, observer: object) -> Iterator[None]:
        """Let an object with hook implementations observe while the block runs."""
        plugin = self._add(observer, "observer", __version__)
        try:
            yield
        finally:
            self._manager.unregister(observer)
            self.plugins.remove(plugin)

    def add_commands(self, commands: MutableMapping[str, Any]) -> None:
        """Add the plugins' own subcommands to the program's, by name. None takes another one's place.

        A plugin whose hook raises, or whose command has a name that is taken, is warned about and kept in `problems`.

        Raises
        ------
        PluginFailed
            Instead of that, where ``GENXAI_STRICT=1``.
        """
        import typer

        self.problems = []
        owners = dict.fromkeys(commands, "genxai itself")
        for plugin in self.plugins:
            if plugin.module is None or not self._implements("genxai_commands", plugin.module):
                continue
            app = typer.Typer(rich_markup_mode=None, add_completion=False)
            try:
                with contextlib.redirect_stdout(sys.stderr):  # what a hook prints is no part of a result
                    self._only("genxai_commands", plugin.module)(app=app)
                own = typer.main.get_group(app).commands  # a malformed signature shows here
            except (KeyboardInterrupt, MemoryError):
                raise
            except BaseException as error:
                self._problem(plugin, f"its hook genxai_commands failed: {one_line(error)}", error)
                continue
            for name, command in own.items():
                if name in owners:
                    self._problem(plugin, f"its command {name!r} is left out: {owners[name]} has one of that name")
                else:
                    owners[name], commands[name] = plugin.distribution, command

    def _problem(self, plugin: Plugin, said: str, cause: BaseException | None = None) -> None:
        told = f"plugin {plugin.distribution} {plugin.version}: {said}"
        if _strict():
            raise PluginFailed(told) from cause
        self.problems.append(told)
        warnings.warn(told, GenxaiWarning, stacklevel=3)

    def notify(self, hook: str, **arguments: Any) -> list[Any]:
        """Call an observing hook on every plugin, each on its own: one that raises is warned about and skipped.

        Returns
        -------
        list
            What the plugins returned, flattened where they returned lists, tuples or generators.
        """
        results: list[Any] = []
        for plugin in self.plugins:
            if plugin.module is None:
                continue
            try:
                for value in self._only(hook, plugin.module)(**arguments):
                    results.extend(list(value) if isinstance(value, list | tuple | Iterator) else [value])
            except Exception as error:
                warnings.warn(
                    f"plugin {plugin.distribution} {plugin.version}: its hook {hook} failed and was skipped: "
                    f"{one_line(error)}",
                    GenxaiWarning,
                    stacklevel=2,
                )
        return results


def _imported_beside(source: Path) -> list[Path]:
    """Return the files next to a plugin's file that it imports, and those that they import, sorted."""
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop().read_bytes())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                top = source.parent / name.partition(".")[0]
                new = {p for p in (top.with_suffix(".py"), *top.rglob("*.py")) if p.is_file()} - found - {source}
                found |= new
                waiting += new
    return sorted(found)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _is_free(name: str, path: Path) -> bool:
    """Whether a module of this name would hide none but the file itself."""
    if name in sys.modules:
        return False
    found = importlib.util.find_spec(name)
    return found is None or Path(str(found.origin)).resolve() == path


def _failure(name: str, version: str, error: BaseException) -> str:
    return f"plugin {name} {version} failed to load: {one_line(error)}"
