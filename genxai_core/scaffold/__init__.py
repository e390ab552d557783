"""``genxai new-plugin``: a complete plugin in a new folder, written from the templates beside this file."""

from __future__ import annotations

import ast
import builtins
import importlib.metadata
import importlib.util
import keyword
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from .. import __version__, registry
from ..component import Component
from ..errors import BadComponent, BadParameter, StorageError

TEMPLATES = Path(__file__).resolve().parent / "templates"
LONGEST = 43
"""Characters of a name: with more, lines of the plugin would be longer than its own settings allow."""


def write(name: str, kind: str, into: Path) -> list[Path]:
    """Write a plugin into the new folder ``into/name``.

    Parameters
    ----------
    name
        Of the distribution and of its component, in kebab-case.
    kind
        A folder of `TEMPLATES`: explainer, generator, discriminator, metric, trainer, dataset.
    into
        Where the folder is made.

    Returns
    -------
    list of Path
        What was written, within the new folder.

    Raises
    ------
    BadParameter
        If the name cannot be a package's, or is taken: by a component, a distribution, or a module of Python's.
    StorageError
        If the folder exists.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    package, cls = name.replace("-", "_"), "".join(word.capitalize() for word in name.split("-"))
    folder = into / name
    _check(name, kind, package, cls, folder)
    major, minor = __version__.split(".")[:2]
    values = {
        "name": name,
        "kind": kind,
        "package": package,
        "cls": cls,
        "requirement": f"genxai-core>={major}.{minor},<{major}.{int(minor) + 1}",
    }
    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True)
    texts: dict[Path, str] = {}
    for path in (*TEMPLATES.glob("every/*.j2"), *TEMPLATES.glob(f"{kind}/*.j2")):
        texts[_place(path.stem, package)] = environment.get_template(f"{path.parent.name}/{path.name}").render(values)
    _check_class(cls, name, texts)
    folder.mkdir(parents=True)  # only now that all is rendered; refuses if somebody else was quicker
    for to, text in texts.items():
        (folder / to).parent.mkdir(parents=True, exist_ok=True)
        (folder / to).write_text(text, encoding="utf-8")
    return sorted(texts)


def _place(file: str, package: str) -> Path:
    """Return where the file of a template lies in the plugin."""
    if file == "test.py":
        return Path("tests", f"test_{package}.py")
    return Path("src", package, file) if file.endswith((".py", ".typed")) else Path(file)


def commands(name: str, kind: str, into: Path) -> list[str]:
    """Return what to type next: install the plugin into this very Python, run its tests, see it."""
    folder = str(into / name)
    return [
        shlex.join([sys.executable, "-m", "pip", "install", "--editable", f"{folder}[test]"]),
        shlex.join([sys.executable, "-m", "pytest", folder]),
        f"genxai info {kind}/{name}",
    ]


def _check_class(cls: str, name: str, texts: Mapping[Path, str]) -> None:
    """Refuse a class whose name a file has for something else, such as ``Loop``, which trainers import."""
    for path, text in texts.items():
        if path.suffix != ".py":
            continue
        nodes = list(ast.walk(ast.parse(text)))
        bound = [n.asname or n.name for i in nodes if isinstance(i, ast.Import | ast.ImportFrom) for n in i.names]
        bound += [d.name for d in nodes if isinstance(d, ast.ClassDef | ast.FunctionDef)]
        bound += [v.id for v in nodes if isinstance(v, ast.Name) and isinstance(v.ctx, ast.Store)]
        if bound.count(cls) > 1:
            raise BadParameter(f"new-plugin: {path} has {cls} for something else; choose another name than {name!r}")


def _check(name: str, kind: str, package: str, cls: str, folder: Path) -> None:
    """Refuse a name that cannot be a package's and a class's, or that something else has."""
    try:
        full_name = Component(kind, name, "package:Class", "to be written").full_name
    except BadComponent as error:
        raise BadParameter(f"new-plugin: {error}") from None
    if len(name) > LONGEST:
        raise BadParameter(f"new-plugin: {name!r} is longer than {LONGEST} characters; choose a shorter name")
    if not package.isidentifier() or keyword.iskeyword(package) or hasattr(builtins, cls) or package == "tests":
        raise BadParameter(f"new-plugin: {name!r} cannot name a Python package and a class {cls}; choose another name")
    if folder.exists():
        raise StorageError(f"new-plugin: {folder} exists and is left as it is; choose another name, or --into DIR")
    known = {entry.full_name: entry.distribution for entry in registry.catalogue().values()}
    known |= {p.component.full_name: p.plugin.distribution for p in registry.default().provided()}
    for made in (full_name, *([f"discriminator/{name}-model"] if kind == "trainer" else [])):
        if made in known:
            raise BadParameter(f"new-plugin: {made} is a component of {known[made]}; choose another name")
    try:
        taken = f"{importlib.metadata.distribution(name).name} is an installed distribution"
    except importlib.metadata.PackageNotFoundError:
        found = importlib.util.find_spec(package)
        taken = f"{package} is a module that exists already" if found and found.origin else ""
    if taken or name in known.values():
        raise BadParameter(f"new-plugin: {taken or f'{name} is a distribution of genxai'}; choose another name")
