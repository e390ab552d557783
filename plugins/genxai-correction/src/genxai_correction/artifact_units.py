"""What scoring finds: how well units go with artifacts, what ablating them does, and how often they are active."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from genxai_core import UnitScores
from genxai_core.errors import ExplainerError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from genxai_core.report import Section

DEFECTS, RATE = "defective score", "1 − activation rate"
"""What scores are, by ``explainer/artifact-units``' two methods."""

LEAST = 0.001
"""A unit that lowers P(artifact) by less than this is not said to cause artifacts."""

MOST = 20
"""Rows of a table in the report."""

RARE = 0.3
"""Activation rate up to which a unit is rarely active: that of Choi et al., IJCAI 2022, for their neurons."""


@dataclass(frozen=True, eq=False)
class ArtifactUnitScores(UnitScores):
    """Scores of units for one concept, ``artifact``, as `UnitScores`, told apart by what ablating the units does.

    Parameters
    ----------
    scores
        ``[U, 1]`` by layer: the defective score, or 1 − the activation rate, in [0, 1].
    thresholds
        ``[U]`` by layer: the activation above which a unit counts as active.
    concepts
        ``artifact``.
    intervals
        ``[U, 1, 2]`` by layer: 95 % intervals of the scores.
    measure
        ``defective score`` or ``1 − activation rate``.
    higher_is_better
        True.
    notes
        What was decided, such as the number of samples, and which of them count as broken.
    effects
        ``[U]`` by layer: mean change of P(artifact) over broken samples when the unit is off, in [-1, 1]. Below 0 it
        causes. 0 for units that were not checked. No layers if none were.
    effect_intervals
        ``[U, 2]`` by layer: 95 % interval of the same.
    checked
        Bool ``[U]`` by layer: which units were switched off.
    rates
        ``[U]`` by layer: share of all samples in which the unit is active in at least one pixel.
    images, masks
        ``[M, C, H, W]`` and bool ``[M, 1, H, W]``: the first broken samples, in order, and where they are broken.
    value_range
        That of ``images``.

    Raises
    ------
    ExplainerError
        As `UnitScores`, or if a shape or a layer does not fit.
    """

    type_name: ClassVar[str] = "artifact-units"
    captions: ClassVar[Mapping[str, str]] = {
        "units": "Each dot is a unit: its score, against what switching it off does to the probability of an artifact, "
        "with 95 % intervals. Units to the right that lie at 0 are active where images are broken, but break nothing "
        "alone; those below cause.",
        "examples": "The first broken samples, in order; outlined, where they are taken to be broken.",
    }

    _: KW_ONLY
    effects: Mapping[str, Tensor] = field(default_factory=dict)
    effect_intervals: Mapping[str, Tensor] = field(default_factory=dict)
    checked: Mapping[str, Tensor] = field(default_factory=dict)
    rates: Mapping[str, Tensor] = field(default_factory=dict)
    images: Tensor | None = None
    masks: Tensor | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.concepts) != 1:
            raise ExplainerError(f"artifact units: there is one concept, artifact, not {len(self.concepts)}")
        if not set(self.effects) == set(self.effect_intervals) == set(self.checked):
            raise ExplainerError("artifact units: give each layer that has effects its effect_intervals, and checked")
        for name, more in (("effects", ()), ("effect_intervals", (2,)), ("checked", ()), ("rates", ())):
            for layer, values in getattr(self, name).items():
                wanted = (len(self.scores[layer]), *more) if layer in self.scores else "nothing: there are no scores"
                if wanted != tuple(values.shape):
                    raise ExplainerError(
                        f"artifact units: {name}[{layer!r}] are {list(values.shape)}; they must be "
                        f"{list(wanted) if isinstance(wanted, tuple) else wanted}"
                    )
        fits = (self.images is None) == (self.masks is None)
        if fits and self.images is not None and self.masks is not None:
            fits = tuple(self.masks.shape) == (len(self.images), 1, *self.images.shape[2:])
        if not fits:
            raise ExplainerError("artifact units: give images [M, C, H, W] with masks [M, 1, H, W], or neither")

    # -- which units ----------------------------------------------------------------------------------------------

    def causes(self, least: float = LEAST, layer: str | None = None) -> list[tuple[str, int]]:
        """Return the (layer, unit) whose ablation lowers P(artifact), by how much it does, the most first.

        Parameters
        ----------
        least
            The interval of the effect must lie below minus this.
        layer
            Only the units of this one.

        Raises
        ------
        ExplainerError
            If no effects were measured, or there is no such layer.
        """
        if not self.effects:
            raise ExplainerError("artifact units: no effects were measured; ask for them with causal=True")
        found = [
            (float(self.effects[name][unit]), name, unit)
            for name in self._chosen(layer)
            if name in self.effects
            for unit in (self.checked[name] & (self.effect_intervals[name][:, 1] < -least)).nonzero()[:, 0].tolist()
        ]
        return [(name, unit) for _, name, unit in sorted(found, key=lambda row: row[0])]

    def coinciding(self, cut: float = 0.05, least: float = LEAST) -> list[tuple[str, int]]:
        """Return the checked (layer, unit) whose score reaches a cut but which are not among `causes`, best first.

        They are active where images are broken, and switching them off alone mends nothing: they only go along, or
        another unit stands in for them.

        Parameters
        ----------
        cut
            The smallest score that counts.
        least
            As in `causes`.

        Raises
        ------
        ExplainerError
            If no effects were measured.
        """
        causing = set(self.causes(least))
        ranked = [(s.layer, s.unit) for s in self.ranking(self.concepts[0]) if s.score >= cut]
        return [(name, unit) for name, unit in ranked if self._known(name, unit) and (name, unit) not in causing]

    def _known(self, layer: str, unit: int) -> bool:
        return layer in self.checked and bool(self.checked[layer][unit])

    def rare(self, most: float = RARE) -> list[tuple[str, int]]:
        """Return the (layer, unit) that are active in at most this share of samples, the rarest first."""
        found = [(rate, name, unit) for name, rates in self.rates.items() for unit, rate in enumerate(rates.tolist())]
        return [(name, unit) for rate, name, unit in sorted(found, key=lambda row: row[0]) if rate <= most]

    # -- to look at -----------------------------------------------------------------------------------------------

    def table(self) -> list[dict[str, Any]]:
        """Return one row per unit, the best first, as `UnitScores` does, with effect, its interval, and the rate.

        ``causes`` says whether the unit is among `causes`; None where that was not checked.
        """
        causing = set(self.causes()) if self.effects else set()
        rows = super().table()
        for row in rows:
            layer, unit = row["layer"], row["unit"]
            if layer in self.rates:
                row["activation rate"] = float(self.rates[layer][unit])
            if not self.effects:
                continue
            known = self._known(layer, unit)
            effect = float(self.effects[layer][unit]) if known else None
            low, high = self.effect_intervals[layer][unit].tolist() if known else (None, None)
            row |= {"effect": effect, "effect low": low, "effect high": high}
            row["causes"] = (layer, unit) in causing if known else None
        return rows

    def summary(self) -> dict[str, Any]:
        """Return what `UnitScores.summary` does, which units cause, and how many only coincide."""
        found = super().summary()
        if self.effects:
            causing = self.causes()
            names = ", ".join(f"{layer}:{unit}" for layer, unit in causing[:8])
            more = f", … ({len(causing)})" if len(causing) > 8 else ""
            checked = sum(int(units.sum()) for units in self.checked.values())
            found["units that cause"] = names + more if causing else f"none of {checked} alone"
            best = self.ranking(self.concepts[0])[0].score
            found["units that coincide"] = (
                f"{len(self.coinciding(best / 2))} with at least half the best score, without an effect"
                if best > 0
                else "none: no unit has a score"
            )
        if self.rates:
            found[f"active in ≤ {RARE:.0%} of samples"] = len(self.rare())
        return found

    def figures(self) -> dict[str, Figure]:
        """Draw all that there is: units, examples."""
        from .artifact_figures import examples_figure

        found = {"units": self.plot(), "examples": examples_figure(self)}
        return {name: figure for name, figure in found.items() if figure is not None}

    def plot(self, cut: float | None = None, title: str = "") -> Figure:
        """Draw each layer's units, score against effect; without effects, as `UnitScores.plot`.

        Parameters
        ----------
        cut
            As there; no effect is left out.
        title
            Above everything.
        """
        from .artifact_figures import effect_figure

        return effect_figure(self, title=title) if self.effects else super().plot(cut, title)

    def _said(self) -> str:
        """Return over which samples units were scored, and by what these are broken."""
        notes = self.notes
        broken = f"broken: {notes.get('broken')}"
        if self.measure == RATE:
            asked = f" Effects are over {notes.get('broken samples')} of them ({broken})." if self.effects else ""
            return f"The {self.measure} of each unit over {notes.get('samples')} samples, broken or not.{asked}"
        empty = notes.get("empty masks")
        spoilt = f" Masks without a pixel: {empty}; in these every unit counts as 0." if empty else ""
        return (
            f"The {self.measure} of each unit over {notes.get('broken samples')} broken samples of "
            f"{notes.get('samples')}; masks: {notes.get('masks')}; {broken}.{spoilt}"
        )

    def report_sections(self) -> Iterator[Section]:
        """Yield the units that cause and the best of those that only coincide, in tables."""
        from genxai_core.report import Section

        text = self._said()
        rows = [{k: v for k, v in row.items() if k != "concept"} for row in self.table()]
        if not self.effects:
            yield Section("Units that go with artifacts", text, table=rows[:MOST])
            return
        causing = sorted((row for row in rows if row["causes"]), key=lambda row: float(row["effect"]))
        said = "Switched off alone, these lower P(artifact); the effect is the mean change over broken samples."
        yield Section(
            "Units that cause artifacts",
            f"{text}\n\n{said if causing else 'No unit, switched off alone, lowers P(artifact).'}",
            table=causing[:MOST],
            note="Units that stand in for each other show no effect alone. An effect is the classifier's word for it.",
        )
        yield Section(
            "Units that only coincide",
            "The best scores among units whose ablation, alone, does not lower the probability of an artifact.",
            table=[row for row in rows if row["causes"] is False and row["score"] > 0][:MOST],
        )
