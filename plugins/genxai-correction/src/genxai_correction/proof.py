"""What a correction changed before an independent judge, beside its controls, with intervals and pairs of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from genxai_core import Explanation
from genxai_core.errors import ExplainerError
from genxai_core.results import checks

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from genxai_core.report import Section

OWNER = "correction proof"
UNCORRECTED, CORRECTED, MOST_ACTIVE = "uncorrected", "corrected", "most active"
RATE = "artifact rate"
MORE_IS_BETTER: dict[str, bool] = {
    RATE: False,
    "newly broken": False,
    "kid": False,
    "fid": False,
    "precision": True,
    "recall": True,
    "density": True,
    "coverage": True,
    "feature change": False,
    "pixel change": False,
    "change outside masks": False,
}
"""The measures in the order in which they are shown, and whether more of each is better."""

MAGNITUDES = ("feature change", "pixel change", "change outside masks")
"""Measures that are 0 for the uncorrected, and above it for whatever changes anything."""


@dataclass(frozen=True, eq=False)
class Proof(Explanation):
    """M measures of A arms, the same N samples each: uncorrected, corrected, and under each control.

    Parameters
    ----------
    arms
        A names: ``uncorrected``, ``corrected``, then the controls.
    measures
        M names; what could not be measured is in the notes.
    values, intervals
        ``[A, M]`` and ``[A, M, 2]``: each measure and its 95 % interval.
    changes, change_intervals
        ``[A]`` and ``[A, 2]``: the artifact rate less the uncorrected, over differences within samples.
    against, against_intervals
        ``[A]`` and ``[A, 2]``: the *corrected* artifact rate less that of each arm, in the same way.
    probabilities
        ``[A, N]``: the judge's P(artifact) of every sample.
    above
        A sample is broken if its P(artifact) exceeds this.
    edited
        How many units the correction edits.
    numbers
        ``[P]`` integers: the addresses of the pairs' samples, the first that were broken, in order.
    before, after
        ``[P, C, H, W]``: these samples uncorrected and corrected.
    value_range
        That of the images.
    notes
        What was compared, and what was not measured and why.

    Raises
    ------
    ExplainerError
        If a type, a shape or a length does not fit, or numbers are not finite.
    """

    type_name: ClassVar[str] = "correction-proof"
    captions: ClassVar[Mapping[str, str]] = {
        "arms": "The same samples uncorrected, corrected, and under each control: as many units, chosen at random or "
        "for their activity, edited as strongly. Bars are 95 % intervals. Arrows say which direction is better.",
        "pairs": "The first samples that were broken, in order, not chosen: uncorrected, and below corrected, each "
        "with the judge's P(artifact).",
    }

    arms: tuple[str, ...]
    measures: tuple[str, ...]
    values: Tensor
    intervals: Tensor
    changes: Tensor
    change_intervals: Tensor
    against: Tensor
    against_intervals: Tensor
    probabilities: Tensor
    above: float
    edited: int
    _: KW_ONLY
    numbers: Tensor | None = None
    before: Tensor | None = None
    after: Tensor | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("arms", "measures"):
            object.__setattr__(self, name, checks.names(OWNER, name, getattr(self, name)))
        object.__setattr__(self, "value_range", checks.value_range(OWNER, self.value_range))
        if self.arms[:2] != (UNCORRECTED, CORRECTED) or len(self.arms) < 3 or self.measures[:1] != (RATE,):
            raise ExplainerError(
                f"{OWNER}: arms must be {UNCORRECTED}, {CORRECTED} and controls, and the first measure {RATE}, not "
                f"{self.arms} and {self.measures}"
            )
        a, m = len(self.arms), len(self.measures)
        checks.tensor(OWNER, "values", self.values, {"A": a, "M": m})
        checks.tensor(OWNER, "intervals", self.intervals, {"A": a, "M": m, "2": 2})
        for name in ("changes", "against"):
            checks.tensor(OWNER, name, getattr(self, name), {"A": a})
        for name in ("change_intervals", "against_intervals"):
            checks.tensor(OWNER, name, getattr(self, name), {"A": a, "2": 2})
        checks.tensor(OWNER, "probabilities", self.probabilities, {"A": a, "N": None})
        pairs = (self.numbers, self.before, self.after)
        if any(given is not None for given in pairs):
            checks.tensor(OWNER, "numbers", self.numbers, {"P": None}, dtype="integer")
            checks.images(OWNER, self.before, after=self.after)
            if len(self.numbers) != len(self.before):  # type: ignore[arg-type]
                raise ExplainerError(f"{OWNER}: numbers and before are not of the same samples")

    # -- what it says ---------------------------------------------------------------------------------------------

    @property
    def controls(self) -> tuple[str, ...]:
        """The arms that are controls."""
        return self.arms[2:]

    def value(self, measure: str, arm: str = CORRECTED) -> tuple[float, float, float]:
        """Return a measure of an arm, and the ends of its interval.

        Raises
        ------
        ExplainerError
            If there is no such measure or arm.
        """
        for name, known in ((measure, self.measures), (arm, self.arms)):
            if name not in known:
                raise ExplainerError(f"{OWNER}: there is no {name!r}, only {', '.join(known)}")
        i, j = self.arms.index(arm), self.measures.index(measure)
        low, high = self.intervals[i, j].tolist()
        return float(self.values[i, j]), low, high

    @property
    def lowers(self) -> bool:
        """Whether the correction lowers the artifact rate: all of the change's interval is below 0."""
        return bool(self.change_intervals[1, 1] < 0)

    @property
    def not_beaten(self) -> tuple[str, ...]:
        """The controls to which the correction's artifact rate is not lower: the difference's interval reaches 0."""
        return tuple(arm for i, arm in enumerate(self.arms) if i > 1 and not bool(self.against_intervals[i, 1] < 0))

    @property
    def better(self) -> bool:
        """Whether it lowers the artifact rate, and more than every control does."""
        return self.lowers and not self.not_beaten

    @property
    def verdict(self) -> str:
        """Say in a sentence whether it lowers the artifact rate, and more than the controls."""
        if not self.edited:
            return "nothing is edited, so nothing changes"
        if not bool((self.probabilities[0] > self.above).any()):
            return "no sample is broken uncorrected, so there is nothing to correct"
        if self.better:
            return "lowers the artifact rate, and more than every control"
        if bool(self.change_intervals[1, 0] > 0):
            does = "raises the artifact rate"
        else:
            does = "lowers the artifact rate" if self.lowers else "does not lower the artifact rate"
        return f"{does}; no better than the controls ({', '.join(self.not_beaten)})" if self.not_beaten else does

    def worse(self) -> list[str]:
        """Return the shares and distances that the correction makes worse: its interval and the uncorrected one part.

        Where both intervals hold the error of the real images, a change must be larger than need be to be told.
        """
        found = []
        for name in self.measures[1:]:
            (_, low, high), (_, least, most) = self.value(name), self.value(name, UNCORRECTED)
            if name not in MAGNITUDES and (high < least if MORE_IS_BETTER.get(name, False) else low > most):
                found.append(name)
        return found

    def summary(self) -> dict[str, Any]:
        """Say what it does, in words: the verdict, the artifact rates, and what it costs."""
        found: dict[str, Any] = {"verdict": self.verdict}
        rates = [self.value(RATE, arm)[0] for arm in self.arms]
        found[RATE] = f"{rates[0]:.1%} → {rates[1]:.1%} ({_signed(self.changes[1], self.change_intervals[1])})"
        for i, arm in enumerate(self.arms[2:], start=2):
            less = _signed(self.against[i], self.against_intervals[i])
            found[f"with {arm} units"] = f"{rates[i]:.1%}; corrected less this {less}"
        named = [name for name in self.measures[1:] if name not in MAGNITUDES]
        pairs = {name: (self.value(name, UNCORRECTED)[0], self.value(name)[0]) for name in named}
        cost = ", ".join(f"{name} {old:.3g} → {new:.3g}" for name, (old, new) in pairs.items())
        found["cost"] = f"{cost}; worse beyond the intervals: {', '.join(self.worse()) or 'none'}".replace("-", "−")
        for name in (name for name in MAGNITUDES if name in self.measures):
            value, low, high = self.value(name)
            found[name] = f"{value:.3g} ({low:.3g} to {high:.3g})"
        return found

    # -- to look at -----------------------------------------------------------------------------------------------

    def table(self) -> list[dict[str, Any]]:
        """Return one row per arm and measure: its value and the ends of its interval."""
        rows = []
        for arm in self.arms:
            for name in self.measures:
                value, low, high = self.value(name, arm)
                rows.append({"arm": arm, "measure": name, "value": value, "low": low, "high": high})
        return rows

    def control_table(self) -> list[dict[str, Any]]:
        """Return one row per arm but the corrected: its artifact rate, and the corrected less that."""
        rows = []
        for i, arm in enumerate(self.arms):
            if arm != CORRECTED:
                low, high = self.against_intervals[i].tolist()
                rate, less = self.value(RATE, arm)[0], float(self.against[i])
                rows.append({"arm": arm, RATE: rate, "corrected less this": less, "low": low, "high": high})
        return rows

    def figures(self) -> dict[str, Figure]:
        """Draw the arms side by side, and the pairs if there are any."""
        from .proof_figures import arms_figure

        pairs = self.pairs_figure()
        return {"arms": arms_figure(self), **({} if pairs is None else {"pairs": pairs})}

    def plot(self, title: str = "") -> Figure:
        """Draw the arms side by side, a panel for each measure."""
        from .proof_figures import arms_figure

        return arms_figure(self, title=title)

    def pairs_figure(self, title: str = "") -> Figure | None:
        """Draw the first broken samples and what became of them; None if none were broken, or kept."""
        from .proof_figures import pairs_figure

        return pairs_figure(self, title=title) if self.numbers is not None and len(self.numbers) else None

    def report_sections(self) -> Iterator[Section]:
        """Yield what the report shows below: the measures of all arms side by side, and the controls."""
        from genxai_core.report import Section

        rows: list[dict[str, object]] = []
        for name in self.measures:
            row: dict[str, object] = {"measure": f"{name} {'↑' if MORE_IS_BETTER.get(name, False) else '↓'}"}
            for arm in self.arms:
                value, low, high = self.value(name, arm)
                row[arm] = f"{value:.3g} ({low:.3g} to {high:.3g})"
            rows.append(row)
        yield Section(
            "What the correction changes, and what it costs",
            f"The correction {self.verdict}. {self.probabilities.shape[1]} samples, the same in every column; 95 % "
            f"intervals in brackets. Arrows say which direction is better.",
            table=rows,
            note="The judge decides what is broken, and is as good as its labels. The intervals say how sure a figure "
            "is for this judge, not how right the judge is.",
        )
        yield Section(
            "Against the controls",
            "The corrected artifact rate less that of each other arm, over differences within samples. The "
            "correction is better than a control where all of the interval is below 0.",
            table=self.control_table(),
        )


def _signed(value: Tensor, ends: Tensor) -> str:
    low, high = ends.tolist()
    return f"{float(value):+.1%}, {low:+.1%} to {high:+.1%}".replace("-", "−")
