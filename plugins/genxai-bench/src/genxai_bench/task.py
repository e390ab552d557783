"""What a task is: a model made so that its right explanation is known, four contestants that frame it, and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import nn

from genxai_core import Samples

FRAME = ("oracle", "random", "heuristic", "constant")
"""The contestants that every task brings: one that knows the truth, and three that do not."""


@dataclass(frozen=True)
class Measure:
    """One figure by which a result is judged.

    Parameters
    ----------
    name
        A word or two, in kebab-case: ``energy``.
    says
        One line: what it is, from what to what.
    perfect
        What the truth itself scores.
    chance
        What a result scores that knows nothing; None where that depends on the instance (then the random contestant
        tells it).
    higher_is_better
        Its direction.
    slack
        How far from ``perfect`` the oracle may stay for reasons of arithmetic.
    near
        How far from ``chance`` the random contestant's mean may stay.
    """

    name: str
    says: str
    perfect: float
    chance: float | None = None
    higher_is_better: bool = True
    slack: float = 1e-4
    near: float = 0.1


@dataclass(frozen=True)
class Problem:
    """One instance of a task.

    Parameters
    ----------
    model
        What is explained, in eval mode.
    inputs
        What it is explained on: images, and latents, masks, labels and factors where the task has them. For a task
        whose contestants are trainers: the data. None where there are none.
    target
        The class index to explain, for discriminators.
    truth
        What only the oracle and the score may see.
    decided
        Constructor parameters that the instance can fill in for an explainer that has them, leaves them open and takes
        values of that type (`contest.filling`), by the names that explainers use: ``layers`` (names of modules),
        ``segmenter``, ``classifier``, ``concepts``…
    seed
        Which instance.
    """

    model: nn.Module | None
    inputs: Samples | None
    target: int | None = None
    truth: Mapping[str, Any] = field(default_factory=dict)
    decided: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


class Task(ABC):
    """A question with a known answer.

    A subclass has constructor parameters for size and difficulty, all with defaults, and draws each instance from
    its seed alone (with `genxai_core.draws`). The first measure is the one that ranks.

    Attributes
    ----------
    name
        In kebab-case: ``shortcut-patch``.
    says
        One line: what is planted, and what the right answer is.
    subject
        Whether the contestants are explainers, or trainers that fit ``problem.inputs`` and are judged by the model.
    explains
        The kind or capability of ``problem.model``, as explainers declare it; for trainers the capability of the model
        that they make.
    returns
        Name of the Explanation type that is judged (``attribution``); empty for trainers.
    measures
        How it is judged.
    heuristic_name
        What the heuristic contestant is: ``edge filter`` where the result is a map and edges could be taken for it.
    """

    name: ClassVar[str]
    says: ClassVar[str]
    subject: ClassVar[Literal["explainer", "trainer"]] = "explainer"
    explains: ClassVar[str] = "discriminator"
    returns: ClassVar[str] = "attribution"
    measures: ClassVar[tuple[Measure, ...]]
    heuristic_name: ClassVar[str] = "edge filter"

    @abstractmethod
    def problem(self, seed: int) -> Problem:
        """Make an instance. The same seed makes the same one, bit for bit."""

    @abstractmethod
    def oracle(self, problem: Problem) -> Any:
        """Answer from the truth."""

    @abstractmethod
    def random(self, problem: Problem) -> Any:
        """Answer at random, seeded by the problem's seed."""

    @abstractmethod
    def heuristic(self, problem: Problem) -> Any:
        """Answer by what looks right: where the result is a map, without the model; else as one would try first."""

    @abstractmethod
    def constant(self, problem: Problem) -> Any:
        """Answer the same for everything."""

    @abstractmethod
    def score(self, problem: Problem, answer: Any) -> dict[str, float]:
        """Judge an answer: one finite number for every measure.

        Raises
        ------
        InputError
            If the answer does not belong to the problem (another size, other layers).
        """
