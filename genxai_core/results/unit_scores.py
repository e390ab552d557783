"""Scores of units for concepts: which unit draws, or causes, what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..errors import ExplainerError
from ..explanation import Explanation
from . import checks

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

OWNER = "unit scores"


class UnitScore(NamedTuple):
    """One unit's score for one concept."""

    layer: str
    unit: int
    concept: str
    score: float


@dataclass(frozen=True, eq=False)
class UnitScores(Explanation):
    """How strongly each unit (one channel of a layer) goes with each concept, by layer.

    As in GAN Dissection (Bau et al., ICLR 2019, eq. 2): the IoU of the region in which the unit is above its threshold
    with the concept's segmentation; or the average causal effect of a unit on a concept, which may be negative.

    Parameters
    ----------
    scores
        ``[U, concepts]`` floats by layer name, in the measure's unit (an IoU is in [0, 1]); layers may differ in U.
    thresholds
        ``[U]`` by layer name, for the same layers: the activation above which a unit counts as active. Infinite for
        one that never does.
    concepts
        What the columns are.
    intervals
        ``[U, concepts, 2]`` by layer name: lower and upper end of each score's interval. ``notes`` say which interval.
    measure
        What the scores are, in a word or two: ``iou``, ``ace``.
    higher_is_better
        Whether a unit's best concept is that of its largest score; else of its smallest.
    notes
        What the method decided for itself, such as the number of samples.

    Raises
    ------
    ExplainerError
        If a score is NaN or infinite, a layer has no units, or a shape, a layer or the number of concepts does not fit.
    """

    type_name: ClassVar[str] = "unit-scores"
    captions: ClassVar[Mapping[str, str]] = {
        "explanation": "Columns are units, ordered by the concept that each is best for; where there is no room for "
        "all, they are the best ones of each concept. Bars: how many of all units are best for each concept, one unit "
        "beside the other, in the colour of its score."
    }

    scores: Mapping[str, Tensor]
    thresholds: Mapping[str, Tensor] | None = None
    concepts: tuple[str, ...] = ()
    _: KW_ONLY
    intervals: Mapping[str, Tensor] | None = None
    measure: str = "iou"
    higher_is_better: bool = True
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "concepts", checks.names(OWNER, "concepts", self.concepts))
        checks.names(OWNER, "measure", self.measure)
        checks.names(OWNER, "layers", self.scores)
        if not self.scores or not self.concepts:
            raise ExplainerError(f"{OWNER}: there are no {'concepts' if self.scores else 'layers'}; give at least one")
        for layer, values in self.scores.items():
            axes: dict[str, int | None] = {"U": None, "concepts": len(self.concepts)}
            checks.tensor(OWNER, f"scores[{layer!r}]", values, axes)
            if len(values) == 0:
                raise ExplainerError(f"{OWNER}: layer {layer!r} has no units; leave it out")
        for name, more in (("thresholds", {}), ("intervals", {"concepts": len(self.concepts), "ends": 2})):
            given = getattr(self, name)
            if given is None:
                continue
            if set(given) != set(self.scores):
                raise ExplainerError(f"{OWNER}: {name} are of layers {sorted(given)}, scores of {sorted(self.scores)}")
            for layer, values in given.items():
                axes = {"U": len(self.scores[layer]), **more}
                checks.tensor(OWNER, f"{name}[{layer!r}]", values, axes, finite=False)
                if bool(values.isnan().any()):
                    raise ExplainerError(f"{OWNER}: {name}[{layer!r}] hold NaN")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers, in order."""
        return tuple(self.scores)

    def best(self, layer: str | None = None) -> list[UnitScore]:
        """Return each unit's best concept and its score, by layer and unit; the first concept of equal ones.

        Parameters
        ----------
        layer
            Only the units of this one.

        Raises
        ------
        ExplainerError
            If there is no such layer.
        """
        found = []
        for name in self._chosen(layer):
            values = self._signed(name)
            at = values.numpy().argmax(1)  # torch promises no order among equal ones, numpy the first
            found += [self._score(name, unit, int(concept)) for unit, concept in enumerate(at)]
        return found

    def ranking(self, concept: str, layer: str | None = None) -> list[UnitScore]:
        """Return all units by their score for a concept, the best first; equal ones by layer and unit.

        Parameters
        ----------
        concept
            One of `concepts`.
        layer
            Only the units of this one.

        Raises
        ------
        ExplainerError
            If there is no such concept or layer.
        """
        column = self._concept(concept)
        return self._ordered(
            self._score(n, unit, column) for n in self._chosen(layer) for unit in range(len(self.scores[n]))
        )

    def above(self, cut: float, concept: str | None = None) -> list[tuple[str, int]]:
        """Return the (layer, unit) whose score reaches a cut, by layer and unit.

        Parameters
        ----------
        cut
            The smallest score that counts (the largest, where lower is better), compared in the scores' precision.
        concept
            The concept whose score it is; None for each unit's best.

        Raises
        ------
        ExplainerError
            If there is no such concept.
        """
        at = slice(None) if concept is None else [self._concept(concept)]
        found = []
        for layer, values in self.scores.items():
            reached = values[:, at] >= cut if self.higher_is_better else values[:, at] <= cut
            found += [(layer, int(unit)) for unit in reached.any(1).nonzero()]
        return found

    def table(self) -> list[dict[str, Any]]:
        """Return one row per unit, the best first: layer, unit, best concept, its score, threshold, and all scores.

        The last columns are named ``<concept> <measure>``, as ``tree iou``. With intervals, ``low`` and ``high`` are
        those of the best concept's score.
        """
        rows = []
        for layer, unit, concept, score in self._ordered(self.best()):
            row: dict[str, Any] = {"layer": layer, "unit": unit, "concept": concept, "score": score}
            if self.intervals is not None:
                low, high = self.intervals[layer][unit, self.concepts.index(concept)].tolist()
                row |= {"low": low, "high": high}
            if self.thresholds is not None:
                row["threshold"] = float(self.thresholds[layer][unit])
            values = self.scores[layer][unit].tolist()
            rows.append(row | {f"{name} {self.measure}": value for name, value in zip(self.concepts, values)})
        return rows

    def summary(self) -> dict[str, Any]:
        """Return the layers, how many units each has, how many concepts there are, and the best unit of all."""
        first = self._ordered(self.best())[0]
        counts = " + ".join(str(len(values)) for values in self.scores.values())
        best = f"{first.layer}:{first.unit} for {first.concept} ({self.measure} {first.score:.3g})"
        return {"layers": ", ".join(self.layers), "units": counts, "concepts": len(self.concepts), "best unit": best}

    def plot(self, cut: float | None = None, title: str = "") -> Figure:
        """Draw each layer's best units × concepts and how many units are best for each; see `plots.unit_figure`.

        Parameters
        ----------
        cut
            Only units whose best score reaches it are counted.
        title
            Above everything.
        """
        from ..plots import unit_figure

        return unit_figure(self, cut=cut, title=title)

    def _chosen(self, layer: str | None) -> tuple[str, ...]:
        return self.layers if layer is None else (self.layers[checks.member(OWNER, "layer", layer, self.layers)],)

    def _concept(self, name: str) -> int:
        return checks.member(OWNER, "concept", name, self.concepts)

    def _signed(self, layer: str) -> Tensor:
        """Return the scores as larger is better."""
        values = self.scores[layer].detach().cpu().double()
        return values if self.higher_is_better else -values

    def _ordered(self, found: Iterable[UnitScore]) -> list[UnitScore]:
        return sorted(found, key=lambda s: s.score, reverse=self.higher_is_better)

    def _score(self, layer: str, unit: int, concept: int) -> UnitScore:
        return UnitScore(layer, unit, self.concepts[concept], float(self.scores[layer][unit, concept]))
