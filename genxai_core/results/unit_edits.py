"""Edits of units: what dissection and correction hand on, and what ``generator/edited`` applies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..errors import ExplainerError, InputError
from ..explanation import Explanation
from ..samples import integer

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class UnitEdits(Explanation):
    """Changes to units (channels of layers): a′ = factor·a + value inside ``locations``, a′ = a elsewhere.

    Factor 0 and no value is an ablation; factor 0 and a value is an insertion (Bau et al., "GAN Dissection", ICLR 2019,
    section 3.2). A unit that is named more than once is edited once after the other, in order. Indexing selects edits
    and `concat` joins those under one condition; no value becomes 0, and no location everywhere, if others have them.

    Parameters
    ----------
    layers
        E names of layers, as in ``model.named_modules()``.
    units
        ``[E]`` integers, the channel in its layer.
    factors
        ``[E]``, finite.
    values
        ``[E]``, in units of the activation; None: 0.
    locations
        Bool ``[E, h, w]`` at the layer's resolution, True where the edit acts; None: everywhere. A row that is True
        throughout means everywhere too, in a layer of any resolution.
    condition
        ``{"target": k, "above": p}``: only images to which a judge gives a probability above p, in [0, 1), for its
        class k. None: every image.
    notes
        What the method decided for itself: shown under the picture.

    Raises
    ------
    ExplainerError
        If a field has the wrong type, shape or range.
    """

    type_name: ClassVar[str] = "unit-edits"
    per_sample: ClassVar[tuple[str, ...]] = ("layers", "units", "factors", "values", "locations")

    layers: tuple[str, ...]
    units: Tensor
    factors: Tensor
    values: Tensor | None = None
    locations: Tensor | None = None
    condition: Mapping[str, Any] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import torch

        if isinstance(self.layers, str) or not all(isinstance(layer, str) and layer for layer in self.layers):
            raise ExplainerError(f"unit edits: layers must be one name per edit, not {self.layers!r}")
        object.__setattr__(self, "layers", tuple(self.layers))
        for name in self.per_sample[1:]:
            value = getattr(self, name)
            if value is None and name in ("values", "locations"):
                continue
            if not isinstance(value, torch.Tensor):
                raise ExplainerError(f"unit edits: {name} must be a Tensor, not {type(value).__name__}")
            if value.ndim != (3 if name == "locations" else 1) or len(value) != len(self.layers):
                wanted = "E, h, w" if name == "locations" else "E"
                raise ExplainerError(
                    f"unit edits: {name} are {list(value.shape)} for E = {len(self.layers)} layers; give [{wanted}]"
                )
        if self.units.dtype != torch.long or bool((self.units < 0).any()):
            raise ExplainerError("unit edits: units must be int64 and not negative")
        for name in ("factors", "values"):
            value = getattr(self, name)
            if value is not None and not (value.is_floating_point() and bool(torch.isfinite(value).all())):
                raise ExplainerError(f"unit edits: {name} must be finite floating-point numbers")
        if self.locations is not None and self.locations.dtype != torch.bool:
            raise ExplainerError(f"unit edits: locations must be bool, not {self.locations.dtype}")
        if self.locations is not None and 0 in self.locations.shape[1:]:
            raise ExplainerError("unit edits: locations have no cells; leave them out where the edits act everywhere")
        _check_condition(self.condition)

    @classmethod
    def ablate(cls, units: Mapping[str, int | Sequence[int]], *, condition: Mapping[str, Any] | None = None) -> Self:
        """Return edits that switch units off everywhere: factor 0.

        Parameters
        ----------
        units
            Layer -> its units, or the one: ``{"layer4": [365, 119]}``.
        condition
            As in the class.

        Raises
        ------
        InputError
            If a unit is not an integer, or negative.
        ExplainerError
            If the condition is not one.
        """
        import torch

        pairs = [(layer, _unit(unit, layer)) for layer, chosen in units.items() for unit in _each(chosen)]
        numbers = torch.tensor([unit for _, unit in pairs], dtype=torch.long)
        return cls(tuple(layer for layer, _ in pairs), numbers, torch.zeros(len(pairs)), condition=condition)

    @classmethod
    def _aligned(cls, parts: Sequence[Self]) -> Sequence[Self]:
        """Let no value be 0, and no location True throughout, where other edits have them."""
        if any(part.condition != parts[0].condition for part in parts):
            raise ExplainerError("edits under different conditions cannot be joined; apply one after the other")
        sizes = {tuple(p.locations.shape[1:]) for p in parts if p.locations is not None}
        if len(sizes) > 1:
            raise ExplainerError(f"edits with locations of {sorted(sizes)} cannot be joined; apply one after the other")
        valued = any(p.values is not None for p in parts)
        return [_filled(p, next(iter(sizes), None), valued) for p in parts]

    def by_layer(self) -> dict[str, list[int]]:
        """Return the rows of each layer's edits, in order: ``edits[edits.by_layer()["layer4"]]``."""
        rows: dict[str, list[int]] = {}
        for row, layer in enumerate(self.layers):
            rows.setdefault(layer, []).append(row)
        return rows

    def table(self) -> list[dict[str, Any]]:
        """Return one row per edit: layer, unit, factor, value, and the share of the layer's cells where it acts."""
        rows = []
        for i, layer in enumerate(self.layers):
            row: dict[str, Any] = {"layer": layer, "unit": int(self.units[i]), "factor": float(self.factors[i])}
            if self.values is not None:
                row["value"] = float(self.values[i])
            if self.locations is not None:
                row["share"] = float(self.locations[i].double().mean())
            rows.append(row)
        return rows

    def plot(self, title: str = "") -> Figure | None:
        """Draw, per layer, the edited units' factors (1 is unchanged), inserted values, and where they act.

        Of more than eight layers, the first eight are drawn.

        Returns
        -------
        Figure or None
            None if there are no edits.
        """
        from ..plots import edit_figure

        return edit_figure(self, title=title) if len(self) else None

    def _repr_html_(self) -> str:
        from ..plots import html, some

        return html(self.plot(), f"{len(self)} edits of units in {some(list(self.by_layer())) or 'no layer'}")


def _check_condition(condition: Mapping[str, Any] | None) -> None:
    if condition is None:
        return
    said = f'unit edits: condition {condition!r} is not {{"target": k, "above": p}}'
    if not isinstance(condition, Mapping) or set(condition) != {"target", "above"}:
        raise ExplainerError(said)
    target, above = condition["target"], condition["above"]
    if type(target) is not int or target < 0:
        raise ExplainerError(f"{said}; k is a class index, 0 for a judge with one logit")
    if isinstance(above, bool) or not isinstance(above, int | float) or not 0 <= above < 1:
        raise ExplainerError(f"{said}; p is a probability, at least 0 and below 1")


def _each(units: Any) -> Any:
    return units if hasattr(units, "__iter__") and getattr(units, "ndim", 1) != 0 else [units]


def _unit(value: Any, layer: str) -> int:
    try:
        unit = integer(value)
    except TypeError:
        raise InputError(f"unit {value!r} of layer {layer!r} is not an integer") from None
    if unit < 0:
        raise InputError(f"unit {unit} of layer {layer!r} is negative; units are counted from 0")
    return unit


def _filled(edits: Any, size: tuple[int, ...] | None, valued: bool) -> Any:
    """Give edits the optional fields that others have, with the meaning that their absence has."""
    added: dict[str, Any] = {}
    if valued and edits.values is None:
        added["values"] = edits.factors.new_zeros(len(edits))
    if size is not None and edits.locations is None:
        added["locations"] = edits.units.new_ones(len(edits), *size).bool()
    return dataclasses.replace(edits, **added)
