"""What an intervention finds: edits of units, their effects, and pictures of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from genxai_core import UnitEdits
from genxai_core.errors import ExplainerError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

STATES = ("unedited", "ablated", "inserted")

ROUNDING = 1e-9
"""Shares are counts over pixels; a difference of three of them that is smaller than this is none."""


@dataclass(frozen=True, eq=False)
class Intervention(UnitEdits):
    """Edits of a set of units, as `UnitEdits`, with what they do to each of C concepts, in shares of pixels.

    Indexing selects edits; what was measured stays that of the whole set.

    Parameters
    ----------
    layer, chosen
        The layer, and ``[S]`` its units that were ablated and inserted together.
    concept
        The one that the units are to cause.
    concepts
        C names.
    shares, share_intervals
        ``[3, C]`` and ``[3, C, 2]``: the mean share of pixels in unedited samples, with the set ablated, and with it
        inserted.
    effects, effect_intervals
        ``[C]`` and ``[C, 2]``: the average causal effect, inserted less ablated, and its interval over differences
        within samples.
    means
        ``[U]``: k of all the layer's units.
    orders
        ``[D, n]`` units by the name of the order, D orders of a name.
    curves, curve_intervals
        ``[n + 1, C]`` and ``[n + 1, C, 2]`` by the same names: the change of the shares with the first 0, 1, … n units
        ablated.
    alpha
        ``[U]`` in [0, 1]: the optimised vector, if there is one.
    history
        ``[steps]``: δ(α) / E[s_c] at each step of its search.
    pairs, drops, excess, excess_intervals
        ``[P, 2]`` units; ``[P, 3]``: the drop of the concept's share with the first off, the second, both; ``[P]`` and
        ``[P, 2]``: the drop of both less those of each. The largest excess comes first.
    before, ablated, inserted
        ``[M, C, H, W]``: samples that show much of the concept, and the same with the set ablated and inserted.
    value_range
        That of the images.

    Raises
    ------
    ExplainerError
        As `UnitEdits`, or if there is no such concept, or a shape does not fit.
    """

    type_name: ClassVar[str] = "unit-intervention"
    captions: ClassVar[Mapping[str, str]] = {
        "images": "Samples that show most of the concept; below, the same with the units off, and put in.",
        "effects": "Left, the share of pixels that shows each concept; right, the average causal effect of the units "
        "on it: inserted less ablated. Bars are 95 % intervals; those of effects are over differences within samples.",
        "curves": "What is left of the concept when the first units of each order are off. Bands are 95 % intervals of "
        "the change. Random units are a control.",
        "alpha": "The optimised vector, its units in order; those of the set are marked.",
        "pairs": "The drop of the concept's share with either unit off, and with both. What only both together remove "
        "lies above the sum of the two.",
    }

    _: KW_ONLY
    layer: str
    chosen: Tensor
    concept: str
    concepts: tuple[str, ...]
    shares: Tensor
    share_intervals: Tensor
    effects: Tensor
    effect_intervals: Tensor
    means: Tensor
    orders: Mapping[str, Tensor] = field(default_factory=dict)
    curves: Mapping[str, Tensor] = field(default_factory=dict)
    curve_intervals: Mapping[str, Tensor] = field(default_factory=dict)
    alpha: Tensor | None = None
    history: Tensor | None = None
    pairs: Tensor | None = None
    drops: Tensor | None = None
    excess: Tensor | None = None
    excess_intervals: Tensor | None = None
    before: Tensor | None = None
    ablated: Tensor | None = None
    inserted: Tensor | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.concept not in self.concepts:
            raise ExplainerError(f"intervention: concept {self.concept!r} is not one of {', '.join(self.concepts)}")
        c = len(self.concepts)
        wanted = {"shares": (3, c), "share_intervals": (3, c, 2), "effects": (c,), "effect_intervals": (c, 2)}
        for name, order in self.orders.items():
            for kind, more in (("curves", (c,)), ("curve_intervals", (c, 2))):
                self._fits(f"{kind}[{name!r}]", getattr(self, kind).get(name), (order.shape[1] + 1, *more))
        if self.pairs is not None:
            p = len(self.pairs)
            wanted |= {"pairs": (p, 2), "drops": (p, 3), "excess": (p,), "excess_intervals": (p, 2)}
        if self.alpha is not None:
            wanted["alpha"] = tuple(self.means.shape)
        if self.before is not None:
            wanted |= {"ablated": tuple(self.before.shape), "inserted": tuple(self.before.shape)}
        for name, shape in wanted.items():
            self._fits(name, getattr(self, name), shape)

    @staticmethod
    def _fits(name: str, value: Tensor | None, shape: tuple[int, ...]) -> None:
        if value is None or tuple(value.shape) != shape:
            found = "missing" if value is None else list(value.shape)
            raise ExplainerError(f"intervention: {name} is {found}; it must be {list(shape)}")

    # -- to look at -----------------------------------------------------------------------------------------------

    def table(self) -> list[dict[str, Any]]:
        """Return one row per edit, as `UnitEdits` does, with the unit's k, and its α if there is one."""
        rows = super().table()
        for row in rows:
            row["k"] = float(self.means[row["unit"]])
            if self.alpha is not None:
                row["alpha"] = float(self.alpha[row["unit"]])
        return rows

    def effect_table(self) -> list[dict[str, Any]]:
        """Return one row per concept: the three shares, the effect and its interval, and the effect as a share.

        ``relative`` is δ / E[s_c(x)], as the paper has it; None where no unedited sample shows the concept.
        """
        rows = []
        for c, name in enumerate(self.concepts):
            shares = dict(zip(STATES, self.shares[:, c].tolist()))
            low, high = self.effect_intervals[c].tolist()
            effect, base = float(self.effects[c]), shares["unedited"]
            found = {"effect": effect, "low": low, "high": high, "relative": effect / base if base else None}
            rows.append({"concept": name, **shares, **found})
        return rows

    def redundant(self) -> list[tuple[int, int]]:
        """Return the pairs of units that stand in for each other: their excess is above 0, its interval too.

        Raises
        ------
        ExplainerError
            If no pairs were ablated.
        """
        if self.pairs is None or self.excess_intervals is None:
            raise ExplainerError("intervention: no pairs were ablated; ask for them with pairs=True")
        above = self.excess_intervals[:, 0] > ROUNDING
        return [(int(u), int(v)) for u, v in self.pairs[above].tolist()]

    def summary(self) -> dict[str, Any]:
        """Return the units, the effect on the concept with its interval, and what an ablation leaves of it.

        Where the set has fewer units than were asked for, it says why.
        """
        c = self.concepts.index(self.concept)
        low, high = self.effect_intervals[c].tolist()
        base, left = float(self.shares[0, c]), float(self.shares[1, c])
        units = ", ".join(str(u) for u in self.chosen.tolist())
        found = {
            "units": f"{self.layer}: {units}",
            f"effect on {self.concept}": f"{float(self.effects[c]):.3g} ({low:.3g} to {high:.3g})",
        }
        if "fewer units" in self.notes:
            found["fewer units"] = str(self.notes["fewer units"])
        if base:
            found["left when ablated"] = f"{left / base:.0%} of {base:.3g}"
        return found

    def figures(self) -> dict[str, Figure]:
        """Draw all that there is: images, effects, curves, alpha, pairs."""
        from . import intervention_figures as draw

        found = {"images": self.images_figure(), "effects": draw.effects_figure(self), "curves": self.curve_figure()}
        found["alpha"] = draw.alpha_figure(self) if self.alpha is not None else None
        found["pairs"] = draw.pairs_figure(self) if self.pairs is not None else None
        return {name: figure for name, figure in found.items() if figure is not None}

    def images_figure(self, title: str = "") -> Figure | None:
        """Draw samples unedited, with the units off, and with them put in; None if none were kept."""
        from .intervention_figures import images_figure

        return images_figure(self, title=title) if self.before is not None else None

    def curve_figure(self, title: str = "") -> Figure | None:
        """Draw what ablating the first units of each order leaves of the concept; None if there are no curves."""
        from .intervention_figures import curve_figure

        return curve_figure(self, title=title) if self.curves else None

    def plot(self, title: str = "") -> Figure:
        """Draw the effects on all concepts."""
        from .intervention_figures import effects_figure

        return effects_figure(self, title=title)
