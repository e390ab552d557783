"""The parts of written digits, by mathematical morphology."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import label, regionprops
from skimage.morphology import dilation, disk, skeletonize
from torch import Tensor
from torch.nn import functional as F

from genxai_core import Samples, Segmenter

Mask = NDArray[np.bool_]

WORKING_SIZE = 64
"""Smaller images are enlarged, by a whole factor, to at least this many pixels before their strokes are thinned."""


class Morphology(Segmenter):
    """Strokes and their topology: masks ``[N, 5, H, W]`` of stroke, hole, background, endpoints and junctions.

    A pixel is stroke where its gray value (the mean of the channels) passes the threshold. Strokes connect over corners
    (8 neighbours), the rest over edges only (4 neighbours): a region of the rest that does not touch the image's border
    is a hole, what touches it is background. These three are disjoint and cover the image.

    Endpoints and junctions are points of the skeleton (Zhang and Suen, "A fast parallel algorithm for thinning digital
    patterns", CACM 1984) of the stroke, enlarged bilinearly (``align_corners=False``) where the image is small. Of the
    ring of a skeleton pixel's 8 neighbours, the number of runs of skeleton pixels is its crossing number (Rutovitz,
    1966): 1 at an end, 2 along a line, 3 or more at a junction. Branches from a junction to an end that are shorter
    than ``spur`` are cut off first: thinning leaves them where an outline is rough. Both kinds of points are widened to
    discs, and may overlap the other concepts.

    It is exact for what is drawn in strokes, of any size; the points ask for strokes that are narrower than the holes
    and gaps between them.

    Parameters
    ----------
    threshold
        Between darkest (0) and brightest (1) value: where ink begins.
    ink
        ``"bright"`` on dark, or ``"dark"`` on bright.
    radius
        Radius, in pixels of the image, of the discs around points; 0 leaves single pixels.
    spur
        Branches that are shorter than this share of the image's shorter side are cut off; 0 keeps all.

    Raises
    ------
    ValueError
        If a number is out of its bounds.
    """

    concepts = ("stroke", "hole", "background", "endpoints", "junctions")

    def __init__(
        self,
        threshold: float = 0.4,
        ink: Literal["bright", "dark"] = "bright",
        radius: int = 1,
        spur: float = 0.08,
    ) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold {threshold} must be between 0 and 1")
        if radius < 0:
            raise ValueError(f"radius {radius} must be at least 0")
        if not 0 <= spur < 1:
            raise ValueError(f"spur {spur} must be at least 0 and below 1")
        self.threshold, self.ink, self.radius, self.spur = threshold, ink, radius, spur

    def _segment(self, samples: Samples) -> Tensor:
        gray = samples.rescale((0.0, 1.0)).images.float().cpu().mean(1, keepdim=True)
        if self.ink == "dark":
            gray = 1 - gray
        height, width = gray.shape[2:]
        factor = -(-WORKING_SIZE // min(height, width))  # 1 for what is large enough
        fine = F.interpolate(gray, (height * factor, width * factor), mode="bilinear", align_corners=False)
        inks = (gray > self.threshold)[:, 0].numpy(), (fine > self.threshold)[:, 0].numpy()
        return torch.from_numpy(np.stack([self._parts(ink, large, factor) for ink, large in zip(*inks)]))

    def _parts(self, ink: Mask, large: Mask, factor: int) -> Mask:
        """Return the five planes of one image, of its ink and the same enlarged."""
        hole = _holes(ink)
        skeleton = prune(skeletonize(large), round(self.spur * min(large.shape)))
        crossing = crossing_numbers(skeleton)
        points = [self._discs(skeleton & chosen, factor) for chosen in (crossing == 1, crossing >= 3)]
        return np.stack([ink, hole, ~ink & ~hole, *points])

    def _discs(self, points: Mask, factor: int) -> Mask:
        height, width = (s // factor for s in points.shape)
        there = points.reshape(height, factor, width, factor).any((1, 3))
        return np.asarray(dilation(there, disk(self.radius)), dtype=np.bool_)


def _holes(ink: Mask) -> Mask:
    regions = label(~ink, connectivity=1)
    border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    return ~ink & ~np.isin(regions, border)


def crossing_numbers(skeleton: Mask) -> NDArray[np.int_]:
    """Return the number of runs of set pixels in the ring of each pixel's 8 neighbours, ``[H, W]``, from 0 to 4.

    A ring that is set all round has none. Beyond the border nothing is set.
    """
    padded = np.pad(skeleton, 1)
    height, width = skeleton.shape
    ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]  # clockwise, from the upper left
    around = np.stack([padded[y : y + height, x : x + width] for y, x in ring])
    return np.asarray((~around & np.roll(around, -1, axis=0)).sum(0))


def prune(skeleton: Mask, length: int) -> Mask:
    """Cut off branches of fewer than ``length`` pixels between an end and a junction. Lines without a junction stay."""
    crossing = crossing_numbers(skeleton)
    junctions = skeleton & (crossing >= 3)
    near = dilation(junctions, np.ones((3, 3), dtype=bool))
    branches = label(skeleton & ~near, connectivity=2)
    kept = skeleton.copy()
    for region in regionprops(branches):
        rows, columns = region.coords.T
        if region.area + 1 >= length or not (crossing[rows, columns] == 1).any():  # and the pixel at the junction
            continue
        inside = np.zeros_like(skeleton)
        inside[rows, columns] = True
        if (dilation(inside, np.ones((3, 3), dtype=bool)) & near & skeleton).any():
            kept[rows, columns] = False
    return np.asarray(skeletonize(kept), dtype=np.bool_)
