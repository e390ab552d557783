"""`explainer/bench`: holds explainers against models whose right explanation is known."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from genxai_core import Explainer, Explanation, Runtime, Spec
from genxai_core.interfaces import Accepts

from . import contest, entering
from .scoreboard import Scoreboard
from .tasks import TASKS


class Bench(Explainer):
    """Scores of explainers and trainers on tasks whose right answer is known, beside an oracle, chance and a heuristic.

    Every contestant meets copies of the same instances, whose seeds are the pipeline's and those that follow it. What
    an instance decides (the layers, a segmenter, a classifier) fills in what a contestant leaves open, and is told. One
    that raises is shown with its reason. The result's scores are ``[R]``, a row for every task, contestant, measure and
    instance, in the measure's unit. A contest tells how good an explanation is of models that were made so that it is
    known; of your model it tells nothing but what a method that fails here is worth.

    Parameters
    ----------
    contestants
        Explainers and trainers, each ``{use: …, with: {…}}``.
    tasks
        Names of tasks; empty for all that fit any contestant.
    seeds
        How many instances of each task, at least 2; intervals and tests are over these, and verdicts need 5.

    Raises
    ------
    ValueError
        If there are no contestants, fewer than two seeds, or a task is unknown.
    """

    explains: ClassVar[str] = "nothing"
    accepts: ClassVar[Accepts] = "nothing"
    returns: ClassVar[type[Explanation]] = Scoreboard
    stochastic: ClassVar[bool] = True  # the seed says which instances

    def __init__(
        self,
        contestants: tuple[Spec, ...] | list[Spec],
        tasks: tuple[str, ...] | list[str] = (),
        seeds: int = 5,
    ) -> None:
        if not contestants:
            raise ValueError("there are no contestants; name at least one: [{use: explainer/saliency}]")
        if seeds < 2:
            raise ValueError(f"seeds {seeds} must be at least 2, since an interval needs them")
        unknown = [name for name in tasks if name not in TASKS]
        if unknown:
            raise ValueError(f"no task is named {unknown[0]!r}; the tasks are: {', '.join(TASKS)}")
        self.contestants, self.tasks, self.seeds = tuple(contestants), tuple(tasks), seeds

    def _explain(self, model: Any, inputs: Any, target: int | None, runtime: Runtime | None = None) -> Scoreboard:
        runtime = runtime or Runtime()
        tasks = entering.chosen(self.tasks)
        if not self.tasks:
            tasks = entering.fitting(self.contestants, tasks)
        seeds = range(runtime.seed, runtime.seed + self.seeds)
        board = contest.run(self.contestants, tasks, seeds, runtime)
        # How long it took is the manifest's to say: a result is the same bit for bit whenever it is made.
        return dataclasses.replace(board, seconds={})
