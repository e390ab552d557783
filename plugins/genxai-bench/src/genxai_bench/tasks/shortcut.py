"""Planted shortcuts: a discriminator that is a known signed function of one patch, of two patches, or of a colour."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from genxai_core import Attribution, Samples, draws
from genxai_core.errors import InputError

from .. import maps
from ..chosen import chosen, collages
from ..models.shortcut import CELL, ColourFunction, ColourNet, PatchFunction, PatchNet
from ..signed import agreement, auc, correlation, excess, finite, inside, pointing
from ..task import Measure, Problem, Task

COLOURS = ((0.72, -0.42, -0.51), (0.88, 0.1, -0.51), (-0.4, 0.3, -0.19), (-0.57, 0.4, 0.36), (-0.54, -0.08, 0.6))
"""Colours of objects in the scenes, in (-1, 1): red, orange, green, turquoise, blue."""

ATTEMPTS = 8
"""How often a function is drawn anew if too few scenes have evidence for it."""

SHARE = (0.03, 0.3)
"""The least and the largest share of an image that a colour has."""

ENERGY = Measure(
    "energy", "share of |map| in the region above its share of the area: 0 as by chance, 1 if all", 1.0, 0.0, near=0.05
)
SIGN = Measure("sign", "share of images in whose region the map sums to the right sign", 1.0, 0.5, near=0.2)
MAGNITUDE = Measure(
    "magnitude", "correlation over images of the map's sum in the region with what the region adds", 1.0, 0.0, near=0.4
)
POINTING = Measure("pointing", "share of images whose largest |map| lies in the region", 1.0)


class Shortcut(Task):
    """Base of the tasks whose answer is a map that belongs in a region and sums to a known number there.

    ``problem.truth`` has ``map`` ``[N, H, W]``, the oracle's; ``region`` bool ``[N, H, W]``; ``contribution`` ``[N]``,
    what the region adds to the logit.
    """

    measures: ClassVar[tuple[Measure, ...]] = (ENERGY, SIGN, MAGNITUDE, POINTING)

    def oracle(self, problem: Problem) -> Attribution:
        """Answer with the map that the closed form gives."""
        return maps.attribution(problem.truth["map"].float(), _inputs(problem), 0)

    def random(self, problem: Problem) -> Attribution:
        """Answer with noise."""
        return maps.noise(_inputs(problem), 0, problem.seed)

    def heuristic(self, problem: Problem) -> Attribution:
        """Answer with the edges of the image."""
        return maps.edges(_inputs(problem), 0)

    def constant(self, problem: Problem) -> Attribution:
        """Answer with one everywhere."""
        return maps.constant(_inputs(problem), 0)

    def score(self, problem: Problem, answer: Attribution) -> dict[str, float]:
        """Judge maps."""
        found, region = finite(answer, _inputs(problem)), problem.truth["region"]
        sums, true = inside(found, region), problem.truth["contribution"]
        return {
            "energy": float(excess(found, region).mean()),
            "sign": agreement(sums, true),
            "magnitude": correlation(sums, true),
            "pointing": float(pointing(found, region).mean()),
        }


class Patch(Shortcut):
    """The logit is a function of one patch; half of the images have evidence for it there, half against.

    Each instance draws the place of the patch, a colour direction a, and a sign. The evidence of a cell of 4×4 pixels
    is the mean of a·x, and the logit is the mean of the saturated evidence over the cells of the patch: see
    `PatchFunction`. It is 0 where the patch has pixel value 0, so the logit is what the patch adds against grey.
    Nothing outside matters. Images are chosen among scenes so that the patch matters in each: half above ``weakest``,
    half below its negative.

    Parameters
    ----------
    n
        Images, an even number.
    size
        Their height and width, a multiple of 4.
    patch
        Side of the patch, a multiple of 4, less than a third of ``size``.
    gain
        The logit of a patch that just saturates.
    saturation
        Evidence at which a cell saturates; typical is 0.4. Smaller is harder for gradients.
    slope
        What is left of the slope beyond.
    decoys
        Strength of the pairs of edge channels that cancel, relative to the evidence; 0 is easier.
    weakest
        Smallest contribution of a patch, as a fraction of what it adds when it just saturates.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    name = "shortcut-patch"
    says = "the logit is a signed function of one patch: all magnitude belongs there, with its sign"

    def __init__(
        self,
        n: int = 16,
        size: int = 32,
        patch: int = 8,
        gain: float = 4.0,
        saturation: float = 0.4,
        slope: float = 0.1,
        decoys: float = 1.0,
        weakest: float = 0.25,
    ) -> None:
        if n < 4 or n % 2:
            raise ValueError(f"n {n} must be an even number, at least 4")
        if size % CELL or patch % CELL or not 0 < 3 * patch < size:
            raise ValueError(
                f"size {size} and patch {patch} must be multiples of {CELL}, the patch less than a third as large"
            )
        if gain <= 0 or saturation <= 0 or not 0 <= slope <= 1 or decoys < 0 or not 0 <= weakest < 1:
            raise ValueError(
                f"gain {gain} and saturation {saturation} must be above 0, slope {slope} from 0 to 1, decoys {decoys} "
                f"not negative, weakest {weakest} at least 0 and below 1"
            )
        self.n, self.size, self.patch, self.gain = n, size, patch, gain
        self.saturation, self.slope, self.decoys, self.weakest = saturation, slope, decoys, weakest

    def _weights(self, sign: float) -> tuple[float, ...]:
        return (sign * self.gain,)

    def problem(self, seed: int) -> Problem:
        """Make an instance.

        Raises
        ------
        InputError
            If too few scenes have enough evidence in the patch, wherever it lies.
        """
        for attempt in range(ATTEMPTS):  # in a corner that is always sky, there is no evidence of both signs
            draw = draws.generator(seed, attempt, f"bench/{self.name}")
            function = self._function(draw)
            images = chosen(partial(self._side, function), (1, -1), self.n // 2, seed, self.size)
            if images is not None:
                return self._made(function, PatchNet(function, self.decoys, draw), images, seed)
        raise InputError(
            f"{self.name}: too few scenes of seed {seed} have enough evidence in a patch; ask for fewer images (n "
            f"{self.n}), weaker evidence (weakest {self.weakest}), or another seed"
        )

    def _function(self, draw: np.random.Generator) -> PatchFunction:
        weights = self._weights(float(draw.choice([-1.0, 1.0])))
        first, second, third = draw.permutation([1.0, 0.2, -0.8]).tolist()
        places = _places(draw, self.size, self.patch, len(weights))
        return PatchFunction(
            self.size, self.patch, places, weights, (first, second, third), self.saturation, self.slope
        )

    def _side(self, function: PatchFunction, images: Tensor) -> Tensor:
        """Return 1 or -1 for images whose first patch speaks for or against, 0 for those that are of no use."""
        parts = function.contributions(images)
        enough = (parts.abs() >= self.weakest * torch.tensor(function.weights).abs()).all(1)
        opposed = (parts[:, :-1] * parts[:, 1:] < 0).all(1)  # always so with a single patch
        return parts[:, 0].sign() * (enough & opposed)

    def _made(self, function: PatchFunction, model: PatchNet, images: Tensor, seed: int) -> Problem:
        parts, regions = function.contributions(images), function.regions()
        truth = {
            "map": function.maps(images),
            "region": regions.any(0).expand(len(images), -1, -1).clone(),
            "contribution": parts.sum(1),
            "regions": regions,
            "contributions": parts,
        }
        return Problem(model, Samples(images, value_range=(-1.0, 1.0)), 0, truth, seed=seed)


class TwoPatches(Patch):
    """The logit is a function of two patches, in each image one for and one against it, with unequal weights.

    As `Patch`, with a second patch of the opposite sign and half the weight. Images are chosen so that both patches
    matter, with opposite signs.

    Parameters
    ----------
    n, size, patch, gain, saturation, slope, decoys, weakest
        As for `Patch`.
    second
        Weight of the second patch relative to the first, above 0 and below 1.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    name = "shortcut-two-patches"
    says = "the logit is the difference of two patches with unequal weights: both belong in the map, in proportion"
    measures = (
        ENERGY,
        Measure("share-error", "mean |share of the first patch in both, less the true share|", 0.0, None, False),
        Measure("sign", "share of patches over which the map sums to the right sign", 1.0, 0.5, near=0.2),
        Measure("magnitude", "correlation over patches of the map's sum with what the patch adds", 1.0, 0.0, near=0.4),
    )

    def __init__(
        self,
        n: int = 16,
        size: int = 32,
        patch: int = 8,
        gain: float = 4.0,
        saturation: float = 0.4,
        slope: float = 0.1,
        decoys: float = 1.0,
        weakest: float = 0.25,
        second: float = 0.5,
    ) -> None:
        super().__init__(n, size, patch, gain, saturation, slope, decoys, weakest)
        if not 0 < second < 1:
            raise ValueError(f"second {second} must be above 0 and below 1")
        self.second = second

    def _weights(self, sign: float) -> tuple[float, ...]:
        return sign * self.gain, -sign * self.gain * self.second

    def score(self, problem: Problem, answer: Attribution) -> dict[str, float]:
        """Judge maps."""
        found, true = finite(answer, _inputs(problem)), problem.truth["contributions"]
        sums = torch.stack([inside(found, region) for region in problem.truth["regions"]], 1)
        return {
            "energy": float(excess(found, problem.truth["region"]).mean()),
            "share-error": float((_share(sums) - _share(true)).abs().mean()),
            "sign": agreement(sums, true),
            "magnitude": correlation(sums.flatten(), true.flatten()),
        }


class Colour(Shortcut):
    """The logit is a function of how much of one colour is in the image, for it or against it.

    Each instance draws a colour c and a sign, the same for all its images. A pixel's membership falls from 1 to 0 with
    its distance from c, and the logit saturates in the mean membership: see `ColourFunction`. It is 0 for grey. The
    region is where membership is above ½. The rim, where it is above 0 but no more than ½, matters a little: it counts
    as neither in nor out for ``energy`` and ``auc``, and belongs to the sum that ``sign`` and ``magnitude`` judge.

    The images are scenes into which objects of c and of ``rivals`` other colours are set from other scenes, all in the
    same way, so that each of them takes from 3 % to 30 % of each image: to be in all images says nothing. The heuristic
    contestant looks for colours that stand out.

    Parameters
    ----------
    n
        Images, at least 4.
    size
        Their height and width, a multiple of 4.
    radius
        Distance Σ|x − c| at which membership ends.
    gain
        The logit at saturation.
    saturation
        Share of the image at which the logit saturates.
    slope
        What is left of the slope beyond.
    decoys
        Strength of the pairs of edge channels that cancel, relative to the colour; 0 is easier.
    rivals
        How many other colours are as frequent, at most 3.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    name = "shortcut-colour"
    heuristic_name = "colour contrast"
    says = "the logit is a signed function of how much of one colour there is: the magnitude belongs on its pixels"
    measures = (
        ENERGY,
        Measure("auc", "probability that a pixel of the colour has more |map| than another", 1.0, 0.5, near=0.05),
        Measure(
            "sign", "share of images over whose pixels of the colour the map sums to the right sign", 1.0, 0.5, near=0.2
        ),
        Measure("magnitude", "correlation over images of that sum with the logit", 1.0, 0.0, near=0.4),
    )

    def __init__(
        self,
        n: int = 16,
        size: int = 32,
        radius: float = 0.5,
        gain: float = 4.0,
        saturation: float = 0.06,
        slope: float = 0.1,
        decoys: float = 1.0,
        rivals: int = 2,
    ) -> None:
        if n < 4:
            raise ValueError(f"n {n} must be at least 4")
        if size % CELL or size <= 0:
            raise ValueError(f"size {size} must be a multiple of {CELL}")
        if not 0 < radius <= 0.85:
            raise ValueError(f"radius {radius} must be above 0 and at most 0.85, so that grey is outside")
        if gain <= 0 or not 0 < saturation < 1 or not 0 <= slope <= 1 or decoys < 0:
            raise ValueError(
                f"gain {gain} must be above 0, saturation {saturation} above 0 and below 1, slope {slope} from 0 to 1, "
                f"decoys {decoys} not negative"
            )
        if not 0 <= rivals <= 3:
            raise ValueError(f"rivals {rivals} must be from 0 to 3")
        self.n, self.size, self.radius, self.gain = n, size, radius, gain
        self.saturation, self.slope, self.decoys, self.rivals = saturation, slope, decoys, rivals

    def heuristic(self, problem: Problem) -> Attribution:
        """Answer with the contrast of colours."""
        return contrast(_inputs(problem), 0)

    def problem(self, seed: int) -> Problem:
        """Make an instance.

        Raises
        ------
        InputError
            If too few scenes have enough of the colour.
        """
        draw = draws.generator(seed, 0, f"bench/{self.name}")
        sign = 2.0 * float(draws.permutation(seed // 2, 0, 2, f"bench/{self.name}.sign")[seed % 2]) - 1  # of two, each
        drawn = draw.permutation(len(COLOURS))[: 1 + self.rivals].tolist()
        functions = {
            k: ColourFunction(self.size, COLOURS[k], self.radius, sign * self.gain, self.saturation, self.slope)
            for k in sorted(drawn)  # the images do not depend on which of them is planted
        }
        function, others = functions[drawn[0]], [functions[k] for k in drawn[1:]]
        model = ColourNet(function, self.decoys, draw)

        images = collages([of.membership for of in functions.values()], SHARE, self.n, seed, self.size)
        if images is None:
            raise InputError(
                f"{self.name}: too few scenes of seed {seed} have enough of {1 + self.rivals} colours; ask for fewer "
                f"images (n {self.n}) or rivals ({self.rivals}), a larger radius ({self.radius}), or another seed"
            )
        members = function.membership(images)
        truth = {
            "map": function.maps(images),
            "region": members > 0.5,
            "support": members > 0,
            "contribution": function.logits(images),
            "rivals": torch.stack([members > 0.5, *(of.membership(images) > 0.5 for of in others)], 1),
        }
        return Problem(model, Samples(images, value_range=(-1.0, 1.0)), 0, truth, seed=seed)

    def score(self, problem: Problem, answer: Attribution) -> dict[str, float]:
        """Judge maps."""
        found, region, support = finite(answer, _inputs(problem)), problem.truth["region"], problem.truth["support"]
        sums, true, counted = inside(found, support), problem.truth["contribution"], region | ~support
        return {
            "energy": float(excess(found, region, counted).mean()),
            "auc": float(auc(found, region, counted).mean()),
            "sign": agreement(sums, true),
            "magnitude": correlation(sums, true),
        }


def _inputs(problem: Problem) -> Samples:
    assert problem.inputs is not None
    return problem.inputs


def _share(parts: Tensor) -> Tensor:
    """Return the first of two as a share of both, by magnitude; ½ where both are 0."""
    sizes = parts.abs()
    whole = sizes.sum(1)
    return torch.where(whole > 0, sizes[:, 0] / torch.where(whole > 0, whole, 1.0), 0.5)


def _places(draw: np.random.Generator, size: int, patch: int, count: int) -> tuple[tuple[int, int], ...]:
    """Draw the top and left of patches on the grid of cells that do not touch."""
    steps = (size - patch) // CELL + 1
    places: list[tuple[int, int]] = []
    while len(places) < count:
        top, left = (CELL * int(v) for v in draw.integers(steps, size=2))
        if all(max(abs(top - y), abs(left - x)) > patch for y, x in places):
            places.append((top, left))
    return tuple(places)


def contrast(inputs: Samples, target: int) -> Attribution:
    """Answer with the squared distance of each pixel's colour to the mean of its image, ``[N, H, W]``."""
    images = inputs.images
    return maps.attribution((images - images.mean((2, 3), keepdim=True)).square().sum(1), inputs, target)
