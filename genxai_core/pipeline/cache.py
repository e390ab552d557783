"""The cache of results, by the content of everything that a result depends on."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import pretrained, registry, saving, storage
from ..component import Spec
from ..errors import StorageError
from ..plugins import Plugin, canonical
from .references import Reference

FORMAT = 1
CORE = "genxai-core"
PRESENTATION = ("report", "testing", "plots", "scaffold", "cli.py", "console.py", "describing.py")
"""Parts of the core that cannot change a result, so that editing them reruns nothing."""


RECIPES = ("dataset", "component", "model")
"""Results saved as the recipe of a component. The key tells what they hold, for it covers the files that they name; the
recipe itself counts for nothing: it may name the same files in another place, and is built anew by the step's own."""


def default_folder() -> Path:
    """``$GENXAI_CACHE``, else the user's cache folder."""
    if chosen := os.environ.get("GENXAI_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "genxai"


# -- what a result depends on -----------------------------------------------------------------------------------


def sources(plugin: Plugin) -> str:
    """Hash the source files of a plugin: its packages, or the file that ``--plugin`` named with what it imported.

    Weights that ship with it are among them.
    """
    if plugin.source is not None:
        files = [storage.file_hash(path) for path in (plugin.source, *plugin.beside) if path.is_file()]
        classes = [registry.default().resolve(f"{c.full_name}@{plugin.distribution}") for c in plugin.components]
        folders = [folder for folder in map(pretrained.folder_of, classes) if folder is not None and folder.is_dir()]
        return storage.digest([*files, *(storage.content_hash(folder) for folder in folders)])
    if plugin.distribution == CORE:
        return _package("genxai_core", PRESENTATION)
    modules = [plugin.module.__name__, *(c.target.partition(":")[0] for c in plugin.components)]
    packages = sorted({module.partition(".")[0] for module in modules})
    return storage.digest([_package(package, ()) for package in packages])


def _package(name: str, without: tuple[str, ...]) -> str:
    spec = importlib.util.find_spec(name)
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        raise StorageError(f"the sources of {name} cannot be found, so its results cannot be cached; reinstall it")
    if not spec.submodule_search_locations:
        return storage.file_hash(Path(str(spec.origin)))
    found: dict[str, str] = {}
    for folder in spec.submodule_search_locations:
        for path in sorted(Path(folder).rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and "__pycache__" not in relative.parts and relative.parts[0] not in without:
                found[relative.as_posix()] = storage.file_hash(path)
    return storage.digest(found)


def provenance(plugin: Plugin) -> dict[str, Any]:
    """Return what a result depends on in a plugin: its sources, and the versions of what it requires."""
    return {"sources": sources(plugin), "versions": versions(plugin.distribution)}


@functools.cache
def versions(distribution: str) -> dict[str, str]:
    """Versions of a distribution's direct dependencies, but for our own, whose sources are hashed."""
    try:
        requirements = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, str] = {}
    for requirement in requirements:
        name = canonical(re.split(r"[\s;\[<>=!~(]", requirement, maxsplit=1)[0])
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            if not name.startswith("genxai-"):
                found[name] = importlib.metadata.version(name)
    return found


def plugins_in(value: Any) -> Iterator[Plugin]:
    """Yield the plugins of all components nested in a value."""
    if isinstance(value, Spec):
        yield registry.default().find(value.use).plugin
        yield from plugins_in(dict(value.params))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from plugins_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from plugins_in(item)


def canonical_value(value: Any, content: Mapping[str, str], roots: Sequence[Path] = (), *, nested: bool = False) -> Any:
    """Return a JSON-able value in which references stand as content hashes, and paths as their content's.

    Parameters
    ----------
    value
        A step's arguments.
    content
        Content hash of each step that a reference may name.
    roots
        The granted folders: a path counts from there on, so that equal runs in two places are equal. One of a nested
        component counts as a whole, for it may become part of a saved model's recipe.
    """
    if isinstance(value, Reference):
        return {"$": [content[value.step], value.text.removeprefix(f"${value.step}")]}
    if isinstance(value, Spec):
        return {"use": value.use, "with": canonical_value(dict(value.params), content, roots, nested=True)}
    if isinstance(value, Path):
        return {"path": [str(value) if nested else beneath(value, roots), storage.content_hash(value)]}
    if isinstance(value, list | tuple):
        return [canonical_value(v, content, roots, nested=nested) for v in value]
    if isinstance(value, Mapping):
        return {k: canonical_value(v, content, roots, nested=nested) for k, v in value.items()}
    return value


def beneath(path: Path, roots: Sequence[Path]) -> str:
    """Spell a path from the granted folder on in which it lies."""
    return next((path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root)), path.name)


# -- the store --------------------------------------------------------------------------------------------------


class Cache:
    """Results on disk, by key. Safe to share between runs at the same time.

    Parameters
    ----------
    folder
        Where; made when something is first stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def result(self, key: str) -> Path:
        """Return the folder of a key's result."""
        return self.folder / "results" / key

    def _note(self, key: str) -> Path:
        return self.folder / "results" / f"{key}.json"

    def checkpoints(self, key: str) -> Path:
        """Return the folder in which the step of this key keeps checkpoints while it runs."""
        return self.folder / "partial" / key

    def lookup(self, key: str) -> dict[str, Any] | None:
        """Return what was noted with a result, if the result is whole and what made it is unchanged; else None."""
        if not self._note(key).is_file() or not storage.recover(self.result(key)):
            return None
        note: dict[str, Any] = storage.read_json(self._note(key))
        current = {p.distribution: p for p in registry.default().host.plugins if p.error is None and not p.disabled}
        for distribution, made in note["created"].items():
            if distribution not in current or provenance(current[distribution]) != made:
                return None
        return note

    def store(self, key: str, result: Any, *, seconds: float, created: list[Plugin]) -> dict[str, Any]:
        """Save a result and note what made it.

        Parameters
        ----------
        created
            Plugins whose components were created while the step ran.
        """
        from ..report import summary_of

        saving.save_result(result, self.result(key))
        hashes = storage.verify(self.result(key))
        kind = storage.read_json(self.result(key) / "result.json")["type"]
        note = {
            "seconds": seconds,
            "created": {p.distribution: provenance(p) for p in created},
            "files": {name: hashed for name, hashed in hashes.items() if kind not in RECIPES or name != "result.json"},
            "type": kind,
            "summary": summary_of(result),
            "content": key if kind in RECIPES else storage.digest(hashes),
        }
        storage.write_json(self._note(key), note)
        shutil.rmtree(self.checkpoints(key), ignore_errors=True)
        return note

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Keep other runs from working on the same key; they wait."""
        path = self.folder / "locks" / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        except OSError as error:
            raise StorageError(
                f"{self.folder}: cannot be written ({error.strerror}); choose one with --cache"
            ) from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
