"""Check everything before anything runs: names, parameters, paths, references, order, and that what flows fits."""

from __future__ import annotations

import graphlib
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import parameters, registry
from ..component import Spec
from ..errors import BadParameter, GenxaiError, PipelineError
from ..guard import guard
from ..registry import Provided
from . import flow, references
from .references import Reference
from .schema import Source

EAGER = ("explainer", "metric", "trainer")
"""Kinds that are built once while the plan is made, so that a bad value is told before anything runs."""


@dataclass(frozen=True)
class Planned:
    """One step, checked: its component, and its arguments with references, specs and safe absolute paths in them."""

    name: str
    provided: Provided
    target: Any
    params: Mapping[str, Any]
    call: Mapping[str, Any]
    seed: int
    flows: flow.Flow

    @property
    def use(self) -> str:
        """The component's full name."""
        return self.provided.component.full_name

    @property
    def provided_name(self) -> str:
        """The full name together with its provider, which no other plugin can make ambiguous."""
        return f"{self.use}@{self.provided.plugin.distribution}"

    @property
    def kind(self) -> str:
        """The component's kind."""
        return self.provided.component.kind

    @property
    def needs(self) -> list[str]:
        """The steps whose results it uses, each once, in order of mention."""
        return list(dict.fromkeys(r.step for r in references.references([dict(self.params), dict(self.call)])))


@dataclass(frozen=True)
class Plan:
    """A checked pipeline: its steps in an order in which each one's inputs come first."""

    source: Source
    steps: Mapping[str, Planned]
    roots: tuple[Path, ...]


def plan(source: Source, roots: Sequence[Path] = ()) -> Plan:
    """Check a pipeline and put its steps in order. Nothing is run or written.

    Parameters
    ----------
    source
        What `read` returned.
    roots
        Folders outside the pipeline's own that its paths may point into (``--data``).

    Raises
    ------
    PipelineError, BadParameter
        One line: file, line, place, what is wrong, how to mend it.
    RegistryError
        If a component cannot be had, with the place before the message.
    """
    allowed = (source.folder.resolve(), *(Path(r).resolve() for r in roots))
    for root in allowed[1:]:
        if not root.is_dir():
            raise PipelineError(f"--data {root}: no such folder")
    checker = _Checker(source, allowed)
    arguments = {name: checker.arguments(name) for name in source.pipeline.steps}
    order = _order(source, arguments)
    planned: dict[str, Planned] = {}
    for name in order:
        planned[name] = checker.step(name, *arguments[name], planned)
    return Plan(source, planned, allowed)


def _order(source: Source, arguments: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Order steps so that each comes after those that it refers to, else as written."""
    written = {name: i for i, name in enumerate(arguments)}
    sorter = graphlib.TopologicalSorter({n: {r.step for r in references.references(a)} for n, a in arguments.items()})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1][:-1]
        first = circle.index(min(circle, key=written.__getitem__))
        circle = [*circle[first:], *circle[:first], circle[first]]
        said = f"the steps refer to each other in a circle: {' → '.join(circle)}; break it"
        raise source.error(said, "steps", circle[0]) from None
    order: list[str] = []
    ready: list[int] = []
    names = list(arguments)
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready, written[name])
        order.append(names[heapq.heappop(ready)])
        sorter.done(order[-1])
    return order


class _Checker:
    """Checks the steps of one pipeline."""

    def __init__(self, source: Source, roots: tuple[Path, ...]) -> None:
        self.source, self.roots = source, roots

    def arguments(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parse the references and nested components of a step, and see that the references have a step."""
        step = self.source.pipeline.steps[name]

        def refuse(message: str, at: tuple[str | int, ...]) -> Exception:
            return self.source.error(message, *at)

        parsed: list[dict[str, Any]] = []
        for part, value in (("with", step.with_), ("call", step.call)):
            at = ("steps", name, part)
            parsed.append({k: references.tree(v, refuse, (*at, k)) for k, v in value.items()})
            for key, item in parsed[-1].items():
                for reference in references.references(item):
                    if reference.step not in self.source.pipeline.steps:
                        steps = ", ".join(self.source.pipeline.steps)
                        said = f"{reference.text} refers to no step; the steps are: {steps}"
                        raise self.source.error(said, *at, key)
        return parsed[0], parsed[1]

    def step(self, name: str, params: dict[str, Any], call: dict[str, Any], before: Mapping[str, Planned]) -> Planned:
        """Check one step whose inputs are planned already."""
        step = self.source.pipeline.steps[name]
        at = ("steps", name)
        provided, target = self.component(step.use, *at, "use")
        if provided.component.kind == "explanation":
            raise self.source.error(f"{step.use} is a type of result, not a step; use an explainer", *at, "use")
        seed = self.source.pipeline.seed if step.seed is None else step.seed
        accepted = {p.name for p in parameters.of(target)}
        if "seed" in accepted and "seed" not in params:
            params = {**params, "seed": seed}
        checked = self.parameters(provided, target, params, (*at, "with"))
        known = {n: p.flows for n, p in before.items()}
        try:
            flow.check_call(provided.component, target, call, known)
            for reference in references.references([checked, call]):
                flow.of_reference(reference, known)
        except flow.MisfitError as misfit:
            raise self.source.error(str(misfit), *at, *misfit.place) from None
        if provided.component.kind in EAGER and not any(references.references(checked)):
            with guard():  # their constructors only check and keep what they are given
                where = self.source.document.place(*at, "with")
                registry.default().create(f"{provided.component.full_name}@{provided.plugin.distribution}",
                                          where=where, params=checked)  # fmt: skip
        flows = flow.of_step(provided.component, target, checked, self._resolve)
        return Planned(name, provided, target, checked, call, seed, flows)

    def component(self, use: str, *at: str | int) -> tuple[Provided, Any]:
        """Find and import a component; an error of the registry gets the place in the file."""
        try:
            return registry.default().find(use), registry.default().resolve(use)
        except GenxaiError as error:
            raise type(error)(f"{self.source.document.place(*at)}: {error}") from error

    def parameters(
        self,
        provided: Provided,
        target: Any,
        params: Mapping[str, Any],
        at: tuple[str | int, ...],
        partial: bool = False,
    ) -> dict[str, Any]:
        """Check constructor parameters, those of nested components too, and make every path safe."""
        nested = {k: self.nested(v, (*at, k)) for k, v in params.items()}
        key: tuple[str | int, ...] = at
        try:
            for name, value in nested.items():
                key = (*at, name)
                parameters.check(
                    target, {name: value}, name=provided.component.full_name, partial=True, unknown_values=_open
                )
            key = at
            checked = parameters.check(
                target, nested, name=provided.component.full_name, partial=partial, unknown_values=_open
            )
        except BadParameter as error:
            said = str(error).removeprefix(f"{provided.component.full_name}: ").removeprefix(f"{key[-1]}: ")
            raise BadParameter(f"{self.source.document.place(*key)}: {said}") from None
        made: Mapping[str, str] = getattr(target, "produces", {}) if provided.component.kind == "trainer" else {}
        for name, kind in made.items():
            given = checked.get(name)
            if isinstance(given, Spec) and not given.use.startswith(f"{kind}/"):
                raise self.source.error(f"{given.use} is not a {kind}; use {kind}/…", *at, name, "use")
        return {k: self.paths(v, (*at, k)) for k, v in checked.items()}

    def nested(self, value: Any, at: tuple[str | int, ...]) -> Any:
        """Check the components inside a value. What the data decide may be missing from them."""
        if isinstance(value, Spec):
            provided, target = self.component(value.use, *at, "use")
            return Spec(value.use, self.parameters(provided, target, value.params, (*at, "with"), partial=True))
        if isinstance(value, list):
            return [self.nested(v, (*at, i)) for i, v in enumerate(value)]
        if isinstance(value, dict):
            return {k: self.nested(v, (*at, k)) for k, v in value.items()}
        return value

    def paths(self, value: Any, at: tuple[str | int, ...]) -> Any:
        """Replace every Path by an absolute one that lies, links followed, beneath a granted folder."""
        if isinstance(value, Path):
            return self.path(value, at)
        if isinstance(value, list | tuple):
            return type(value)(self.paths(v, (*at, i)) for i, v in enumerate(value))
        if isinstance(value, dict):
            return {k: self.paths(v, (*at, k)) for k, v in value.items()}
        return value

    def path(self, path: Path, at: tuple[str | int, ...]) -> Path:
        """Find a path beneath the pipeline's folder or a granted root."""
        try:
            found = [p for root in self.roots if (p := (root / path).resolve()).exists()]
        except (OSError, ValueError) as error:
            raise self.source.error(f"{str(path)[:80]!r} is not a path: {error}", *at) from None
        for candidate in found:
            if any(candidate == root or root in candidate.parents for root in self.roots):
                return candidate
        if found:
            said = "leads outside the pipeline's folder"
        else:
            said = "is not beneath the pipeline's folder or a --data folder"
        raise self.source.error(f"{str(path)!r} {said}; grant its folder with --data DIR", *at)

    @staticmethod
    def _resolve(use: str) -> Any:
        return registry.default().resolve(use)


def _open(value: Any) -> bool:
    return isinstance(value, Reference)
