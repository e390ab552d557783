"""log p(x)/q(x) of two linear-Gaussian models, exactly: what a discriminator holds at its optimum."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from genxai_core import ImageScores, Samples, draws
from genxai_core.errors import InputError

from ..models.linear_gaussian import LinearGaussian, OptimalDiscriminator
from ..task import Measure, Problem, Task
from .density import images_of, rank_correlation, scene_model

LOSSES = ("squared-hellinger", "pearson")
"""Of which the logit is not the log ratio itself: it must be read, not copied."""


class DensityRatio(Task):
    """Two Gaussians of images and the discriminator that tells them apart optimally, of one of two losses.

    What the logit means depends on the loss, which an explainer may ask for by the name ``loss``: half of the
    logarithm of the ratio, or ``2(p/q − 1)``. Which of them it is the seed decides. The right answer is
    ``log p(x)/q(x)``, in nats, for every image. The heuristic sees the model: it takes the logit as it comes.

    Parameters
    ----------
    size
        Side of the images.
    n
        Images, half from each of the two.
    shift
        Distance of the two means, in standard deviations of the latents.
    """

    name: ClassVar[str] = "density-ratio"
    says: ClassVar[str] = "the optimal discriminator of two Gaussians: the log density ratio is known"
    returns: ClassVar[str] = "image-scores"
    heuristic_name: ClassVar[str] = "the raw logit"
    measures = (
        Measure(
            "concordance", "Lin's concordance with the true log ratio: correlation that minds scale, -1 to 1", 1.0, 0.0
        ),
        Measure("rank", "rank correlation with the true log ratio, -1 to 1", 1.0, 0.0),
        Measure("error", "mean |score − log ratio|, nats", 0.0, None, higher_is_better=False, slack=1e-3),
    )

    def __init__(self, size: int = 16, n: int = 128, shift: float = 1.0) -> None:
        if n < 4:
            raise InputError(f"n {n} must be at least 4, for a correlation")
        self.size, self.n, self.shift = size, n, shift

    def problem(self, seed: int) -> Problem:
        """Make both models and the discriminator, and draw images from both."""
        real = scene_model(seed, self.size, 6, 0.15, scale=0.1)
        weight = real.weight
        away = draws.normal(seed, [0], [6], stream="shift")[0].double()
        mean = real.mean + weight @ (self.shift * away / away.norm())
        generated = LinearGaussian(0.9 * weight, mean.view(real.image_shape), 0.15)
        loss = LOSSES[int(draws.integers(seed, [0], len(LOSSES), stream="loss")[0])]
        model = OptimalDiscriminator(real, generated, loss).eval()
        half = self.n // 2
        joined = Samples.concat([real.sample(self.n - half, seed), generated.sample(half, seed, start=self.n)])
        inputs = joined[draws.permutation(seed, 0, self.n, stream="mixed").tolist()]  # its place tells nothing
        return Problem(
            model,
            inputs,
            target=0,
            truth={"log_ratio": model.log_ratio(inputs.images)},
            decided={"loss": loss},
            seed=seed,
        )

    def oracle(self, problem: Problem) -> Any:
        """Return the exact ratio."""
        return ImageScores(problem.truth["log_ratio"])

    def random(self, problem: Problem) -> Any:
        """Return noise."""
        return ImageScores(draws.normal(problem.seed, range(self.n), [], stream="random-scores"))

    def heuristic(self, problem: Problem) -> Any:
        """Take the logit for the ratio, whatever the loss."""
        assert problem.model is not None  # this task's problems have one
        with torch.no_grad():
            logits = problem.model(images_of(problem).images)
        return ImageScores(logits[:, 0])

    def constant(self, problem: Problem) -> Any:
        """Return zero: every image is as likely under both."""
        return ImageScores(torch.zeros(self.n))

    def score(self, problem: Problem, answer: Any) -> dict[str, float]:
        """Compare scores with the exact ratio."""
        exact: Tensor = problem.truth["log_ratio"].double()
        if answer.scores.shape != exact.shape:
            raise InputError(f"{self.name}: {list(answer.scores.shape)} scores for {self.n} images")
        found = answer.scores.detach().double()
        return {
            "concordance": concordance(found, exact),
            "rank": rank_correlation(found, exact),
            "error": float((found - exact).abs().mean()),
        }


def concordance(a: Tensor, b: Tensor) -> float:
    """Return ``2 cov(a, b)/(var a + var b + (mean a − mean b)²)`` (Lin, Biometrics 1989)."""
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    spread = a.var(correction=0) + b.var(correction=0) + (a.mean() - b.mean()).square()
    return float(2 * covariance / spread) if float(spread) > 0 else 0.0
