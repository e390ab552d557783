"""What ``genxai info`` and ``genxai doctor`` say, as plain values."""

from __future__ import annotations

import importlib.metadata
import inspect
import platform
import sys
import types
from typing import Any, Literal, Union, get_args, get_origin

from . import __version__, parameters, registry
from .component import API, Spec
from .errors import GenxaiError, one_line


def describe(name: str) -> dict[str, Any]:
    """Describe a component: its parameters with defaults and docs, its paper, what it takes and gives.

    Raises
    ------
    RegistryError
        If it cannot be had.
    """
    state = registry.default()
    component, plugin = state.find(name)
    target = state.resolve(name)
    entry = registry.catalogue().get(component.full_name)
    return {
        "name": component.full_name,
        "kind": component.kind,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "summary": component.summary,
        "doc": _before_sections(inspect.getdoc(target) or ""),
        "contract": _contract(component.kind, target),
        "parameters": [
            {
                "name": p.name,
                "type": _type(parameters.resolved(target, p.annotation)) or "any",
                "required": p.required,
                "default": None if p.required else _literal(p.default),
                "doc": p.doc,
            }
            for p in parameters.of(target)
        ],
        "paper": entry.paper if entry else "",
    }


def _type(annotation: Any) -> str:
    """Spell a type for people: the choices of a Literal, also where the signature gives only its alias."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        return " | ".join(map(_type, arguments))
    if annotation is types.NoneType:
        return "None"
    if isinstance(origin, type):
        return f"{origin.__name__}[{', '.join(map(_type, arguments))}]"
    if isinstance(annotation, type):
        return annotation.__name__
    return "..." if annotation is ... else str(annotation)


def _literal(value: Any) -> Any:
    """Spell a default as a pipeline file would."""
    if isinstance(value, Spec):
        return {"use": value.use, **({"with": _literal(dict(value.params))} if value.params else {})}
    if isinstance(value, tuple | list):
        return [_literal(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _literal(v) for k, v in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _before_sections(doc: str) -> str:
    """Return a docstring's text before its first underlined section."""
    kept: list[str] = []
    for line in doc.splitlines():
        if kept and line and set(line.strip()) == {"-"}:
            kept.pop()
            break
        kept.append(line)
    return "\n".join(kept).strip()


def _contract(kind: str, target: Any) -> dict[str, str]:
    """What it takes and gives, from the traits that its class declares."""
    if kind == "explainer":
        stochastic = "; stochastic" if target.stochastic else ""
        return {"explains": target.explains, "accepts": target.accepts, "returns": target.returns.__name__ + stochastic}
    if kind == "metric":
        better = {True: "higher is better", False: "lower is better", None: "no direction"}
        figures = ", ".join(f"{k} ({better[v]})" for k, v in target.higher_is_better.items())
        return {"needs": ", ".join(sorted(target.needs)), "gives": figures}
    if kind == "trainer":
        return {"needs": "data", "trains": ", ".join(f"{k} (a {v})" for k, v in target.produces.items())}
    if kind in ("generator", "discriminator"):
        from . import models

        if not inspect.isclass(target):  # a function that builds one says of what class, or nothing is known
            target = parameters.resolved(target, inspect.signature(target).return_annotation)
            if not inspect.isclass(target) or target is inspect.Signature.empty:
                return {}
        names = (
            "CanSample",
            "HasLatents",
            "HasEncoder",
            "HasDensity",
            "Translates",
            "Denoises",
            "HasFeatures",
            "Embeds",
        )
        offered = [n for n in names if all(hasattr(target, m) for m in models.methods(getattr(models, n)))]
        return {"capabilities": ", ".join(offered) or "none besides forward"}
    return {}


def health() -> dict[str, Any]:
    """Say what is installed and what is wrong: failed plugins, names provided twice, components of another API."""
    state = registry.default()
    plugins = []
    problems = list(state.host.problems)
    for plugin in state.host.plugins:
        status = "failed" if plugin.error else "disabled" if plugin.disabled else "loaded"
        said = f"{len(plugin.components)} components" if status == "loaded" else ""
        if plugin.error:
            said = one_line(plugin.error)
            problems.append(f"plugin {plugin.distribution} {plugin.version} failed to load: {said}")
        plugins.append({"distribution": plugin.distribution, "version": plugin.version, "state": status, "said": said})
    for name in dict.fromkeys(p.component.full_name for p in state.provided()):
        try:
            state.find(name)
            state.resolve(name)
        except GenxaiError as error:
            problems.append(str(error))
    return {"ok": not problems, "environment": _environment(), "plugins": plugins, "problems": problems}


def _environment() -> dict[str, str]:
    import torch

    from .pipeline.cache import default_folder

    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    versions = {}
    for name in ("numpy", "pluggy", "pydantic", "accelerate"):
        versions[name] = importlib.metadata.version(name)
    return {
        "genxai": f"{__version__} (plugin API {API})",
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "torch": torch.__version__,
        "cuda": cuda,
        **versions,
        "catalogue": str(registry.catalogue_path()),
        "cache": str(default_folder()),
    }
