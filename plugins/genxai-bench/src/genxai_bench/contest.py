"""Runs contestants on tasks: who fits what, every instance the same for all, and no failure that is not told."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from genxai_core import Explainer, Runtime, Samples, Spec, Trainer, models, parameters, registry, safe_yaml
from genxai_core.errors import BadParameter, ExplainerError, InputError, Interrupted, MissingCapability, one_line
from genxai_core.explanation import Explanation

from .scoreboard import Scoreboard
from .task import FRAME, Problem, Task

_NESTED = re.compile(r"\{use: (?:explainer/)?([^,{}]+)\}")
_PLAIN = re.compile(r"[\w.+*/-]+")
KINDS = {"discriminator": models.Discriminator, "generator": models.Generator}


def run(
    contestants: Sequence[Spec], tasks: Sequence[Task], seeds: Sequence[int], runtime: Runtime | None = None
) -> Scoreboard:
    """Put contestants, and the four that frame each task, to the same instances.

    A contestant is built with what the instance decides of the parameters that it leaves open (`filling`), and gets
    copies of the instance, so that nothing it writes reaches those after it. One that raises on an instance has no
    score on that task but its reason among the board's ``failures``; it stops nobody else.

    Parameters
    ----------
    contestants
        Explainers and trainers by registry name, with their parameters.
    tasks
        Where they meet.
    seeds
        Which instances of each, at least two different ones.
    runtime
        Batch size, precision, progress. Its seed gives way to one of the instance's (`seed_of`), its device to the CPU.

    Raises
    ------
    InputError
        If there are no tasks or fewer than two seeds, or something is given twice.
    ExplainerError
        If a task does not score those that frame it as it declares.
    RegistryError, BadParameter
        If a contestant cannot be had, or has no such parameter.
    """
    runtime = runtime or Runtime()
    entered = {label(spec): spec for spec in contestants}
    names = [task.name for task in tasks]
    if not names:
        raise InputError("there are no tasks to run; name at least one")
    if len(set(names)) < len(names) or len(entered) < len(contestants):
        raise InputError("a task or a contestant is given twice; give each once")
    if len(set(seeds)) != len(seeds) or len(seeds) < 2:
        raise InputError(f"seeds {list(seeds)}: give at least two different ones, since an interval needs them")
    targets = {name: resolved(spec) for name, spec in entered.items()}
    record = Record()
    with runtime.progress("bench", len(tasks) * (1 + len(entered))) as advance:
        for task in tasks:
            problems = [task.problem(seed) for seed in seeds]
            record.describe(task)
            for role in FRAME:
                record.frame(task, problems, role)
            advance(1, task=task.name)
            for name, spec in entered.items():
                reason = misfit(task, targets[name], problems[0])
                if reason:
                    record.left_out.setdefault(task.name, {})[name] = reason
                else:
                    record.enter(task, problems, name, spec, runtime)
                advance(1, task=task.name, contestant=short(name))
    return record.board()


def misfit(task: Task, target: Any, problem: Problem | None = None) -> str:
    """Say why a component cannot take part in a task; empty where it can.

    Parameters
    ----------
    task
        The task.
    target
        The component's class.
    problem
        An instance of the task. It is made where it is needed, for explainers that ask for a capability.
    """
    if not inspect.isclass(target) or not issubclass(target, Explainer | Trainer):
        return "is neither an explainer nor a trainer"
    subject = "explainer" if issubclass(target, Explainer) else "trainer"
    if subject != task.subject:
        return f"is {'an' if subject == 'explainer' else 'a'} {subject}; the task judges {task.subject}s"
    if issubclass(target, Trainer):
        made = sorted(set(target.produces.values()))
        return "" if task.explains not in KINDS or task.explains in made else f"trains no {task.explains}"
    if task.returns not in {c.type_name for c in target.returns.__mro__ if issubclass(c, Explanation)}:
        return f"returns {target.returns.type_name or 'no type of its own'}; the task judges {task.returns}"
    if target.explains == "nothing":
        return "brings its own models"
    if target.explains != task.explains:
        if target.explains in KINDS and task.explains in KINDS:
            return f"explains a {target.explains}; the task has a {task.explains}"
        problem = problem or task.problem(0)
        if not _is(problem.model, target.explains):
            return f"explains {_a(target.explains)}; the task's {type(problem.model).__name__} is none"
    if problem is not None:
        return _without(target.accepts, problem.inputs)
    return ""


def _without(accepts: str, inputs: Samples | None) -> str:
    """Say what an explainer takes that a problem does not give."""
    if accepts == "nothing" or (inputs is not None and (accepts != "latents" or inputs.latents is not None)):
        return ""
    return f"takes {accepts}; the task gives none"


def _a(kind: str) -> str:
    return f"a {kind}" if kind in KINDS else f"what has {kind}"


def _is(model: Any, wanted: str) -> bool:
    """Whether a model is of a kind or has a capability."""
    if wanted in KINDS:
        return isinstance(model, KINDS[wanted])
    capability = getattr(models, wanted, None)
    if capability is None:
        raise ExplainerError(f"{wanted!r} is neither a kind of model nor a capability")
    try:
        models.require(model, capability, by="genxai-bench")
    except MissingCapability:
        return False
    return True


def resolved(spec: Spec) -> type:
    """Import a contestant's class, after checking that its parameters exist and have the right types.

    Raises
    ------
    RegistryError, BadParameter
        As `genxai_core.create` does.
    """
    target: type = registry.resolve(spec.use)
    parameters.check(target, spec.params, name=spec.use, partial=True)
    return target


def left_open(spec: Spec, target: type, decided: Mapping[str, Any]) -> list[str]:
    """Return the parameters that a contestant needs and neither its spec nor the instance sets."""
    return [p.name for p in parameters.of(target) if p.required and p.name not in {*spec.params, *decided}]


def filling(spec: Spec, target: type, decided: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an instance's decisions is filled in for a contestant that does not say it itself.

    A parameter without a default, or whose default is None, asks for it. One with another default gets the instance's
    value only where that is of the default's own type and fits the annotation: ``loss: str = "hinge"`` is the task's
    to say; a stranger's ``t: float = 0.5``, a temperature, is no whole number of a step. What was filled in stands on
    the board.
    """
    found = {}
    for p in parameters.of(target):
        if p.name in spec.params or p.name not in decided:
            continue
        value = decided[p.name]
        if p.required or p.default is None or (type(value) is type(p.default) and _fits(target, p.name, value)):
            found[p.name] = value
    return found


def _fits(target: type, name: str, value: Any) -> bool:
    try:
        parameters.check(target, {name: value}, name=target.__name__, partial=True)
    except BadParameter:
        return False
    return True


def seed_of(task: Task, problem: Problem) -> int:
    """Return the seed that contestants get: one of the instance's own, from which the instance cannot be drawn."""
    return int.from_bytes(hashlib.sha256(f"{task.name} {problem.seed}".encode()).digest()[:4])


def answer(task: Task, spec: Spec, problem: Problem, runtime: Runtime) -> Any:
    """Build a contestant for an instance and return what the task judges: its explanation, or the model that it trains.

    It gets copies of the model, the inputs and what is decided.

    Raises
    ------
    Exception
        Whatever the contestant raises.
    """
    # together, so that what is one object in the instance is one in the copy
    model, inputs, decided = copy.deepcopy((problem.model, problem.inputs, dict(problem.decided)))
    given = filling(spec, registry.resolve(spec.use), decided)
    built = registry.create(spec.use, **{**given, **spec.params})
    # Instances live on the CPU, where scores are the same on every machine; a progress bar inside a bar is an error.
    runtime = runtime.with_(seed=seed_of(task, problem), device="cpu", quiet=True)
    if task.subject == "explainer":
        inputs = None if built.accepts == "nothing" else inputs
        target = problem.target if isinstance(model, models.Discriminator) else None
        return built.explain(model, inputs, target=target, runtime=runtime)
    trained = built.fit(inputs, runtime)
    able = [model for model in trained.models.values() if _is(model, task.explains)]
    if not able:
        made = ", ".join(type(model).__name__ for model in trained.models.values())
        raise InputError(f"the task judges {_a(task.explains)}; {spec.use} trained {made}")
    return able[0]


def judged(task: Task, problem: Problem, found: Any) -> dict[str, float]:
    """Score an answer and check what the task made of it.

    Raises
    ------
    InputError
        If the answer belongs to another problem.
    ExplainerError
        If the task does not give one finite number for each of its measures.
    """
    with torch.no_grad():
        scores = {name: float(value) for name, value in task.score(problem, found).items()}
    wanted = [measure.name for measure in task.measures]
    if sorted(scores) != sorted(wanted):
        raise ExplainerError(f"task {task.name}: scores {', '.join(scores)} where it declares {', '.join(wanted)}")
    bad = {name: value for name, value in scores.items() if not math.isfinite(value)}
    if bad:
        name, value = next(iter(bad.items()))
        raise ExplainerError(f"task {task.name}: its score {name!r} of seed {problem.seed} is {value}")
    return {name: scores[name] for name in wanted}


# -- names --------------------------------------------------------------------------------------------------------


def label(spec: Spec) -> str:
    """Spell a contestant as the command line reads it: ``explainer/cam:method=layercam``."""
    said = ",".join(f"{name}={_flow(value)}" for name, value in spec.params.items())
    return f"{spec.use}:{said}" if said else spec.use


def short(name: str) -> str:
    """Leave out what goes without saying: ``cam:method=layercam``."""
    return _NESTED.sub(r"\1", name.removeprefix("explainer/"))


def spelled(given: Sequence[Mapping[str, Any]]) -> str:
    """Spell what instances filled in: plain values, which may differ between them, and the names of all else."""
    said = []
    for name in given[0]:
        values = [each[name] for each in given]
        plain = all(isinstance(value, str | int | float) for value in values)
        said.append(f"{name}={'/'.join(dict.fromkeys(map(_flow, values)))}" if plain else name)
    return ", ".join(said)


def _flow(value: Any) -> str:
    """Spell a value as YAML on one line."""
    if isinstance(value, Spec):
        more = f", with: {_flow(dict(value.params))}" if value.params else ""
        return f"{{use: {value.use}{more}}}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    text = str(value) if isinstance(value, Path) else value
    if isinstance(text, str) and (not _PLAIN.fullmatch(text) or safe_yaml.parse(text, "value").value != text):
        return json.dumps(text)  # else it would be read as something else
    return text if isinstance(text, str) else json.dumps(text)


# -- the record ---------------------------------------------------------------------------------------------------


class Record:
    """What has happened so far."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, int, float]] = []
        self.tasks: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, dict[str, str]] = {}
        self.left_out: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, dict[str, float]] = {}
        self.filled: dict[str, dict[str, str]] = {}

    def describe(self, task: Task) -> None:
        """Note what a task is, so that a saved board says it."""
        self.tasks[task.name] = {
            "says": task.says,
            "heuristic": task.heuristic_name,
            "measures": {
                m.name: {
                    "says": m.says,
                    "perfect": m.perfect,
                    "chance": m.chance,
                    "higher_is_better": m.higher_is_better,
                }
                for m in task.measures
            },
        }

    def frame(self, task: Task, problems: Sequence[Problem], role: str) -> None:
        """Enter one of the four that frame a task. That one raises is the task's fault, and stops everything."""
        ask: Callable[[Problem], Any] = getattr(task, role)
        for problem in problems:
            self._add(task, role, problem, judged(task, problem, ask(problem)))

    def enter(self, task: Task, problems: Sequence[Problem], name: str, spec: Spec, runtime: Runtime) -> None:
        """Enter a contestant: all its scores, or why there are none."""
        found: list[dict[str, float]] = []
        spent = 0.0
        for problem in problems:
            started = time.perf_counter()
            try:
                given = answer(task, spec, problem, runtime)
                spent += time.perf_counter() - started
                found.append(judged(task, problem, given))
            except Interrupted:
                raise
            except Exception as error:  # a stranger's code may raise anything; it is told, and the contest goes on
                self.failures.setdefault(task.name, {})[name] = f"seed {problem.seed}: {one_line(error)}"
                return
        for problem, scores in zip(problems, found):
            self._add(task, name, problem, scores)
        given = [filling(spec, registry.resolve(spec.use), problem.decided) for problem in problems]
        if given[0]:
            self.filled.setdefault(task.name, {})[name] = spelled(given)
        self.seconds.setdefault(task.name, {})[name] = spent / len(problems)

    def _add(self, task: Task, name: str, problem: Problem, scores: Mapping[str, float]) -> None:
        self.rows += [(task.name, name, measure, problem.seed, value) for measure, value in scores.items()]

    def board(self) -> Scoreboard:
        """Return it as a result."""
        columns: Iterator[tuple[Any, ...]] = zip(*self.rows)
        task, contestant, measure, seed, value = columns
        return Scoreboard(
            task,
            contestant,
            measure,
            seed,
            torch.tensor(value, dtype=torch.float64),
            tasks=self.tasks,
            failures=self.failures,
            left_out=self.left_out,
            seconds=self.seconds,
            filled=self.filled,
        )
