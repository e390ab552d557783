"""What a contest found: every score, and what may be said of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from genxai_core.errors import ExplainerError
from genxai_core.explanation import Explanation

from . import statistics
from .statistics import Interval, Verdict
from .task import FRAME

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

OPPONENTS = ("heuristic", "random", "constant")
"""Whom every contestant is compared with."""

CAPTION = (
    "Mean and 95 % interval over instances (Student's t) of the measure that ranks; the right side is the better. "
    "Gray: the four that frame a task; the gray line is the heuristic's mean, the dotted one chance. Blue: better than "
    "heuristic, random and constant; red triangle: worse than one of them; open: neither can be told (paired t, "
    "corrected after Holm)."
)

COLUMNS = ("task", "contestant", "measure", "seed", "value")


@dataclass(frozen=True, eq=False)
class Scoreboard(Explanation):
    """Scores of contestants on tasks whose right answer is known: one row per task, contestant, measure and instance.

    Beside the contestants, which are named as in the registry with their parameters, stand the four that frame every
    task: ``oracle``, ``random``, ``heuristic`` and ``constant``.

    Parameters
    ----------
    task, contestant, measure
        Their names, R each.
    seed
        R integers: which instance.
    value
        ``[R]`` doubles: the scores.
    tasks
        By task: ``says``; ``heuristic``, what that contestant is; and ``measures``, by name, the first of which ranks,
        each with what it ``says``, ``perfect``, ``chance`` (None where the random contestant tells it) and
        ``higher_is_better``.
    failures
        By task and contestant: why it has no scores there although it fits.
    left_out
        By task and contestant: why it does not fit.
    seconds
        By task and contestant: how long it took to answer one instance, in the mean.
    filled
        By task and contestant: which of its parameters the task filled in, with the values that can be written.

    Raises
    ------
    ExplainerError
        If columns differ in length, a score is not finite, or a row's task or measure is not described.
    """

    type_name: ClassVar[str] = "scoreboard"

    task: tuple[str, ...]
    contestant: tuple[str, ...]
    measure: tuple[str, ...]
    seed: tuple[int, ...]
    value: Tensor
    tasks: Mapping[str, Mapping[str, Any]]
    failures: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    filled: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in COLUMNS}
        if len(set(lengths.values())) != 1:
            raise ExplainerError(f"scoreboard: the columns differ in length: {lengths}")
        for task, contestant, measure, seed, value in self._rows():
            if measure not in self.tasks.get(task, {}).get("measures", {}):
                raise ExplainerError(f"scoreboard: no task {task!r} with a measure {measure!r} is described")
            if not math.isfinite(value):
                raise ExplainerError(
                    f"scoreboard: {contestant} scores {value} in {measure} on {task}, seed {seed}; scores are finite"
                )

    # -- scores -------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def _cells(self) -> dict[tuple[str, str, str], dict[int, float]]:
        """Scores by seed, by task, contestant and measure."""
        cells: dict[tuple[str, str, str], dict[int, float]] = {}
        for task, contestant, measure, seed, value in self._rows():
            cells.setdefault((task, contestant, measure), {})[seed] = value
        return cells

    def _rows(self) -> Iterator[tuple[str, str, str, int, float]]:
        return zip(self.task, self.contestant, self.measure, self.seed, self.value.tolist())

    def scores(self, task: str, contestant: str, measure: str = "") -> dict[int, float]:
        """Return a contestant's scores by seed.

        Parameters
        ----------
        task
            One of `tasks`.
        contestant
            A contestant of it.
        measure
            One of its measures; empty for the one that ranks.

        Raises
        ------
        ExplainerError
            If there are none.
        """
        measure = measure or self.first(task)
        if (task, contestant, measure) not in self._cells:
            raise ExplainerError(f"scoreboard: {contestant!r} has no score {measure!r} on {task!r}")
        return self._cells[task, contestant, measure]

    def first(self, task: str) -> str:
        """Return the name of the measure that ranks."""
        if task not in self.tasks:
            raise ExplainerError(f"scoreboard: there is no task {task!r}; there are: {', '.join(self.tasks)}")
        return str(next(iter(self.tasks[task]["measures"])))

    def called(self, task: str, contestant: str) -> str:
        """Return what a contestant is called: the task's heuristic has a name of its own, such as edge filter."""
        return str(self.tasks[task]["heuristic"]) if contestant == "heuristic" else contestant

    def contestants(self, task: str, *, frame: bool = False) -> list[str]:
        """Return who has scores on a task, the best first by the mean of the measure that ranks; equal ones by name.

        Parameters
        ----------
        frame
            Whether the four that frame the task are among them.
        """
        measure = self.first(task)
        found = [c for t, c, m in self._cells if (t, m) == (task, measure) and (frame or c not in FRAME)]
        sign = self._sign(task, measure)
        return sorted(found, key=lambda c: (-sign * self._placed(task, c), FRAME.index(c) if c in FRAME else 9, c))

    def interval(self, task: str, contestant: str, measure: str = "") -> Interval:
        """Return the mean over seeds and its 95 % interval by Student's t."""
        return statistics.interval(list(self.scores(task, contestant, measure).values()))

    def _placed(self, task: str, contestant: str) -> float:
        """Return the mean of the measure that ranks in ten-thousandths of the way from random to perfect.

        Two that are both perfect but for the last bits of arithmetic are equal.
        """
        perfect = float(self.tasks[task]["measures"][self.first(task)]["perfect"])
        return round((self.interval(task, contestant).mean - perfect) / self._span(task), 4)

    def _span(self, task: str) -> float:
        """Return the way from random to perfect."""
        perfect = float(self.tasks[task]["measures"][self.first(task)]["perfect"])
        return abs(perfect - self.interval(task, "random").mean) or 1.0

    def _sign(self, task: str, measure: str) -> float:
        return 1.0 if self.tasks[task]["measures"][measure]["higher_is_better"] else -1.0

    # -- what may be said -----------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """Return how many took part in how much, and how often they beat all that do not know the truth."""
        verdicts = [self.standing(task, name) for task in self.tasks for name in self.contestants(task)]
        found = {
            "tasks": len(self.tasks),
            "contestants": len({*self.contestant, *(c for by in self.failures.values() for c in by)} - set(FRAME)),
            "instances of each": len(set(self.seed)),
            "better than heuristic, random and constant": f"{verdicts.count('better')} of {len(verdicts)} times",
            "worse than one of them": verdicts.count("worse"),
        }
        failed = sum(map(len, self.failures.values()))
        return found | ({"failed": failed} if failed else {})

    def means(self) -> list[dict[str, Any]]:
        """Return mean and 95 % interval over seeds (Student's t) for every task, contestant and measure."""
        rows = []
        for task, contestant, measure in self._cells:
            found = self.interval(task, contestant, measure)
            rows.append({"task": task, "contestant": contestant, "measure": measure, **found._asdict()})
        return rows

    def verdicts(self) -> list[dict[str, Any]]:
        """Compare every contestant with the heuristic, the random and the constant one, by the measure that ranks.

        Both met the same instances, so the test is Student's paired t over seeds. Its p values are corrected after Holm
        (1979) for the number of contestants that are compared with the same opponent on the same task: who enters many
        contestants finds a difference by chance no more often. ``verdict`` is ``better``, ``same`` or ``worse`` at 5 %;
        ``same`` means that no difference can be told, not that there is none. It needs `statistics.FEWEST` instances
        and a mean difference of at least 1/10,000 of the way from random to perfect, which is also the least spread
        that the test is given. ``difference`` is in the measure's unit, positive where the contestant is better.
        """
        return [dict(row) for row in self._verdicts]

    @functools.cached_property
    def _verdicts(self) -> list[dict[str, Any]]:
        rows = []
        for task in self.tasks:
            measure = self.first(task)
            sign = self._sign(task, measure)
            names = self.contestants(task)
            least = statistics.LEAST * self._span(task)
            for opponent in OPPONENTS:
                theirs = self.scores(task, opponent)
                gains = [
                    [sign * (value - theirs[seed]) for seed, value in self.scores(task, name).items()] for name in names
                ]
                corrected = statistics.holm([statistics.paired(gain, least) for gain in gains])
                for name, gain, p in zip(names, gains, corrected):
                    mean = float(np.mean(gain))
                    found = statistics.verdict(mean, p, len(gain), least)
                    said = _said(found, self.called(task, opponent))
                    rows.append(
                        {
                            "task": task,
                            "contestant": name,
                            "against": opponent,
                            "difference": mean,
                            "p": p,
                            "verdict": found,
                            "says": said,
                        }
                    )
        return rows

    def _against(self, task: str, contestant: str) -> dict[str, dict[str, Any]]:
        """Return a contestant's verdicts by opponent; none for one that frames the task or has no scores."""
        return {v["against"]: v for v in self._verdicts if (v["task"], v["contestant"]) == (task, contestant)}

    def standing(self, task: str, contestant: str) -> Verdict:
        """Return what a contestant's verdicts come to.

        ``better`` is who is better than each of the heuristic, the random and the constant one: where a heuristic does
        worse than nothing, it takes nothing to be better than it. ``worse`` is who is worse than any of them.

        Raises
        ------
        ExplainerError
            If it frames the task or has no scores there.
        """
        found = [v["verdict"] for v in self._against(task, contestant).values()]
        if not found:
            raise ExplainerError(f"scoreboard: there is no verdict on {contestant!r} on {task!r}")
        if "worse" in found:
            return "worse"
        return "better" if set(found) == {"better"} else "same"

    def says(self, task: str, contestant: str) -> str:
        """Spell the verdict on a contestant: against the heuristic, and whom it is not better than or loses to either.

        Empty for one that frames the task or has no scores.
        """
        found = self._against(task, contestant)
        if not found:
            return ""
        if len(self.scores(task, contestant)) < statistics.FEWEST:
            return f"no verdict from fewer than {statistics.FEWEST} instances"
        first = found["heuristic"]["verdict"]
        even, lost = ([o for o in OPPONENTS[1:] if found[o]["verdict"] == which] for which in ("same", "worse"))
        said = [str(found["heuristic"]["says"])] if first != "same" or not lost else []
        if even and first == "better":
            said.append(f"not than {' or '.join(even)}")
        if lost and first != "worse":
            said.append(f"loses to {' and '.join(lost)}")
        return ", ".join(said)

    def table(self) -> list[dict[str, Any]]:
        """Return one row per task and contestant, the best first, those that frame the task and that failed too.

        ``rank`` counts the contestants alone; equal means share one. ``verdict`` is what `says` says.
        """
        rows: list[dict[str, Any]] = []
        for task in self.tasks:
            ranks = self.ranks(task)
            for contestant in self.contestants(task, frame=True):
                found = self.interval(task, contestant)
                rows.append(
                    {
                        "task": task,
                        "rank": ranks.get(contestant),
                        "contestant": self.called(task, contestant),
                        "measure": self.first(task),
                        **found._asdict(),
                        "verdict": self.says(task, contestant),
                        "seconds": self.seconds.get(task, {}).get(contestant),
                    }
                )
            empty = {"measure": self.first(task), "mean": None, "low": None, "high": None}
            for contestant, reason in self.failures.get(task, {}).items():
                row = {"task": task, "rank": None, "contestant": contestant, **empty}
                rows.append({**row, "verdict": f"failed: {reason}", "seconds": None})
        return rows

    def ranks(self, task: str) -> dict[str, int]:
        """Return each contestant's place by the mean of the measure that ranks, from 1.

        Means that differ by less than 1/10,000 of the way from random to perfect share a place.
        """
        names = self.contestants(task)
        means = [self._placed(task, name) for name in names]
        return {name: means.index(mean) + 1 for name, mean in zip(names, means)}

    @property
    def captions(self) -> dict[str, str]:
        """What stands below the picture in a report."""
        return {"explanation": CAPTION}

    def plot(self) -> Figure | None:
        """Draw a panel per task: every contestant's mean and interval, the oracle's side being the right one."""
        from .figure import draw

        return draw(self) if self.tasks else None


def _said(found: statistics.Verdict, opponent: str) -> str:
    """Spell a verdict."""
    whom = opponent if opponent in OPPONENTS[1:] or opponent.split()[0] in ("a", "an", "the") else f"the {opponent}"
    words = {"better": f"better than {whom}", "worse": f"loses to {whom}"}
    return words.get(found, "no difference that can be told")
