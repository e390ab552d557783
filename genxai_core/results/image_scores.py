"""A number per sample, with the images to look at from the lowest to the highest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ExplainerError
from ..explanation import Explanation
from . import checks

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

OWNER = "image scores"


@dataclass(frozen=True, eq=False)
class ImageScores(Explanation):
    """One score per image.

    Parameters
    ----------
    scores
        ``[N]``, in the unit that the explainer states; infinite where it says so, never NaN.
    images
        ``[N, C, H, W]`` what was scored, for the pictures.
    value_range
        That of ``images``.
    notes
        What the explainer says of the scores; ``unit`` is shown above the picture.

    Raises
    ------
    ExplainerError
        If a type, a shape or a length does not fit, or scores are NaN, or images not finite.
    """

    type_name: ClassVar[str] = "image-scores"
    per_sample: ClassVar[tuple[str, ...]] = ("scores", "images")

    scores: Tensor
    images: Tensor | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.tensor(OWNER, "scores", self.scores, {"N": None}, finite=False)
        if bool(self.scores.isnan().any()):
            raise ExplainerError(f"{OWNER}: scores are NaN; the model's outputs are not finite")
        object.__setattr__(self, "value_range", checks.value_range(OWNER, self.value_range))
        if self.images is not None:
            axes = {"N": len(self.scores), "C": None, "H": None, "W": None}
            checks.tensor(OWNER, "images", self.images, axes)

    def table(self) -> list[dict[str, Any]]:
        """Return one row per image: its score, and its rank from 0, the lowest."""
        rank = self.scores.argsort(stable=True).argsort()
        return [
            {"sample": i, "score": float(score), "rank": int(rank[i])} for i, score in enumerate(self.scores.tolist())
        ]

    def plot(self, n: int = 16, title: str = "") -> Figure | None:
        """Draw n images from the lowest score to the highest, at equal steps of rank; None without images."""
        from ..plots import image_grid

        if self.images is None or len(self) == 0:
            return None
        n = min(n, len(self))
        order = self.scores.argsort(stable=True)
        shown = order[[round(k * (len(self) - 1) / max(1, n - 1)) for k in range(n)]]
        labels = [f"{value:+.2f}".replace("-", "−") for value in self.scores[shown].tolist()]
        unit = str(self.notes.get("unit", ""))
        return image_grid(self.images[shown], self.value_range, labels=labels, title=title or unit)
