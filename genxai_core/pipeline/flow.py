"""What flows along a reference, known before anything runs, so that a misfit is told at once."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import parameters
from ..component import Component, Spec
from ..samples import PER_SAMPLE
from .references import Reference, Slice

MODELS = ("generator", "discriminator")
ANY = "anything"


@dataclass(frozen=True)
class Flow:
    """What a step makes, or a reference stands for.

    ``tag`` is samples, generator, discriminator, training, explanation, values, segmenter, or a sample's field (images,
    latents, labels, …). ``parts`` are what ``$step.name`` may name; ``made_by`` is the class, where it is known.
    """

    tag: str
    parts: Mapping[str, Flow] = field(default_factory=dict)
    made_by: Any = None
    sliceable: bool = False


class MisfitError(Exception):
    """Something flows where it does not fit. ``place`` is where, below the step."""

    def __init__(self, message: str, *place: str) -> None:
        super().__init__(message)
        self.place = place


_FIELDS = {name: Flow(name, sliceable=True) for name in PER_SAMPLE}
SAMPLES = Flow("samples", parts=_FIELDS, sliceable=True)


def of_step(component: Component, target: Any, params: Mapping[str, Any], resolve: Callable[[str], Any]) -> Flow:
    """Say what a step makes, from its component's declarations."""
    if component.kind == "dataset":
        return SAMPLES
    if component.kind == "trainer":
        given = {p.name: p.default for p in parameters.of(target)} | dict(params)
        return Flow(
            "training",
            parts={
                **{
                    name: Flow(kind, made_by=_class(given.get(name), resolve)) for name, kind in target.produces.items()
                },
                "history": Flow("history"),
            },
        )
    if component.kind == "explainer":
        names = [f.name for f in dataclasses.fields(target.returns)]
        parts = {n: Flow("images" if n == "images" else ANY, sliceable=True) for n in names}
        return Flow("explanation", parts=parts, made_by=target.returns, sliceable=bool(target.returns.per_sample))
    if component.kind == "metric":
        return Flow("values", parts={name: Flow(ANY) for name in target.higher_is_better})
    return Flow(component.kind, made_by=target if inspect.isclass(target) else None)


def _class(given: Any, resolve: Callable[[str], Any]) -> Any:
    if not isinstance(given, Spec):
        return None
    target = resolve(given.use)
    return target if inspect.isclass(target) else None


def of_reference(reference: Reference, known: Mapping[str, Flow]) -> Flow:
    """Say what a reference stands for.

    Raises
    ------
    MisfitError
        If the step's result has no such part.
    """
    flows = known[reference.step]
    for part in reference.path:
        if flows.tag == ANY:
            return flows
        if isinstance(part, Slice):
            if not flows.sliceable:
                raise MisfitError(f"{reference.text}: {_article(flows.tag)} cannot be sliced")
        elif part in flows.parts:
            flows = flows.parts[part]
        else:
            there = ", ".join(flows.parts) or "nothing"
            raise MisfitError(f"{reference.text}: {_article(flows.tag)} has no {part!r}; it has: {there}")
    return flows


def check_call(component: Component, target: Any, call: Mapping[str, Any], known: Mapping[str, Flow]) -> None:
    """Check what a step is called with against what its component declares.

    Raises
    ------
    MisfitError
        Naming the argument, what came, and what fits.
    """
    arguments = _ARGUMENTS[component.kind](target)
    name = component.full_name
    for key in call:
        if key not in arguments:
            accepted = ", ".join(arguments) or "nothing"
            raise MisfitError(f"{name} is not called with {key!r} (it is called with: {accepted})", "call", key)
    for key, wanted in arguments.items():
        if key not in call:
            if wanted.required:
                raise MisfitError(f"{name} needs {key!r}; add {key}: {wanted.example}", "call")
            continue
        value = call[key]
        if not isinstance(value, Reference):
            if not wanted.literal:
                raise MisfitError(f"{key} must refer to a step, such as {wanted.example}", "call", key)
            wanted.literal(value, key)
            continue
        flows = of_reference_at(value, known, key)
        if flows.tag != ANY and wanted.tags and flows.tag not in wanted.tags:
            raise MisfitError(f"{name} takes {wanted.said}, but {value.text} is {_article(flows.tag)}", "call", key)
        if wanted.capability:
            _check_capability(name, value, flows, wanted.capability, key)


def of_reference_at(reference: Reference, known: Mapping[str, Flow], key: str) -> Flow:
    """Do as `of_reference`, naming the argument in the error."""
    try:
        return of_reference(reference, known)
    except MisfitError as misfit:
        raise MisfitError(str(misfit), "call", key) from None


def _check_capability(name: str, value: Reference, flows: Flow, capability: str, key: str) -> None:
    from .. import models

    protocol = getattr(models, capability, None)
    if protocol is None or flows.made_by is None:
        return  # known only when it runs; explain() checks it then
    missing = [m for m in models.methods(protocol) if not hasattr(flows.made_by, m)]
    if missing:
        made_by = flows.made_by.__name__
        said = f"{name} needs the capability {capability}, but {value.text} is a {made_by} without {missing[0]}()"
        raise MisfitError(said, "call", key)


# -- what each kind is called with ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Argument:
    """What one argument of a call may be."""

    tags: tuple[str, ...]
    said: str
    example: str
    required: bool = True
    capability: str = ""
    literal: Callable[[Any, str], None] | None = None


def _target(value: Any, key: str) -> None:
    entries = value if isinstance(value, list) else [value]
    if not entries or not all(type(v) is int and v >= 0 for v in entries):
        raise MisfitError(
            f"{value!r} is not a class index; write an integer, a list of them, or a reference", "call", key
        )


_DATA = _Argument(("samples",), "a dataset or samples", "$digits")
_ACCEPTS = {
    "images": _Argument(("samples", "images"), "images (or samples)", "$fakes[:16]"),
    "latents": _Argument(("samples", "latents"), "latents (or samples that have them)", "$fakes.latents"),
    "samples": _Argument(("samples",), "samples", "$fakes[:16]"),
    "dataset": _Argument(("samples",), "a dataset or samples", "$digits"),
}
_NEEDS = {
    "real": _DATA,
    "generated": _Argument(("samples",), "samples", "$fakes"),
    "model": _Argument(MODELS, "a model", "$gan.generator"),
    "inputs": _Argument(("samples", "images", "latents"), "images, latents or samples", "$fakes[:16]"),
    "explanation": _Argument(("explanation",), "an explanation", "$maps"),
    "masks": _Argument(("masks", "samples"), "masks", "$scenes.masks"),
    "labels": _Argument(("labels", "samples"), "labels", "$digits.labels"),
}


def _explainer(target: Any) -> dict[str, _Argument]:
    kind = target.explains
    model = (
        _Argument((kind,), f"a {kind}", f"$gan.{kind}")
        if kind in MODELS
        else _Argument(MODELS, f"a model with {kind}", "$gan.generator", capability=kind)
    )
    inputs = {} if target.accepts == "nothing" else {"inputs": _ACCEPTS[target.accepts]}
    chosen = _Argument(("labels",), "class indices", "0", required=False, literal=_target)
    if kind == "nothing":
        return inputs  # without a model there are no outputs to choose a target of
    return {"model": model, **inputs, "target": chosen}


def _dataset(target: Any) -> dict[str, _Argument]:
    accepted = [n for n in inspect.signature(target.load).parameters if n not in ("self", "runtime")]
    return {name: _NEEDS[name] for name in accepted}


_ARGUMENTS: Mapping[str, Callable[[Any], dict[str, _Argument]]] = {
    "explainer": _explainer,
    "trainer": lambda target: {"data": _DATA},
    "metric": lambda target: {name: _NEEDS[name] for name in sorted(target.needs)},
    "dataset": _dataset,
    "generator": lambda target: {},
    "discriminator": lambda target: {},
    "segmenter": lambda target: {},
    "explanation": lambda target: {},
}


def _article(tag: str) -> str:
    plural = tag in ("samples", "values", *PER_SAMPLE)
    return tag if plural else f"a{'n' if tag[0] in 'aeiou' else ''} {tag}"
