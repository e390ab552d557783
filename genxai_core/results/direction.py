"""Directions in a latent space: where to go for more of something."""

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

OWNER = "direction"


@dataclass(frozen=True, eq=False)
class Direction(Explanation):
    """Named unit vectors in a latent space: z + a·v has more of what v is named after, the larger a.

    Its "samples" are the directions: ``direction[:2]`` selects two, `concat` joins those of several results.

    Parameters
    ----------
    vectors
        ``[D, *latent_shape]``, each of length 1 to within 1e-4 (the root of the sum of squares over all its axes).
    names
        D names, all different.
    intercepts
        ``[D]``: the hyperplane v·z + intercept = 0 parts the two classes, for a direction that came from a classifier.
    scores
        ``[D]`` how well each direction does what it is named after; ``notes`` say in what measure.
    images
        ``[D, S, C, H, W]``: what the generator draws at S places along each direction, in ``value_range``.
    amounts
        ``[S]`` these places, a in z + a·v, in the latents' unit.
    value_range
        That of the images.
    notes
        What the method decided for itself.

    Raises
    ------
    ExplainerError
        If a shape, a length or a name does not fit, a vector is not of unit length, or images come without amounts.
    """

    type_name: ClassVar[str] = "direction"
    per_sample: ClassVar[tuple[str, ...]] = ("vectors", "names", "intercepts", "scores", "images")

    captions: ClassVar[Mapping[str, str]] = {
        "cosines": "Cosines of the angles between the directions: 0 for those that are independent of each other."
    }

    vectors: Tensor
    names: tuple[str, ...]
    intercepts: Tensor | None = None
    scores: Tensor | None = None
    images: Tensor | None = None
    amounts: Tensor | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", checks.names(OWNER, "names", self.names))
        object.__setattr__(self, "value_range", checks.value_range(OWNER, self.value_range))
        d = len(self.names)
        checks.tensor(OWNER, "vectors", self.vectors, {"D": d, checks.REST: None})
        for name, length in zip(self.names, self.vectors.detach().double().flatten(1).norm(dim=1).tolist()):
            if abs(length - 1) > 1e-4:
                raise ExplainerError(
                    f"{OWNER}: the vector of {name!r} has length {length:.4g}, not 1; divide it by that"
                )
        for field_name in ("intercepts", "scores"):
            if (value := getattr(self, field_name)) is not None:
                checks.tensor(OWNER, field_name, value, {"D": d})
        if (self.images is None) != (self.amounts is None):
            raise ExplainerError(f"{OWNER}: images and amounts belong together; give both or neither")
        if self.images is not None and self.amounts is not None:
            checks.tensor(OWNER, "amounts", self.amounts, {"S": None})
            axes = {"D": d, "S": len(self.amounts), "C": None, "H": None, "W": None}
            checks.tensor(OWNER, "images", self.images, axes)

    def move(self, latents: Tensor, name: str, amount: float | Tensor) -> Tensor:
        """Return latents moved along a direction, z + amount·v, in the latents' precision and on their device.

        Parameters
        ----------
        latents
            ``[N, *latent_shape]``.
        name
            The direction.
        amount
            How far, in the latents' unit; ``[N]`` for another one per latent.

        Raises
        ------
        ExplainerError
            If there is no such direction, or a shape does not fit.
        """
        import torch

        vector = self.vectors[checks.member(OWNER, "direction", name, self.names)]
        axes = {"N": None, **{f"{i}": n for i, n in enumerate(vector.shape)}}
        checks.tensor(OWNER, "latents", latents, axes, finite=False)
        step = torch.as_tensor(amount, dtype=latents.dtype, device=latents.device)
        if step.ndim:
            checks.tensor(OWNER, "amount", step, {"N": len(latents)})
            step = step.view(-1, *[1] * vector.ndim)
        return latents + step * vector.to(latents)

    def summary(self) -> dict[str, Any]:
        """Return how many directions there are, and the shape of the latents."""
        return {"directions": len(self), "latent shape": "×".join(map(str, self.vectors.shape[1:]))}

    def plot(self, n: int = 12, title: str = "") -> Figure | None:
        """Draw what is seen along the first n directions; without images the cosines of all, None for one alone."""
        if self.images is None or self.amounts is None or self.images.numel() == 0:
            return self._angles(title) if len(self) > 1 else None
        from ..plots import image_rows

        scores = [f"\nscore {float(s):.2f}" for s in self.scores] if self.scores is not None else [""] * len(self)
        return image_rows(
            self.images,
            self.value_range,
            rows=[name + score for name, score in zip(self.names, scores)],
            columns=[f"{a:+.3g}".replace("-", "−") if abs(a) > 1e-6 else "0" for a in self.amounts.tolist()],
            across="amount",
            n=n,
            title=title,
        )

    def figures(self) -> dict[str, Figure]:
        """Return all pictures by name: ``explanation``, and ``cosines`` where that does not show them."""
        first = self.plot()
        found = {} if first is None else {"explanation": first}
        if self.images is not None and self.images.numel() and len(self) > 1:
            found["cosines"] = self._angles("")
        return found

    def _angles(self, title: str) -> Figure:
        from ..plots import square_map

        return square_map(self.cosines().cpu().numpy(), self.names, label="cosine", title=title)

    def _repr_html_(self) -> str:
        from ..plots import html, some

        return html(self.plot(), f"Direction, {len(self)}: {some(self.names)}")

    def cosines(self) -> Tensor:
        """Return the cosine of the angle between each two directions, ``[D, D]`` in [-1, 1]."""
        flat = self.vectors.detach().double().flatten(1)
        flat = flat / flat.norm(dim=1, keepdim=True)
        cosines: Tensor = flat @ flat.T
        return cosines.clamp(-1, 1)

    def table(self) -> list[dict[str, Any]]:
        """Return one row per direction: name, intercept, score, and the other direction that is most like it.

        ``largest_cosine`` is the largest |cosine| with another direction, ``with`` that direction's name.
        """
        others = self.cosines().abs().cpu().fill_diagonal_(-1)
        rows = []
        for i, name in enumerate(self.names):
            row: dict[str, Any] = {"name": name}
            if self.intercepts is not None:
                row["intercept"] = float(self.intercepts[i])
            if self.scores is not None:
                row["score"] = float(self.scores[i])
            if len(self) > 1:
                nearest = int(others[i].argmax())
                row |= {"largest_cosine": float(others[i, nearest]), "with": self.names[nearest]}
            rows.append(row)
        return rows
