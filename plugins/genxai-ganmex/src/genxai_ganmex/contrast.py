"""The result of `explainer/ganmex-attribution`: maps of one class against another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from genxai_core import Attribution
from genxai_core.errors import ExplainerError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class OneVsOne(Attribution):
    """Maps ``[N, C, H, W]`` or ``[N, H, W]`` of the difference of two logits: what speaks for one class, not the other.

    Parameters
    ----------
    maps, target, logits, baseline, delta, images, value_range, notes
        As of `genxai_core.Attribution`; ``target`` is the one class, and ``logits`` are the differences f_c − f_t.
    against
        ``[N]`` the other class; of a single logit 0, the opposite of the positive class.
    steps
        ``[N]`` the steps of the integral that each map took; None of methods without steps.
    complete
        ``[N]`` bool: whether ``delta`` is within the tolerance; None where the method promises no sum.
    failures
        N texts: what is wrong with each baseline as a counterfactual, ``""`` where nothing is; None where it is none.

    Raises
    ------
    ExplainerError
        If a field has another length than maps.
    """

    type_name: ClassVar[str] = "one-vs-one"
    captions: ClassVar[Mapping[str, str]] = {
        "explanation": "Above each image its classes, target | other; below it the image that it is compared with, in "
        "a frame where that failed as a counterfactual. Red speaks for the target and not for the other class, blue "
        "the other way; each map has its own scale, whose end is written below it."
    }
    per_sample: ClassVar[tuple[str, ...]] = (*Attribution.per_sample, "against", "steps", "complete", "failures")

    against: Tensor
    steps: Tensor | None = None
    complete: Tensor | None = None
    failures: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.failures is not None:
            object.__setattr__(self, "failures", tuple(self.failures))
        super().__post_init__()
        if self.against.ndim != 1 or self.against.is_floating_point():
            raise ExplainerError(f"one-vs-one: against must be integers [N], not {list(self.against.shape)}")

    def table(self) -> list[dict[str, Any]]:
        """Return one row per image: those of `Attribution`, with the other class, steps, completeness and failure."""
        rows = []
        for i, row in enumerate(super().table()):
            row["against"] = int(self.against[i])
            if self.steps is not None:
                row["steps"] = int(self.steps[i])
            if self.complete is not None:
                row["complete"] = bool(self.complete[i])
            if self.failures is not None:
                row["failure"] = self.failures[i]
            rows.append(row)
        return rows

    def plot(self, n: int = 8, title: str = "") -> Figure | None:
        """Draw the first n images, what each is compared with, and the maps; baselines that failed are framed.

        None if there are none, or no images.
        """
        from .contrast_figure import contrasts

        return contrasts({"": self}, n=n, title=title) if len(self) and self.images is not None else None

    def summary(self) -> dict[str, Any]:
        """Return counts over all images: complete maps, baselines that failed."""
        said: dict[str, Any] = {}
        if self.complete is not None:
            said["complete"] = f"{int(self.complete.sum())} of {len(self)}"
        if self.failures is not None:
            said["baselines that failed"] = f"{sum(map(bool, self.failures))} of {len(self)}"
        return said
