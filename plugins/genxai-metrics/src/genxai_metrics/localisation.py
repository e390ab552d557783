"""Localisation: whether a map points at what a mask says is there."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from genxai_core import Attribution, Dataset, Samples
from genxai_core.errors import InputError

from .explanations import Batch, ExplanationMetric, with_errors
from .ranks import largest


class Localisation(ExplanationMetric):
    """Pointing game, energy and IoU of maps against masks. Higher is better; all lie in [0, 1].

    With a map φ ``[N, H, W]`` (``[N, C, H, W]`` is summed over channels, with signs) and the pixels M of its mask:

    - ``pointing_game``: whether the largest pixel lies in M (Zhang et al., "Top-down Neural Attention by Excitation
      Backprop", ECCV 2016). Where several are the largest, the share of them that does.
    - ``energy``: Σ_M φ⁺ / Σ φ⁺ with the positive part φ⁺ (Wang et al., "Score-CAM", CVPR workshops 2020). 0 where
      nothing is positive.
    - ``iou``: of M and the |M| largest pixels, so that no threshold is to be chosen. Those tied at the cut share the
      places that are left.

    A random map has the mask's share a of the image in the first two, and about a / (2 − a) in ``iou``; a constant
    positive one has exactly that. Where f is the sum of the pixels of M and those are positive, φ = x on M has 1 in
    all, and −φ has 0. Images without the concept do not count; ``images`` is the number of those that do.

    Known weaknesses: **a mask says where the object is, not where the model looks**. A model that uses the background
    has right explanations that score low: trust it where the truth is planted, and nowhere as the only judge. The
    pointing game sees a single pixel; energy and IoU favour maps that fill the object.

    Parameters
    ----------
    concept
        Which plane of the masks ``[N, K, H, W]``: its number, or its name where the masks come with samples. None
        takes all planes together.
    tolerance
        How many pixels beside the mask the pointing game still counts (Euclidean distance; 15 in the paper, on
        photographs).

    Raises
    ------
    ValueError
        If the tolerance is negative.
    """

    needs = frozenset({"explanation", "masks"})
    higher_is_better = {**with_errors(pointing_game=True, energy=True, iou=True), "images": None}
    by = "metric/localisation"

    def __init__(self, concept: int | str | None = None, tolerance: int = 0) -> None:
        if tolerance < 0:
            raise ValueError(f"tolerance {tolerance} must be at least 0 pixels")
        super().__init__()
        self.concept, self.tolerance = concept, tolerance

    def update(self, *, explanation: Attribution, masks: Tensor | Samples | Dataset) -> None:  # type: ignore[override]
        """Take in more explanations, with masks of their images: bool ``[N, K, H, W]`` or ``[N, H, W]``, or samples.

        Raises
        ------
        InputError
            If the explanation is empty or not finite, the masks do not fit, or have no such concept.
        """
        self._take(explanation, masks=self._chosen(masks[:] if isinstance(masks, Dataset) else masks))

    def _chosen(self, masks: Tensor | Samples) -> Tensor | Samples | None:
        if isinstance(masks, Samples) and masks.masks is None:
            raise InputError(f"{self.by}: these samples have no masks")
        if self.concept is None:
            return masks
        planes = masks.masks if isinstance(masks, Samples) else masks
        names = masks.concepts if isinstance(masks, Samples) else ()
        if not isinstance(planes, Tensor) or planes.ndim != 4:
            raise InputError(f"{self.by}: concept {self.concept!r} is chosen from masks [N, K, H, W]")
        if isinstance(self.concept, str) and self.concept not in names:
            there = ", ".join(names) or "none; give samples, or the number of the plane"
            raise InputError(f"{self.by}: there is no concept {self.concept!r} (there are: {there})")
        plane = names.index(self.concept) if isinstance(self.concept, str) else self.concept
        if not 0 <= plane < planes.shape[1]:
            raise InputError(f"{self.by}: there is no concept {plane}; the masks have {planes.shape[1]}, from 0")
        return planes[:, plane]

    def _judge(self, batch: Batch) -> Tensor:
        region = batch.masks.any(1)
        values, inside = batch.plane.flatten(1), region.flatten(1)
        near = _dilated(region, self.tolerance).flatten(1)
        count = inside.sum(1)
        peaks = (values == values.amax(1, keepdim=True)).double()
        pointing = (peaks * near).sum(1) / peaks.sum(1)
        positive = values.clamp_min(0)
        mass = positive.sum(1)
        energy = torch.where(mass > 0, (positive * inside).sum(1) / mass.where(mass > 0, 1), 0.0)
        hits = (largest(values, count) * inside).sum(1)
        iou = hits / (2 * count - hits).clamp_min(1)  # both sets have |M| pixels
        return torch.stack([pointing, energy, iou], 1).where(count[:, None] > 0, torch.nan)

    def compute(self) -> dict[str, float]:
        """Return the figures, each with its standard error, and the number of images.

        Raises
        ------
        InputError
            If fewer than two images have the concept.
        """
        found = super().compute()
        return {**found, "images": float((~self.per_image()["iou"].isnan()).sum())}


def _dilated(region: Tensor, radius: int) -> Tensor:
    """Return ``[N, H, W]``: the pixels at most ``radius`` from a region ``[N, H, W]``."""
    if radius == 0:
        return region
    at = torch.arange(-radius, radius + 1, device=region.device)
    disc = (at[:, None].square() + at.square() <= radius**2).float()
    return F.conv2d(region[:, None].float(), disc[None, None], padding=radius)[:, 0] > 0.5
