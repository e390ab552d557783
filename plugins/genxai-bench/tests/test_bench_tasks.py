"""What every task must hold: the oracle near perfect, chance near chance, the same seed the same problem to the bit."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from genxai_bench import contest
from genxai_bench.task import FRAME, Problem, Task
from genxai_bench.tasks import TASKS, task
from torch import nn

from genxai_core import Discriminator, Explanation, Generator, Spec, registry
from genxai_core.errors import InputError

SEEDS = range(5)
SLOW = {"trained-shortcut"}
EVERY = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in TASKS]


# -- the checks ---------------------------------------------------------------------------------------------------


class Played:
    """A task with its instances of five seeds, and the scores of the four that frame it."""

    def __init__(self, made: Task) -> None:
        self.task = made
        self.problems = [made.problem(seed) for seed in SEEDS]
        before = [print_of(p.model) for p in self.problems]
        self.scores: dict[str, list[dict[str, float]]] = {}
        for role in FRAME:
            answers = [getattr(made, role)(p) for p in self.problems]
            self.scores[role] = [contest.judged(made, p, a) for p, a in zip(self.problems, answers)]
        self.unchanged = all(same(old, print_of(p.model)) for old, p in zip(before, self.problems))

    def mean(self, role: str, measure: str) -> float:
        return float(np.mean([scores[measure] for scores in self.scores[role]]))


def check_oracle(played: Played) -> None:
    """What knows the truth is near perfect, by every measure."""
    for m in played.task.measures:
        found = played.mean("oracle", m.name)
        assert abs(found - m.perfect) <= m.slack, f"the oracle's {m.name} is {found}, perfect {m.perfect} ± {m.slack}"


def check_chance(played: Played) -> None:
    """What knows nothing is near chance, by every measure that states it."""
    for m in played.task.measures:
        found = played.mean("random", m.name)
        assert m.chance is None or abs(found - m.chance) <= m.near, f"chance in {m.name} is {found}, not {m.chance}"


def check_gap(played: Played) -> None:
    """Nobody who does not look at the model comes near the oracle, by the measure that ranks."""
    first = played.task.measures[0]
    sign = 1 if first.higher_is_better else -1
    top = played.mean("oracle", first.name)
    for role in FRAME[1:]:
        other = played.mean(role, first.name)
        assert sign * (top - other) > max(first.slack, 1e-6), f"{role} scores {other}, the oracle {top}"


def check_verdict(played: Played) -> None:
    """Who knows the truth is told to be better than all that do not, from the five instances of a default contest."""
    record = contest.Record()
    record.describe(played.task)
    for role in FRAME:
        for name in [role, "explainer/sage"] if role == "oracle" else [role]:
            for problem, scores in zip(played.problems, played.scores[role]):
                record.rows += [(played.task.name, name, m, problem.seed, value) for m, value in scores.items()]
    board = record.board()
    said = board.says(played.task.name, "explainer/sage")
    assert board.standing(played.task.name, "explainer/sage") == "better", said


def check_repeats(played: Played) -> None:
    """The same seed makes the same instance and the same scores, bit for bit; another seed another one."""
    for problem, number in zip(played.problems[:2], SEEDS):
        again = played.task.problem(number)
        assert again.seed == problem.seed == number
        assert same(parts(again), parts(problem)), f"seed {number} made two different instances"
        for role in FRAME:
            found = contest.judged(played.task, again, getattr(played.task, role)(again))
            assert found == played.scores[role][number], f"{role} scored differently on the same instance"
    assert not same(parts(played.problems[0]), parts(played.problems[1]), but=("seed",)), "two seeds made one instance"


def check_model(played: Played) -> None:
    """Models are in eval mode, and scoring leaves them as they were."""
    for problem in played.problems:
        if isinstance(problem.model, nn.Module):
            assert not any(module.training for module in problem.model.modules()), "a module is in train mode"
    assert played.unchanged, "answering and scoring changed the model"


def check_inputs(played: Played) -> None:
    """Explainers take what is given: in the model's range, as far as `Explainer.explain` lets pixels stray."""
    for problem in played.problems:
        if not isinstance(problem.model, Discriminator | Generator) or problem.inputs is None:
            continue
        assert problem.inputs.value_range == tuple(problem.model.value_range)
        low, high = problem.model.value_range
        slack = (high - low) / 2
        images = problem.inputs.images
        assert low - slack <= float(images.min()) <= float(images.max()) <= high + slack, (
            "explainers refuse these images"
        )


def check_secrets(played: Played) -> None:
    """No tensor of the truth lies among what contestants are given."""
    for problem in played.problems[:2]:
        given = [t for t in tensors({"inputs": problem.inputs, "decided": problem.decided}) if t.numel() > 1]
        for name, value in problem.truth.items():
            for secret in tensors(value):
                seen = secret.numel() > 1 and any(same(secret, t) for t in given)
                assert not seen, f"truth[{name!r}] is among the inputs or what is decided"


def check_refusals(played: Played) -> None:
    """An answer to other inputs is refused."""
    problem = played.problems[0]
    answer = played.task.oracle(problem)
    with pytest.raises(InputError):
        played.task.score(problem, foreign(answer))


def check_declared(played: Played) -> None:
    """What a task declares is one of the types that there are."""
    made = played.task
    assert made.measures
    assert len({m.name for m in made.measures}) == len(made.measures)
    if made.subject == "explainer":
        registry.resolve(f"explanation/{made.returns}")
        answer = made.heuristic(played.problems[0])
        assert isinstance(answer, Explanation)
        assert made.returns in {c.type_name for c in type(answer).__mro__ if issubclass(c, Explanation)}
    for text in (made.says, made.heuristic_name, *(m.says for m in made.measures)):
        assert text.strip() == text != ""
        assert "\n" not in text


CHECKS = {name.removeprefix("check_"): check for name, check in sorted(globals().items()) if name.startswith("check_")}


def foreign(answer: Any) -> Any:
    """Turn an answer into one for other inputs: of twice as many, of other layers, of another dimension."""
    if isinstance(answer, nn.Module):
        return nn.Identity()
    match type(answer).type_name:
        case "direction":
            return dataclasses.replace(answer, vectors=torch.cat([answer.vectors] * 2, -1) / 2**0.5, images=None)
        case "unit-scores":
            return dataclasses.replace(answer, scores={f"{k}.x": v for k, v in answer.scores.items()}, thresholds=None)
        case "unit-edits":
            return dataclasses.replace(answer, layers=tuple(f"{layer}.x" for layer in answer.layers))
    if type(answer).per_sample:
        return type(answer).concat([answer, answer])
    raise AssertionError(f"say here what a foreign answer of type {type(answer).type_name} is")


# -- equality, to the bit -----------------------------------------------------------------------------------------


def parts(problem: Problem) -> dict[str, Any]:
    return {f.name: getattr(problem, f.name) for f in dataclasses.fields(problem)}


def same(a: Any, b: Any, but: tuple[str, ...] = ()) -> bool:
    """Whether two nested values are equal to the bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a.nan_to_num(), b.nan_to_num()))
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, nn.Module):
        return same(print_of(a), print_of(b))
    if isinstance(a, Mapping):
        return set(a) == set(b) and all(same(a[k], b[k]) for k in a if k not in but)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Spec) or not hasattr(a, "__dict__") or callable(a):
        return bool(a == b) or (callable(a) and getattr(a, "__qualname__", 0) == getattr(b, "__qualname__", 1))
    return same(vars(a), vars(b))


def print_of(model: Any) -> Any:
    """What of a model must stay: weights, modes, whether they learn, hooks."""
    if not isinstance(model, nn.Module):
        return None
    return {
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "learns": [p.requires_grad for p in model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules()],
    }


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in a nested value."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in tensors(v)]
    if isinstance(value, list | tuple):
        return [t for v in value for t in tensors(v)]
    if dataclasses.is_dataclass(value):
        return [t for f in dataclasses.fields(value) for t in tensors(getattr(value, f.name))]
    return []


# -- every task ---------------------------------------------------------------------------------------------------


@functools.cache
def played(name: str) -> Played:
    return Played(task(name))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", EVERY)
def test_a_task_holds(name, check):
    CHECKS[check](played(name))


def test_a_task_is_called_what_the_table_calls_it():
    for name in TASKS:
        assert task(name).name == name
    with pytest.raises(InputError, match="did you mean shortcut-patch"):
        task("shortcut-pach")


# -- a task that is broken is noticed -----------------------------------------------------------------------------


def test_a_sound_task_passes(entrants):
    for made in (entrants.SpotTask(), entrants.TrainSpot()):
        for name, check in CHECKS.items():
            if made.subject == "explainer" or name != "refusals":
                check(Played(made))


def cheats(entrants):
    """By the check that must notice it: a task with one thing wrong."""
    sound = entrants.SpotTask

    class Oracle(sound):
        def oracle(self, problem):
            return self.random(problem)

    class Chance(sound):
        def random(self, problem):
            return self.oracle(problem)

    class Gap(sound):
        def heuristic(self, problem):
            return self.oracle(problem)

    class Verdict(sound):
        """The heuristic is as good as the oracle now and then, and worse by much otherwise."""

        def heuristic(self, problem):
            return self.oracle(problem) if problem.seed % 2 else self.random(problem)

    class Repeats(sound):
        def problem(self, seed):
            problem = super().problem(seed)
            problem.inputs.images.add_(1e-6 * torch.rand(1))
            return problem

    class OneInstance(sound):
        def problem(self, seed):
            return dataclasses.replace(super().problem(0), seed=seed)

    class Modes(sound):
        def problem(self, seed):
            problem = super().problem(seed)
            problem.model.train()
            return problem

    class Changed(sound):
        def score(self, problem, answer):
            problem.model.region.mul_(0.5)
            return super().score(problem, answer)

    class Secrets(sound):
        def problem(self, seed):
            problem = super().problem(seed)
            inputs = dataclasses.replace(problem.inputs, masks=problem.truth["region"][:, None].clone())
            return dataclasses.replace(problem, inputs=inputs, truth={"region": problem.truth["region"][:, None]})

        def score(self, problem, answer):
            truth = {"region": problem.truth["region"][:, 0]}
            return super().score(dataclasses.replace(problem, truth=truth), answer)

        def oracle(self, problem):
            return super().oracle(dataclasses.replace(problem, truth={"region": problem.truth["region"][:, 0]}))

    class Refusals(sound):
        def score(self, problem, answer):
            return super().score(problem, copy.copy(answer)[: len(problem.inputs)])

    class Inputs(sound):
        def problem(self, seed):
            problem = super().problem(seed)
            return dataclasses.replace(
                problem, inputs=dataclasses.replace(problem.inputs, images=3 * problem.inputs.images)
            )

    class Declared(sound):
        returns = "unit-scores"

    found = {"oracle": Oracle, "chance": Chance, "gap": Gap, "secrets": Secrets, "refusals": Refusals}
    twice = [("repeats", Repeats), ("repeats", OneInstance), ("model", Modes), ("model", Changed)]
    return [*found.items(), *twice, ("inputs", Inputs), ("declared", Declared), ("verdict", Verdict)]


def test_a_task_with_one_thing_wrong_fails_that_check(entrants):
    broken = cheats(entrants)
    assert {name for name, _ in broken} == set(CHECKS)
    for name, kind in broken:
        bad = Played(kind())
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            CHECKS[name](bad)


def test_nothing_of_a_broken_task_is_hidden_by_another(entrants):
    """The cheats with the heuristic pass all other checks, but that who is no better than it gets no verdict."""
    for cheat, noticed in {"gap": {"gap", "verdict"}, "verdict": {"verdict"}}.items():
        bad = Played(dict(cheats(entrants))[cheat]())
        for name in set(CHECKS) - noticed:
            CHECKS[name](bad)
