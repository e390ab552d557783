"""Who enters a contest and where: names as people write them, and the tasks that fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from genxai_core import Spec, registry, safe_yaml
from genxai_core.errors import GenxaiError, InputError, StorageError

from . import contest
from .task import Problem, Task
from .tasks import TASKS, task


def chosen(names: Sequence[str]) -> list[Task]:
    """Make tasks by name, all of them where there are no names.

    Raises
    ------
    InputError
        If one is unknown.
    """
    return [task(name) for name in (dict.fromkeys(names) or TASKS)]


def fitting(contestants: Sequence[Spec], tasks: Iterable[Task]) -> list[Task]:
    """Return the tasks that at least one contestant can take part in.

    Raises
    ------
    InputError
        If there are none; the message has each reason once.
    RegistryError, BadParameter
        If a contestant cannot be had, or has no such parameter.
    """
    targets = {contest.label(spec): contest.resolved(spec) for spec in contestants}
    reasons: dict[str, list[str]] = {name: [] for name in targets}
    found = []
    for each in tasks:
        said = {name: contest.misfit(each, target) for name, target in targets.items()}
        if "" in said.values():
            found.append(each)
        for name, reason in said.items():
            reasons[name].append(reason)
    if not found:
        told = "; ".join(f"{name} {_once(each)}" for name, each in reasons.items())
        raise InputError(f"no task fits: {told or 'no contestant is named'}")
    return found


def _once(reasons: Sequence[str]) -> str:
    """Say what several tasks find wrong, each thing once: ``returns a; the task judges b, c``."""
    by_first: dict[str, list[str]] = {}
    for reason in reasons:
        first, _, rest = reason.partition("; ")
        by_first.setdefault(first, []).append(rest)
    said = []
    for first, rests in by_first.items():
        begins = {rest.rpartition(" ")[0] for rest in rests}
        ends = dict.fromkeys(rest.rpartition(" ")[2] for rest in rests)
        more = f"{begins.pop()} {', '.join(ends)}" if len(begins) == 1 else "; ".join(dict.fromkeys(rests))
        said.append(f"{first}; {more}" if more.strip() else first)
    return "; ".join(said)


class Candidates(NamedTuple):
    """What of the installed explainers can enter as it is, and why others cannot."""

    specs: list[Spec]
    not_run: dict[str, str]


def installed(tasks: Sequence[Task]) -> Candidates:
    """Return every installed explainer that fits one of the tasks, with its default parameters.

    One that fits but needs a parameter that no task fills in, or cannot be imported, is told with the reason.
    """
    problems: dict[str, Problem] = {}
    found = Candidates([], {})
    for component, _ in registry.default().provided():
        if component.kind != "explainer":
            continue
        spec = Spec(component.full_name)
        try:
            target = contest.resolved(spec)
        except GenxaiError as error:
            found.not_run[spec.use] = str(error)
            continue
        able = [each for each in tasks if not contest.misfit(each, target)]
        missing: list[list[str]] = []
        for each in able:
            if not contest.left_open(spec, target, {}):
                missing.append([])
                break
            problem = problems.setdefault(each.name, each.problem(0))
            missing.append(contest.left_open(spec, target, problem.decided))
        if [] in missing:
            found.specs.append(spec)
        elif missing:
            needs = ", ".join(sorted(missing, key=len)[0])
            found.not_run[spec.use] = f"needs {needs}, which no task fills in; name it: {spec.use}:{needs}=…"
    return found


# -- names --------------------------------------------------------------------------------------------------------


def parse(text: str) -> Spec:
    """Read a contestant: ``explainer/cam`` or ``explainer/cam:method=layercam,layer=layers.1``.

    A bare name is an explainer's. Values are YAML on one line, so a nested component is
    ``explainer={use: explainer/saliency}``.

    Raises
    ------
    InputError
        If it is malformed; the message says what it should look like.
    """
    use, colon, rest = text.partition(":")
    params: dict[str, Any] = {}
    for part in _parts(rest, text) if colon else []:
        name, equals, value = part.partition("=")
        if not equals or not name.strip().isidentifier():
            raise InputError(f"{text!r}: {part.strip()!r} is not NAME=VALUE; write explainer/cam:method=layercam")
        if name.strip() in params:
            raise InputError(f"{text!r}: {name.strip()!r} is given twice; give it once")
        try:
            params[name.strip()] = _nested(safe_yaml.parse(value.strip(), name.strip()).value, text)
        except StorageError as error:
            raise InputError(f"{text!r}: {error}") from None
    use = use.strip()
    return Spec(use if "/" in use else f"explainer/{use}", params)


def _parts(text: str, whole: str) -> list[str]:
    """Split at commas that stand in no bracket and no quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in "[{") - (letter in "]}")
            if letter == "," and depth == 0:
                parts.append("")
                continue
        parts[-1] += letter
    if depth or quote:
        raise InputError(f"{whole!r}: a bracket or quote is not closed")
    return parts


def _nested(value: Any, whole: str) -> Any:
    """Turn nested ``{use:, with:}`` into Specs."""
    if isinstance(value, list):
        return [_nested(v, whole) for v in value]
    if isinstance(value, Mapping) and "use" in value:
        params = value.get("with", {})
        if set(value) - {"use", "with"} or not isinstance(value["use"], str) or not isinstance(params, Mapping):
            raise InputError(f"{whole!r}: a nested component is {{use: kind/name, with: {{…}}}}")
        return Spec(value["use"], {k: _nested(v, whole) for k, v in params.items()})
    if isinstance(value, Mapping):
        return {k: _nested(v, whole) for k, v in value.items()}
    return value
