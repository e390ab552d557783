"""What a dissection finds: scores of units, the counts behind them, and pictures of what units draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from genxai_core import UnitScores
from genxai_core.errors import ExplainerError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Dissection(UnitScores):
    """IoU of units with concepts, as `UnitScores`, with exact counts of pixels and the images that excite a unit most.

    Parameters
    ----------
    scores
        ``[U, concepts]`` IoU by layer, in [0, 1].
    thresholds
        ``[U]`` by layer: the activation above which a unit counts as active.
    concepts
        What the columns are.
    intervals
        ``[U, concepts, 2]`` by layer: lower and upper end of each IoU's interval.
    measure
        ``iou``.
    higher_is_better
        True.
    notes
        What was decided, such as the number of samples.
    intersection
        ``[U, concepts]`` int64 by layer: pixels in which the unit is active and the concept is.
    area
        ``[U]`` int64 by layer: pixels in which the unit is active.
    concept_area
        ``[concepts]`` int64: pixels in which the concept is.
    pixels
        All pixels of all samples.
    images
        ``[M, C, H, W]``: the images that `examples` point to.
    value_range
        That of ``images``.
    shown
        ``[S]`` by layer: the units that have examples, the best ones of each concept.
    examples
        ``[S, K]`` by layer: for each of them the rows of ``images`` that excite it most, by its largest activation in
        an image, the strongest first.
    regions
        ``[S, K, H, W]`` bool by layer: where in them the unit is active.

    Raises
    ------
    ExplainerError
        As `UnitScores`, or if examples, regions and images do not fit.
    """

    type_name: ClassVar[str] = "dissection"

    _: KW_ONLY
    intersection: Mapping[str, Tensor] = field(default_factory=dict)
    area: Mapping[str, Tensor] = field(default_factory=dict)
    concept_area: Tensor | None = None
    pixels: int = 0
    images: Tensor | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    shown: Mapping[str, Tensor] = field(default_factory=dict)
    examples: Mapping[str, Tensor] = field(default_factory=dict)
    regions: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for layer, units in self.shown.items():
            rows, regions = self.examples.get(layer), self.regions.get(layer)
            fits = self.images is not None and rows is not None and regions is not None and layer in self.scores
            if fits:
                assert self.images is not None
                assert rows is not None
                assert regions is not None
                fits = tuple(regions.shape) == (len(units), rows.shape[1], *self.images.shape[2:])
                fits = fits and len(rows) == len(units) and (not rows.numel() or int(rows.max()) < len(self.images))
            if not fits:
                raise ExplainerError(
                    f"dissection: layer {layer!r} shows {len(units)} units; give it examples [S, K], rows of images, "
                    f"and regions [S, K, H, W]"
                )

    def of_concept(self, concept: str, most: int = 4) -> list[tuple[str, int]]:
        """Return the places ``(layer, row of shown)`` of the units with examples whose best concept it is, best first.

        Parameters
        ----------
        concept
            One of ``concepts``.
        most
            At most so many.
        """
        best = {(s.layer, s.unit) for s in self.best() if s.concept == concept and s.score > 0}
        rows = {(layer, int(u)): row for layer, units in self.shown.items() for row, u in enumerate(units)}
        order = [(s.layer, s.unit) for s in self.ranking(concept)]
        return [(key[0], rows[key]) for key in order if key in best and key in rows][:most]

    def concept_figure(self, concept: str, most: int = 4, title: str = "") -> Figure | None:
        """Draw the best units of a concept, one row each: the images that excite it most, its region outlined.

        None if no unit with examples is best for it.
        """
        from .figures import concept_figure

        return concept_figure(self, concept, most=most, title=title)

    def layer_figure(self, cut: float = 0.05, title: str = "") -> Figure:
        """Draw layers × concepts: how many units of the layer are best for the concept, with an IoU of at least a cut.

        0.05 is the paper's.
        """
        from .figures import layer_figure

        return layer_figure(self, cut=cut, title=title)

    def summary(self) -> dict[str, Any]:
        """Return what `UnitScores.summary` does, and how many units reach the paper's IoU of 0.05."""
        counts = ", ".join(
            f"{sum(name == layer for name, _ in self.above(0.05))} of {len(v)}" for layer, v in self.scores.items()
        )
        return super().summary() | {"units with IoU ≥ 0.05": counts}
