"""Names to components to objects, lazily. The catalogue (`registry.yaml`) only advises: it never decides what runs."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from . import builtin, parameters, pretrained, storage
from .component import API, Component
from .errors import (
    AmbiguousProvider,
    BadParameter,
    NotInstalled,
    PluginFailed,
    RegistryError,
    StorageError,
    TargetImportFailed,
    Unavailable,
    UnknownComponent,
    one_line,
)
from .plugins import Plugin, PluginHost, canonical

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class CatalogueEntry:
    """What `registry.yaml` says of a component, installed or not."""

    kind: str
    name: str
    distribution: str
    install: str
    summary: str
    paper: str = ""

    @property
    def full_name(self) -> str:
        """``kind/name``."""
        return f"{self.kind}/{self.name}"


class Provided(NamedTuple):
    """A component together with the plugin that provides it."""

    component: Component
    plugin: Plugin


@functools.cache
def catalogue_path() -> Path:
    """Where `registry.yaml` lies: beside this module in an installed wheel, at the repository's root in a checkout."""
    for path in (HERE / "registry.yaml", HERE.parent / "registry.yaml"):
        if path.is_file():
            return path
    raise StorageError("registry.yaml is missing from this installation of genxai-core; reinstall it")


@functools.cache
def catalogue() -> Mapping[str, CatalogueEntry]:
    """All components that genxai knows of, by full name."""
    found: dict[str, CatalogueEntry] = {}
    for row in storage.read_yaml(catalogue_path()).value["components"]:
        entry = CatalogueEntry(**row)
        found[entry.full_name] = entry
    return found


def checkout() -> Path | None:
    """Return the repository's root if genxai runs from a checkout, else None."""
    root = HERE.parent
    return root if catalogue_path().parent == root and (root / "plugins").is_dir() else None


def install_command(entry: CatalogueEntry) -> str:
    """Return the command that installs a catalogue entry's distribution into this very Python."""
    root = checkout()
    target = str(root / entry.install) if root and entry.install.startswith("./") else entry.install
    command = shlex.join([sys.executable, "-m", "pip", "install", target])
    return command if root or not entry.install.startswith("./") else f"{command}  (from a checkout of genxai)"


class Registry:
    """The components of one plugin host, found by name.

    Parameters
    ----------
    host
        Discovered plugins; default: the installed ones.
    """

    def __init__(self, host: PluginHost | None = None) -> None:
        self.host = PluginHost(builtin=[builtin]) if host is None else host

    def provided(self) -> Iterator[Provided]:
        """Every component of every loaded plugin."""
        for plugin in self.host.plugins:
            for component in plugin.components:
                yield Provided(component, plugin)

    def find(self, name: str) -> Provided:
        """Find the provider of ``kind/name`` or ``kind/name@distribution``.

        Raises
        ------
        UnknownComponent, NotInstalled, PluginFailed, AmbiguousProvider, Unavailable
            Each says what to do.
        """
        full_name, _, distribution = str(name).partition("@")
        matches = [p for p in self.provided() if p.component.full_name == full_name]
        if distribution:
            matches = [p for p in matches if canonical(p.plugin.distribution) == canonical(distribution)]
        if not matches:
            raise self._absent(full_name, distribution)
        if len(matches) > 1:
            choices = " or ".join(f"{full_name}@{p.plugin.distribution}" for p in matches)
            raise AmbiguousProvider(f"{full_name} is provided by two plugins: write {choices}")
        match = matches[0]
        if match.component.api != API:
            raise Unavailable(
                f"{full_name} ({match.plugin.distribution} {match.plugin.version}) is written for plugin API "
                f"{match.component.api}, this genxai has {API}: install matching versions of both"
            )
        return match

    def _absent(self, full_name: str, distribution: str) -> RegistryError:
        entry = catalogue().get(full_name)
        provider = canonical(distribution or (entry.distribution if entry else ""))
        for plugin in self.host.plugins:
            if plugin.distribution != provider:
                continue
            if plugin.disabled:
                return Unavailable(
                    f"{full_name}: its plugin {provider} is switched off by GENXAI_DISABLE_PLUGINS; "
                    f"take it out of that variable"
                )
            if plugin.error is not None:
                failed = PluginFailed(
                    f"{full_name}: its plugin {provider} {plugin.version} failed to load: "
                    f"{one_line(plugin.error)} (see 'genxai doctor')"
                )
                failed.__cause__ = plugin.error
                return failed
        if entry is not None and (not distribution or provider == canonical(entry.distribution)):
            older = [p.version for p in self.host.plugins if p.distribution == provider]
            state = f"whose installed version {older[0]} lacks it" if older else "which is not installed"
            return NotInstalled(f"{full_name} is part of {entry.distribution}, {state}: {install_command(entry)}")
        known = sorted({p.component.full_name for p in self.provided()} | set(catalogue()))
        kind, _, short = full_name.rpartition("/")  # compared apart: a kind that is right makes any two names alike
        siblings = [k.split("/")[1] for k in known if k.startswith(f"{kind}/")]
        near = (
            [f"{kind}/{name}" for name in difflib.get_close_matches(short, siblings, n=3)]
            or [k for k in known if k.split("/")[1] == short]
            or difflib.get_close_matches(full_name, known, n=1, cutoff=0.8)
        )
        hint = (
            f"did you mean {' or '.join(near)}?"
            if near
            else "'genxai list' shows all names (one from a file needs --plugin FILE.py)"
        )
        of = f" from {distribution}" if distribution else ""
        broken = ", ".join(p.distribution for p in self.host.plugins if p.error is not None)
        note = f" (plugins that failed to load, see 'genxai doctor': {broken})" if broken else ""
        return UnknownComponent(f"no component is named {full_name!r}{of}; {hint}{note}")

    def resolve(self, name: str) -> Any:
        """Import what a name points at (a class, or a function that builds one).

        Raises
        ------
        TargetImportFailed
            If the import fails, or what it finds is not of the component's kind; the cause is chained.
        """
        component, plugin = self.find(name)
        module, _, attribute = component.target.partition(":")
        try:
            target = getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:
            raise TargetImportFailed(
                f"{component.full_name} ({plugin.distribution} {plugin.version}): importing {component.target} failed: "
                f"{one_line(error)}"
            ) from error
        _check_kind(component, plugin, target)
        return target

    def create(self, name: str, *, where: str = "", params: Mapping[str, Any]) -> Any:
        """Build a component. ``where`` is the place in a file that an error names."""
        provided = self.find(name)
        target = self.resolve(name)
        full_name = provided.component.full_name
        checked = parameters.check(target, params, name=full_name, where=where)
        log = _created.get()
        if log is not None:
            log.append(provided)
        chosen = checked.pop(pretrained.PARAMETER, None) if pretrained.is_own(target) else None
        if chosen is not None:
            params = pretrained.agree(target, chosen, checked, use=full_name, where=where)
        try:
            built = target(**checked) if chosen is None else pretrained.load(target, chosen, params)
        except ValueError as error:
            raise BadParameter(f"{where or full_name}: {' '.join(str(error).split())}") from error
        from . import saving  # imports torch, which whoever builds a component needs anyway

        alone = sum(p.component.full_name == full_name for p in self.provided()) == 1
        saving.stamp(built, full_name if alone else f"{full_name}@{provided.plugin.distribution}", params)
        return built


_created: ContextVar[list[Provided] | None] = ContextVar("created", default=None)


@contextlib.contextmanager
def recording() -> Iterator[list[Provided]]:
    """Collect the components that are created inside the block, however deep: a cached result depends on them."""
    log: list[Provided] = []
    token = _created.set(log)
    try:
        yield log
    finally:
        _created.reset(token)
        outer = _created.get()
        if outer is not None:
            outer.extend(log)


def _check_kind(component: Component, plugin: Plugin, target: Any) -> None:
    from . import explanation, interfaces

    bases = {
        "explainer": interfaces.Explainer,
        "metric": interfaces.Metric,
        "trainer": interfaces.Trainer,
        "dataset": interfaces.Dataset,
        "segmenter": interfaces.Segmenter,
        "explanation": explanation.Explanation,
    }
    base = bases.get(component.kind)
    if not callable(target) or (base is not None and not (isinstance(target, type) and issubclass(target, base))):
        wanted = f"a subclass of {base.__name__}" if base else "a class or a function"
        raise TargetImportFailed(
            f"{component.full_name} ({plugin.distribution} {plugin.version}): {component.target} is not {wanted}"
        )


# -- the one registry of a process ------------------------------------------------------------------------------

_default: Registry | None = None


def default() -> Registry:
    """Return the process's registry, discovering the installed plugins at first use."""
    global _default
    if _default is None:
        _default = Registry()
    return _default


@contextlib.contextmanager
def using(registry: Registry) -> Iterator[Registry]:
    """Make another registry the process's one inside the block (for tests of plugins)."""
    global _default
    before, _default = _default, registry
    try:
        yield registry
    finally:
        _default = before


def resolve(name: str) -> Any:
    """Import what a registry name points at."""
    return default().resolve(name)


def create(name: str, /, **params: Any) -> Any:
    """Build a component by its registry name: ``create("explainer/cam", method="gradcam")``.

    Parameters
    ----------
    name
        ``kind/name``, or ``kind/name@distribution`` where two plugins provide it.
    **params
        Its constructor's parameters.

    Raises
    ------
    RegistryError
        If the component cannot be had; the message says why and what to do.
    BadParameter
        If a parameter is unknown, missing or of the wrong type.
    """
    return default().create(name, params=params)
