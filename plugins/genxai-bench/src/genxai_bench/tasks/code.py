"""Planted code: images of which it is known from what latents a generator draws them, or how near it can come."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from genxai_core import Inversion, Samples, create, draws
from genxai_core.errors import InputError

from ..models.slot_generator import SlotGenerator, outside
from ..task import Measure, Problem, Task

SOLVED = 0.1
"""Latents within this root mean square of z*, in standard deviations, count as found."""

APART = 0.25
"""Least distance of two spots, in image widths: those that coincide could be told apart by nothing."""

CANDIDATES = 100_000
"""Numbers set aside for each image's draws; of four spots, one draw in 360 has all of them apart."""

GUESSES = 1000

PEAK = 3.0
"""Where what is added is cut, in root mean squares: a scene's thin edges would leave the value range."""


class PlantedCode(Task):
    """Find the latents of images, and say which images the generator cannot draw.

    Half of the images are x = G(z*) of a `SlotGenerator`, the others x = G(z*) + u with what G cannot draw: a scene's
    part orthogonal to the linear space in which G draws, scaled to a root mean square of ``distance``. By Pythagoras
    ‖G(z) − x‖² = ‖G(z) − G(z*)‖² + ‖u‖²: also there z* is the best answer, and the least error is exactly ``distance``.

    G(z) = G(πz) for every permutation π of the slots; the error is that of the permutation that suits the answer best.

    What is judged is an `Inversion`: its latents, drawn again by the model, and its flags. ``failed`` is right where it
    says whether the image is outside the range of G. A search that got lost on an image that G can draw, and says so,
    is honest but has not answered: it counts as a wrong flag. Latents that are not finite count as zero.

    Either part alone is cheap: latents without the flag say nothing of images that the generator cannot draw, the flag
    without the latents nothing of those that it can. So the measure that ranks is the share of images with both right:
    latents within 0.1 standard deviations (root mean square) of z*, and the right flag.

    Parameters
    ----------
    slots
        Spots per image, 1 to 4: the latents are ``[slots, 4]``.
    n
        Images per problem, even: half inside, half outside.
    distance
        Root mean square of what is added outside, in pixel values of [-1, 1]; smaller is harder to tell.
    size
        Height and width, at least 16.

    Raises
    ------
    ValueError
        If a parameter is out of bounds.
    """

    name = "planted-code"
    says = "x = G(z*), or G(z*) and what G cannot draw; find z* up to the order of its slots, and say which is which"
    explains = "HasLatents"
    returns = "inversion"
    heuristic_name = "nearest of 1,000 samples"
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("solved", "share of images with the right latents (within 0.1) and the right flag", 1.0, 0.0),
        Measure(
            "latent-error",
            "root mean square of z - z*, up to the slots' order, in standard deviations",
            0.0,
            higher_is_better=False,
        ),
        Measure(
            "image-error",
            "error of G(z) beyond the least possible one, as a share of what the mean latent leaves",
            0.0,
            higher_is_better=False,
        ),
        Measure("flag", "mean of the shares of images inside and outside that are called so", 1.0, 0.5, near=0.2),
    )

    def __init__(self, slots: int = 2, n: int = 16, distance: float = 0.03, size: int = 32) -> None:
        if n < 2 or n % 2:
            raise ValueError(f"n {n} must be even, at least 2: half of the images are inside, half outside")
        if not 0 < distance <= 0.1:
            raise ValueError(f"distance {distance} must be above 0 and at most 0.1: images keep to their value range")
        SlotGenerator(slots, size)  # refuses what it cannot be
        self.slots, self.n, self.distance, self.size = slots, n, distance, size

    def problem(self, seed: int) -> Problem:
        """Draw latents whose spots are apart, and add what cannot be drawn to a half of the images."""
        model = SlotGenerator(self.slots, self.size).eval()
        latents = torch.stack([self._latent(model, seed, i) for i in range(self.n)])
        beyond = torch.zeros(self.n, dtype=torch.bool)
        beyond[draws.permutation(seed, 0, self.n, "beyond")[: self.n // 2].copy()] = True
        scenes = create("dataset/scenes", n=self.n, size=self.size, seed=seed)[:].images.double()
        added = _flat(outside(scenes), self.distance)
        with torch.no_grad():
            images = model(latents) + (added * beyond[:, None, None, None]).float()
        inputs = Samples(images, value_range=model.value_range)
        return Problem(model, inputs, truth={"latents": latents, "outside": beyond}, seed=seed)

    def _latent(self, model: SlotGenerator, seed: int, index: int) -> Tensor:
        """Return the first of an index's candidates whose spots are apart.

        They are a stream of their own: a method that samples the generator with the problem's seed must not meet z*.
        """
        for candidate in itertools.count():
            latent = draws.normal(seed, [index * CANDIDATES + candidate], (self.slots, 4), "planted-code")
            if self.slots == 1 or float(torch.pdist(model.places(latent)[0]).min()) > APART:
                return latent[0]
        raise AssertionError

    def oracle(self, problem: Problem) -> Inversion:
        """Answer with the latents and the flags that were planted."""
        return _inversion(problem, problem.truth["latents"], problem.truth["outside"])

    def random(self, problem: Problem) -> Inversion:
        """Answer with latents from the prior and a coin for the flag."""
        latents = draws.normal(problem.seed, range(self.n), (self.slots, 4), "random-code")
        return _inversion(problem, latents, draws.integers(problem.seed, range(self.n), 2, "random-flag") == 1)

    def heuristic(self, problem: Problem) -> Inversion:
        """Answer with the nearest of 1,000 samples, and call the half that stays farther away failed."""
        drawn = cast(SlotGenerator, problem.model).sample(GUESSES, seed=problem.seed + 1)
        images = cast(Samples, problem.inputs).images
        distance = torch.cdist(images.flatten(1), drawn.images.flatten(1))
        least, nearest = distance.min(1)
        return _inversion(problem, cast(Tensor, drawn.latents)[nearest], least > least.median())

    def constant(self, problem: Problem) -> Inversion:
        """Answer with the mean latent, never failed."""
        return _inversion(problem, torch.zeros(self.n, self.slots, 4), torch.zeros(self.n, dtype=torch.bool))

    def score(self, problem: Problem, answer: Any) -> dict[str, float]:
        """Judge latents by z* and by what the model draws from them, and the flags."""
        if not isinstance(answer, Inversion):
            raise InputError(f"{self.name} judges an Inversion, not {type(answer).__name__}")
        truth, beyond = problem.truth["latents"], problem.truth["outside"]
        if answer.latents.shape != truth.shape:
            raise InputError(f"the latents are {list(answer.latents.shape)}, the problem needs {list(truth.shape)}")
        latents = torch.nan_to_num(answer.latents.detach().cpu().float(), nan=0.0, posinf=0.0, neginf=0.0)
        flags = answer.failed.cpu()
        errors = latent_errors(latents, truth)
        model = cast(SlotGenerator, problem.model)
        with torch.no_grad():
            best = model(truth).double()
            excess = (model(latents).double() - best).square().mean((1, 2, 3)).sqrt()
            blind = (model(torch.zeros_like(truth)).double() - best).square().mean((1, 2, 3)).sqrt()
        right = flags == beyond
        return {
            "solved": float(((errors <= SOLVED) & right).double().mean()),
            "latent-error": float(errors.mean()),
            "image-error": float(excess.mean() / blind.mean()),
            "flag": float((right[beyond].double().mean() + right[~beyond].double().mean()) / 2),
        }


def _flat(added: Tensor, distance: float) -> Tensor:
    """Scale patterns to a root mean square, with peaks cut so that images keep to their range."""
    for _ in range(8):
        level = added.square().mean((1, 2, 3), keepdim=True).sqrt()
        added = outside(added.clamp(-PEAK * level, PEAK * level))
    return added * (distance / added.square().mean((1, 2, 3), keepdim=True).sqrt())


def latent_errors(latents: Tensor, truth: Tensor) -> Tensor:
    """Return the root mean square ``[N]`` of z − z* over a latent, for the order of slots that makes it least.

    Parameters
    ----------
    latents, truth
        ``[N, slots, D]``.
    """
    orders = list(itertools.permutations(range(latents.shape[1])))
    away = torch.stack([(latents[:, list(o)].double() - truth.double()).square().mean((1, 2)) for o in orders])
    return away.min(0).values.sqrt()


def _inversion(problem: Problem, latents: Tensor, failed: Tensor) -> Inversion:
    inputs = cast(Samples, problem.inputs)
    with torch.no_grad():
        drawn = cast(SlotGenerator, problem.model)(latents)
    errors = (drawn - inputs.images).square().mean((1, 2, 3)).sqrt()
    return Inversion(inputs.images, drawn, latents, errors, failed, value_range=inputs.value_range)
