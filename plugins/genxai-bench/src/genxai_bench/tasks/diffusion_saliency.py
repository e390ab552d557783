"""What speaks for a class in a noised image: the posterior of a mixture's components, whose gradient is known."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

import genxai_core as gx
from genxai_core import draws
from genxai_core.errors import InputError

from .. import maps
from ..models.mixture import STEPS, Mixture, NoisyClassifier, schedule
from ..task import Measure, Problem, Task


class DiffusionSaliency(Task):
    """Three kinds of scene differ in one patch only; noised, they are told apart by the exact posterior.

    The model is a classifier at step t (a discriminator with logits ``log p(k | x_t)``) and a diffusion model
    (``predict``). Its saliency is known: ``∇ log p(k | x_t) = (√ᾱ/v)(μ_k − Σ_j p(j | x_t) μ_j)``, which is zero outside
    the patch, whatever the picture and the noise show there. The contrast of the patch is chosen so that the components
    stay as hard to tell apart at every t (``separation``).

    It is made for gradients; ``energy`` is fair to any map, ``agreement`` asks for this gradient.

    Parameters
    ----------
    t
        Step of the diffusion, 0 to 999.
    size
        Side of the images.
    patch
        Side of the patch.
    n
        Images.
    separation
        Distance of two components' means in standard deviations.
    """

    name: ClassVar[str] = "diffusion-saliency"
    says: ClassVar[str] = "noised images whose classes differ in one patch: the posterior's gradient is known"
    measures = (
        Measure("energy", "share of |map| in the patch above its share of the area: 0 by chance, 1 if all", 1.0, 0.0),
        Measure("agreement", "mean cosine with the exact gradient, -1 to 1", 1.0, 0.0, slack=1e-3),
    )

    def __init__(self, t: int = 400, size: int = 16, patch: int = 6, n: int = 12, separation: float = 2.0) -> None:
        if not 0 <= t < STEPS:
            raise InputError(f"t {t} must be from 0 to {STEPS - 1}")
        if n < 1:
            raise InputError(f"n {n} must be at least 1")
        if not 1 <= patch < size:
            raise InputError(f"patch {patch} must be from 1 to {size - 1}, smaller than the images")
        self.t, self.size, self.patch, self.n, self.separation = t, size, patch, n, separation

    def problem(self, seed: int) -> Problem:
        """Draw the scene, the patch's place and the three patterns, and noised images of all three."""
        scene = gx.create("dataset/scenes", n=1, size=self.size, seed=seed)[0].images.mean(1)
        room = self.size - self.patch + 1
        y, x = (int(draws.integers(seed, [i], room, stream="patch")[0]) for i in (0, 1))
        region = torch.zeros(self.size, self.size, dtype=torch.bool)
        region[y : y + self.patch, x : x + self.patch] = True
        means = 0.7 * scene[None].repeat(3, 1, 1, 1)
        means[:, 0, region] += self._patterns(seed)
        mixture = Mixture(means, sigma=0.1).eval()
        clean = mixture.sample(self.n, seed)
        t = torch.full((self.n,), self.t)
        noised = mixture.noised(clean.images, t, seed)
        model = NoisyClassifier(mixture, self.t).eval()
        inputs = gx.Samples(noised, labels=clean.labels, value_range=model.value_range, class_names=model.class_names)
        return Problem(
            model,
            inputs,
            target=0,
            truth={"region": region.expand(self.n, -1, -1), "gradient": mixture.evidence(noised, t, 0)},
            decided={"t": self.t, "timesteps": (self.t,)},
            seed=seed,
        )

    def _patterns(self, seed: int) -> Tensor:
        """Three orthogonal patterns ``[3, patch²]`` at the distance that the separation asks for at t."""
        drawn = draws.normal(seed, range(self.patch**2), [3], stream="patterns").double()
        basis: Tensor = torch.linalg.qr(drawn)[0].T
        level = float(schedule()[self.t])
        deviation = (level * 0.1**2 + 1 - level) ** 0.5
        length: float = self.separation * deviation / (2 * level) ** 0.5  # two are √2 lengths apart
        return (basis * length).float()

    def oracle(self, problem: Problem) -> Any:
        """Return the exact gradient."""
        return maps.attribution(problem.truth["gradient"], self._inputs(problem), 0)

    def random(self, problem: Problem) -> Any:
        """Return noise."""
        return maps.noise(self._inputs(problem), 0, problem.seed)

    def heuristic(self, problem: Problem) -> Any:
        """Return the edges of the noised image."""
        return maps.edges(self._inputs(problem), 0)

    def constant(self, problem: Problem) -> Any:
        """Return one everywhere."""
        return maps.constant(self._inputs(problem), 0)

    def score(self, problem: Problem, answer: Any) -> dict[str, float]:
        """Judge maps by where their magnitude lies, and by their direction."""
        found = maps.plane(answer, self._inputs(problem)).flatten(1)
        if not bool(torch.isfinite(found).all()):
            raise InputError(f"{self.name}: the answer's maps hold NaN or infinity")
        gradient = problem.truth["gradient"].sum(1).double().flatten(1)
        region: Tensor = problem.truth["region"]
        area = region.double().mean().item()
        share = maps.energy(found.view(region.shape), region)
        cosines = torch.cosine_similarity(_scaled(found), _scaled(gradient), dim=1)
        return {
            "energy": float(((share - area) / (1 - area))[found.any(1)].sum() / len(found)),
            "agreement": float(cosines.mean()),
        }

    @staticmethod
    def _inputs(problem: Problem) -> gx.Samples:
        assert problem.inputs is not None  # this task's problems have images
        return problem.inputs


def _scaled(rows: Tensor) -> Tensor:
    """Return rows whose largest magnitude is 1, or 0: a cosine of tiny numbers would be lost in its own epsilon."""
    largest = rows.abs().amax(1, keepdim=True)
    return rows / torch.where(largest > 0, largest, torch.ones_like(largest))
