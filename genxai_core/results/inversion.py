"""Inversions: the latents from which a generator draws given images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..errors import ExplainerError
from ..explanation import Explanation
from . import checks

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

OWNER = "inversion"


@dataclass(frozen=True, eq=False)
class Inversion(Explanation):
    """For each image x, latents z with G(z) ≈ x, how near that came, and whether it failed.

    Parameters
    ----------
    images
        ``[N, C, H, W]`` in ``value_range``.
    reconstructions
        ``[N, C, H, W]``, G(z). Images, reconstructions and latents are finite but where it failed.
    latents
        ``[N, …]``, z.
    errors
        ``[N]`` root of the mean square of G(z) − x over pixels and channels, in pixel values. Not finite only where
        it failed.
    failed
        ``[N]`` bool: the image is outside what the generator draws, or the search did not find it.
    history
        ``[N, T]`` the error, or the loss that ``notes`` name, after each step of the search; NaN after the last step
        of a shorter one.
    value_range
        That of both kinds of images.
    notes
        What the method decided for itself, such as the error above which it calls an image failed.

    Raises
    ------
    ExplainerError
        If a shape or a length does not fit, an error is negative, or a value is not finite without having failed.
    """

    type_name: ClassVar[str] = "inversion"
    per_sample: ClassVar[tuple[str, ...]] = ("images", "reconstructions", "latents", "errors", "failed", "history")

    captions: ClassVar[Mapping[str, str]] = {
        "explanation": "Red pixels are brighter in the reconstruction, blue ones darker, white is zero, in the channel "
        "that differs most. Each difference has its own scale; its end is written below it, as a share of the value "
        "range. RMSE is in pixel values. A frame and ✗ mark what failed.",
        "history": "The search of each image.",
    }

    images: Tensor
    reconstructions: Tensor
    latents: Tensor
    errors: Tensor
    failed: Tensor
    history: Tensor | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.images(OWNER, self.images, finite=False, reconstructions=self.reconstructions)
        n = len(self.images)
        object.__setattr__(self, "value_range", checks.value_range(OWNER, self.value_range))
        checks.tensor(OWNER, "latents", self.latents, {"N": n, checks.REST: None}, finite=False)
        checks.tensor(OWNER, "errors", self.errors, {"N": n}, finite=False)
        checks.tensor(OWNER, "failed", self.failed, {"N": n}, "bool")
        if self.history is not None:
            checks.tensor(OWNER, "history", self.history, {"N": n, "T": None}, finite=False)
        for name in ("images", "reconstructions", "latents"):
            bad = ~getattr(self, name).isfinite().flatten(1).all(1).to(self.failed.device) & ~self.failed
            if bool(bad.any()):
                row = int(bad.nonzero()[0])
                raise ExplainerError(f"{OWNER}: {name} hold NaN or infinity in row {row}, which is not called failed")
        for i, (error, failed) in enumerate(zip(self.errors.tolist(), self.failed.tolist())):
            if error < 0 or not (failed or error < float("inf")):
                raise ExplainerError(f"{OWNER}: image {i} has an error of {error} and is not called failed")

    @classmethod
    def _aligned(cls, parts: Sequence[Self]) -> Sequence[Self]:
        """Let a search that was shorter than others, or is not told, have steps of NaN after its own."""
        from torch.nn.functional import pad

        if all(part.history is None for part in parts):
            return parts
        histories = [p.errors.new_empty(len(p), 0) if p.history is None else p.history for p in parts]
        steps = max(history.shape[1] for history in histories)
        padded = [pad(history, (0, steps - history.shape[1]), value=float("nan")) for history in histories]
        return [dataclasses.replace(part, history=history) for part, history in zip(parts, padded)]

    def table(self) -> list[dict[str, Any]]:
        """Return one row per image: error in pixel values and as a share of the range, latents' length, failure.

        ``latent_norm`` is the root of the latents' mean square: 1 is usual for latents drawn from a standard normal
        distribution, and much more means that the search left it. With a history, ``steps`` is its length, without
        the NaN at its end, and ``start`` its first value.
        """
        import torch

        low, high = self.value_range
        norms = self.latents.detach().double().flatten(1).square().mean(1).sqrt()
        told = None
        if self.history is not None and (t := self.history.shape[1]):
            numbers = torch.arange(1, t + 1).to(self.history.device)
            told = (numbers * ~self.history.isnan()).amax(1)
        rows = []
        for i in range(len(self)):
            error = float(self.errors[i])
            row: dict[str, Any] = {"sample": i, "rmse": error, "share_of_range": error / (high - low)}
            row["latent_norm"] = float(norms[i])
            if self.history is not None and told is not None:
                row |= {"steps": int(told[i]), "start": float(self.history[i, 0])}
            rows.append(row | {"failed": bool(self.failed[i])})
        return rows

    def plot(self, n: int = 8, title: str = "") -> Figure | None:
        """Draw the first n images, their reconstructions and the signed differences; what failed is marked.

        Below each stand the scale of its difference and its error. The note above counts the failures of all images.
        None if there are none.
        """
        if len(self) == 0:
            return None
        from ..plots import before_after

        return before_after(
            self.images,
            self.reconstructions,
            self.value_range,
            names=("image", "reconstruction"),
            below=[f"RMSE {error:.3g}" for error in self.errors[:n].tolist()],
            failures=["failed" if failed else "" for failed in self.failed.tolist()],
            note=f"failed {int(self.failed.sum())} of {len(self)}",
            n=n,
            title=title,
        )

    def figures(self) -> dict[str, Figure]:
        """Return all pictures by name: ``explanation``, and ``history`` where there is one."""
        from ..plots import search_curves

        first = self.plot()
        found = {} if first is None else {"explanation": first}
        if self.history is not None and self.history.numel():
            found["history"] = search_curves(self.history, self.failed)
        return found

    def summary(self) -> dict[str, Any]:
        """Return how many failed, and the median error of the others."""
        said: dict[str, Any] = {"failed": f"{int(self.failed.sum())} of {len(self)}"}
        kept = self.errors.detach().double()[~self.failed.to(self.errors.device)]
        if len(kept):
            said["median error (RMSE)"] = float(kept.quantile(0.5))
        return said
