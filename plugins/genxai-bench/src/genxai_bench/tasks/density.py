"""log p(x) of linear-Gaussian images, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import genxai_core as gx
from genxai_core import Samples, draws
from genxai_core.errors import InputError

from ..models.linear_gaussian import LinearGaussian, smooth_weights
from ..task import Measure, Problem, Task

HELD_OUT = 256


def scene_model(seed: int, size: int, latents: int, sigma: float, scale: float = 0.15) -> LinearGaussian:
    """Return a linear-Gaussian model about the gray picture of a scene."""
    scene = gx.create("dataset/scenes", n=1, size=size, seed=seed)[0]
    mean = 0.5 * scene.images.mean(1)
    return LinearGaussian(smooth_weights(seed, latents, size, scale), mean, sigma).eval()


class Density(nn.Module):
    """Any function as a log density."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def log_prob(self, images: Tensor) -> Tensor:
        """Return ``[N]``."""
        return self.function(images)


class LogDensity(Task):
    """A model with a density is trained on draws of a Gaussian whose log density is known exactly.

    A trainer is given images and makes a model with ``log_prob(images)`` in nats, in pixel space. It is judged on
    images that it never saw: as many from the same Gaussian, and as many whose latents are twice as wide, which are
    less likely.

    Parameters
    ----------
    size
        Side of the images, 16 at least.
    n
        Images to train on.
    latents
        How many directions the images vary in beside the noise.
    sigma
        The noise of each pixel.
    """

    name: ClassVar[str] = "log-density"
    says: ClassVar[str] = "images from a Gaussian in few directions and noise: log p(x) is known"
    subject = "trainer"
    explains: ClassVar[str] = "HasDensity"
    returns: ClassVar[str] = ""
    heuristic_name: ClassVar[str] = "independent pixels"
    measures = (
        Measure("rank", "rank correlation of modelled and true log density, -1 to 1", 1.0, 0.0),
        Measure(
            "excess",
            "mean of log p − log of the model over images of the Gaussian, per pixel: its KL divergence, nats",
            0.0,
            None,
            higher_is_better=False,
        ),
        Measure("error", "mean of |log p − log of the model| per pixel, nats", 0.0, None, higher_is_better=False),
    )

    def __init__(self, size: int = 16, n: int = 1024, latents: int = 8, sigma: float = 0.1) -> None:
        self.size, self.n, self.latents, self.sigma = size, n, latents, sigma

    def problem(self, seed: int) -> Problem:
        """Make the Gaussian about a scene, draw the data, and the images to judge by."""
        exact = scene_model(seed, self.size, self.latents, self.sigma)
        wide = LinearGaussian(2 * exact.weight, exact.mean.view(exact.image_shape), self.sigma)
        like, unlike = (m.sample(HELD_OUT, seed, start=self.n).images for m in (exact, wide))
        return Problem(
            None, exact.sample(self.n, seed), truth={"exact": exact, "images": torch.cat([like, unlike])}, seed=seed
        )

    def oracle(self, problem: Problem) -> Any:
        """Return the Gaussian itself."""
        return problem.truth["exact"]

    def random(self, problem: Problem) -> Any:
        """Return noise."""
        return Density(lambda images: draws.normal(problem.seed, range(len(images)), [], stream="random-density"))

    def heuristic(self, problem: Problem) -> Any:
        """Return the density of independent pixels, each with its mean and deviation in the data."""
        assert problem.inputs is not None  # this task's problems have images
        data = problem.inputs.images.double()
        pixels = torch.distributions.Normal(data.mean(0), data.std(0))
        return Density(lambda images: pixels.log_prob(images.double()).flatten(1).sum(1))  # type: ignore[no-untyped-call]

    def constant(self, problem: Problem) -> Any:
        """Return zero: every image is as likely."""
        return Density(lambda images: torch.zeros(len(images)))

    def score(self, problem: Problem, answer: Any) -> dict[str, float]:
        """Compare log densities on the images to judge by."""
        if not hasattr(answer, "log_prob"):
            raise InputError(f"{self.name}: a {type(answer).__name__} has no log_prob(images)")
        images: Tensor = problem.truth["images"]
        with torch.no_grad():
            exact = problem.truth["exact"].log_prob(images)
            found = answer.log_prob(images)
        if not isinstance(found, Tensor) or found.shape != exact.shape:
            raise InputError(f"{self.name}: log_prob returned {getattr(found, 'shape', found)}, not [{len(images)}]")
        found = found.double()
        gap = (exact - found) / images[0].numel()
        return {
            "rank": rank_correlation(found, exact),
            "excess": float(gap[:HELD_OUT].mean()),
            "error": float(gap.abs().mean()),
        }


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Return Spearman's correlation; 0 where one is constant, which orders nothing."""
    if float(a.std()) == 0 or float(b.std()) == 0:
        return 0.0
    return float(spearmanr(a.numpy(), b.numpy()).statistic)


def images_of(problem: Problem) -> Samples:
    """Return a problem's images."""
    assert problem.inputs is not None
    return problem.inputs
