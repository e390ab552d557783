"""A correction: edits of artifact units, and the held-out figures of all the candidates that they were chosen from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from genxai_core import UnitEdits
from genxai_core.errors import ExplainerError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from genxai_core.report import Section


@dataclass(frozen=True, eq=False)
class Correction(UnitEdits):
    """Edits of artifact units, as `UnitEdits`, with what K candidates did to held-out samples.

    Where no candidate helps within the bound there are no edits, and the summary says why. Indexing selects edits; what
    was measured stays that of the whole.

    Parameters
    ----------
    defects
        ``[E]`` in [0, 1]: the defective score of each edited unit; of a sequential correction, the one that it had once
        the layers before it were corrected.
    strategy
        ``one-layer`` or ``sequential``.
    tried
        K tuples: the layers that the candidate edits.
    numbers
        ``[K]`` integers: how many units it edits altogether.
    strengths
        ``[K]``: its λ.
    rates, rate_intervals
        ``[K]`` and ``[K, 2]``: the share of all held-out samples that the classifier calls broken, and its 95 % Wilson
        interval.
    falls, fall_intervals
        ``[K]`` and ``[K, 2]``: by how much that is less than without edits; the intervals are over differences within
        samples, and wide enough that with 95 % all K hold, since one of them was chosen (Bonferroni).
    probabilities
        ``[K]``: the mean P(artifact) of the held-out samples that were broken.
    collaterals, collateral_intervals
        ``[K]`` and ``[K, 2]``: mean absolute change of the held-out samples that were fine, as a share of the value
        range, and its 95 % interval.
    unedited, unedited_interval
        The rate without edits, and ``[2]`` its interval.
    bound
        The largest collateral that is allowed.
    chosen
        The candidate whose edits these are; None if none helps.
    broken, corrected
        ``[M, C, H, W]``: the first held-out broken samples, and what became of them.
    fine, kept
        The same of samples that were fine.
    value_range
        That of the images.
    selected_by
        SHA-256 of the classifier's weights, which explainer/correction-proof refuses as a judge; empty if it has none.

    Raises
    ------
    ExplainerError
        As `UnitEdits`, or if a shape does not fit, or there is no such candidate.
    """

    type_name: ClassVar[str] = "correction"
    per_sample: ClassVar[tuple[str, ...]] = (*UnitEdits.per_sample, "defects")
    captions: ClassVar[Mapping[str, str]] = {
        "candidates": "Every candidate on held-out samples: the share that is called broken, against the mean change "
        "of samples that were fine. Bars are 95 % intervals. Dashed, the rate without edits; dotted, the bound; "
        "hollow, candidates beyond it.",
        "broken": "The first held-out broken samples, in order, and what became of them.",
        "fine": "The first held-out samples that were fine, in order, and what became of them.",
        "factors": "What is left of the activation of each edited unit.",
    }

    _: KW_ONLY
    defects: Tensor
    strategy: str
    tried: tuple[tuple[str, ...], ...]
    numbers: Tensor
    strengths: Tensor
    rates: Tensor
    rate_intervals: Tensor
    falls: Tensor
    fall_intervals: Tensor
    probabilities: Tensor
    collaterals: Tensor
    collateral_intervals: Tensor
    unedited: float
    unedited_interval: Tensor
    bound: float
    chosen: int | None = None
    broken: Tensor | None = None
    corrected: Tensor | None = None
    fine: Tensor | None = None
    kept: Tensor | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    selected_by: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "tried", tuple(tuple(layers) for layers in self.tried))
        k = len(self.tried)
        shapes = dict.fromkeys(("numbers", "strengths", "rates", "falls", "probabilities", "collaterals"), (k,))
        wanted: dict[str, tuple[int, ...]] = {**shapes, "unedited_interval": (2,)}
        wanted |= dict.fromkeys(("rate_intervals", "fall_intervals", "collateral_intervals"), (k, 2))
        for one, other in (("broken", "corrected"), ("fine", "kept")):
            if getattr(self, one) is not None:
                wanted[other] = tuple(getattr(self, one).shape)
        for name, shape in wanted.items():
            value = getattr(self, name)
            if value is None or tuple(value.shape) != shape:
                found = "missing" if value is None else list(value.shape)
                raise ExplainerError(f"correction: {name} is {found} for {k} candidates; it must be {list(shape)}")
        if self.chosen is not None and not 0 <= self.chosen < k:
            raise ExplainerError(f"correction: candidate {self.chosen} is none of the {k}")

    # -- to look at -----------------------------------------------------------------------------------------------

    @property
    def allowed(self) -> Tensor:
        """Bool ``[K]``: which candidates keep the collateral within the bound."""
        return self.collaterals <= self.bound

    def table(self) -> list[dict[str, Any]]:
        """Return one row per candidate, in the order in which they were tried."""
        rows = []
        for i, layers in enumerate(self.tried):
            low, high = self.rate_intervals[i].tolist()
            least, most = self.collateral_intervals[i].tolist()
            rows.append(
                {
                    "layers": ", ".join(layers),
                    "units": int(self.numbers[i]),
                    "strength": float(self.strengths[i]),
                    "artifact rate": float(self.rates[i]),
                    "low": low,
                    "high": high,
                    "P(artifact)": float(self.probabilities[i]),
                    "collateral": float(self.collaterals[i]),
                    "collateral low": least,
                    "collateral high": most,
                    "allowed": bool(self.allowed[i]),
                    "chosen": i == self.chosen,
                }
            )
        return rows

    def edit_table(self) -> list[dict[str, Any]]:
        """Return one row per edit, as `UnitEdits.table`, with the unit's defective score."""
        return [{**row, "defective score": float(ds)} for row, ds in zip(super().table(), self.defects)]

    def summary(self) -> dict[str, Any]:
        """Return what is edited and what that does to held-out samples; or that nothing helps, and why."""
        low, high = self.unedited_interval.tolist()
        before = f"{self.unedited:.1%} ({low:.1%} to {high:.1%})"
        if self.chosen is None:
            return {"correction": f"none: {self._why_none()}", "artifact rate, held out": before}
        i = self.chosen
        low, high = self.rate_intervals[i].tolist()
        least, most = self.collateral_intervals[i].tolist()
        units = f"{len(self)} unit{'s' if len(self) != 1 else ''} of {', '.join(self.by_layer())}"
        only = "" if self.condition is None else f", only where P(artifact) > {self.condition['above']:.3g}"
        cost = (
            f"{float(self.collaterals[i]):.2%} of the value range ({least:.2%} to {most:.2%}); the bound is "
            f"{self.bound:.2%}"
        )
        if self.condition is not None and not bool(self.collaterals.any()):
            cost = "none: the condition leaves them alone, so the bound held nothing back; look at what is corrected"
        said = {
            "correction": f"{self.strategy}: {units}, strength {float(self.strengths[i]):.3g}{only}",
            "artifact rate, held out": f"{before} → {float(self.rates[i]):.1%} ({low:.1%} to {high:.1%})",
            "change of samples that were fine": cost,
            "chosen": f"the best of {len(self.tried)} candidates, so its rate flatters it; explainer/correction-proof "
            f"asks another judge",
        }
        if float(self.fall_intervals[i, 0]) <= 0:
            said["caution"] = (
                f"the fall of the rate may be chance: its interval, 95 % for all {len(self.tried)} candidates at once, "
                f"reaches 0; hold out more samples, or try fewer candidates"
            )
        if len(self) != int(self.numbers[i]):
            said["part"] = f"these are {len(self)} edits; all figures are those of the {int(self.numbers[i])} chosen"
        return said

    def _why_none(self) -> str:
        """Say why nothing was chosen."""
        if not len(self.tried):
            return (
                "no unit that was checked is active where the artifacts are, or lowers their probability when it is off"
            )
        if self.unedited == 0:
            return "the classifier calls none of the held-out samples broken"
        if not bool(self.allowed.any()):
            return f"every candidate changes samples that were fine by more than the bound, {self.bound:.2%}"
        said = f"no candidate within the bound, {self.bound:.2%}, lowers the artifact rate"
        if bool((self.falls > 0).any()):
            i = min(range(len(self.tried)), key=lambda i: (float(self.rates[i]), float(self.collaterals[i])))
            said += f"; beyond it one reaches {float(self.rates[i]):.1%} at {float(self.collaterals[i]):.2%}"
        return said

    def figures(self) -> dict[str, Figure]:
        """Draw all that there is: candidates, images, factors."""
        from . import correction_figures as draw

        found = {"candidates": self.plot(), "broken": draw.pairs_figure(self.broken, self.corrected, self.value_range)}
        found["fine"] = draw.pairs_figure(self.fine, self.kept, self.value_range)
        found["factors"] = super().plot()
        return {name: figure for name, figure in found.items() if figure is not None}

    def plot(self, title: str = "") -> Figure | None:
        """Draw the artifact rate of every candidate against its collateral, the chosen one marked.

        Returns
        -------
        Figure or None
            None if there were no candidates.
        """
        from .correction_figures import candidates_figure

        return candidates_figure(self, title=title) if len(self.tried) else None

    def report_sections(self) -> Iterator[Section]:
        """Yield the edits with their scores, and what the figures do not show."""
        from genxai_core.report import Section

        text = "\n\n".join(f"{name}: {said}" for name, said in self.summary().items())
        yield Section(
            "What is corrected",
            text,
            table=self.edit_table(),
            note="The figures are of samples that did not score the units, but that did choose the candidate, by the "
            "classifier's own word. The proof is explainer/correction-proof.",
        )
