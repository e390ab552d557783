"""E[z | x] of linear-Gaussian images, exactly: what an encoder should find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genxai_core import draws
from genxai_core.errors import InputError

from ..task import Measure, Problem, Task
from .density import images_of, scene_model

FITTED, JUDGED = 512, 256


class Encoder(nn.Module):
    """Any function as an encoder."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def encode(self, images: Tensor) -> Tensor:
        """Return ``[N, …]``."""
        return self.function(images)


class Posterior(Task):
    """An encoder is trained on images that few latents draw; what the images tell of these latents is known exactly.

    A trainer is given images and makes a model with ``encode(images)``. Latents are only determined up to an invertible
    map, so that its codes are taken through the best linear map to the exact ``E[z | x]``, fitted on 512 images, and
    judged on 256 others: the share of the variance that is explained.

    Parameters
    ----------
    size
        Side of the images, 16 at least.
    n
        Images to train on.
    latents
        How many latents drew the images.
    sigma
        The noise of each pixel.
    """

    name: ClassVar[str] = "posterior"
    says: ClassVar[str] = "images that few latents draw: the posterior mean of the latents is known"
    subject = "trainer"
    explains: ClassVar[str] = "HasEncoder"
    returns: ClassVar[str] = ""
    heuristic_name: ClassVar[str] = "as many pixels"
    measures = (
        Measure("explained", "R² of the best linear map from codes to the posterior mean, at most 1", 1.0, 0.0),
        Measure("worst", "R² of the latent that is explained least", 1.0, 0.0),
    )

    def __init__(self, size: int = 16, n: int = 1024, latents: int = 8, sigma: float = 0.3) -> None:
        self.size, self.n, self.latents, self.sigma = size, n, latents, sigma

    def problem(self, seed: int) -> Problem:
        """Make the model about a scene, draw the data, and the images to judge by."""
        exact = scene_model(seed, self.size, self.latents, self.sigma)
        judged = exact.sample(FITTED + JUDGED, seed, start=self.n).images
        return Problem(None, exact.sample(self.n, seed), truth={"exact": exact, "images": judged}, seed=seed)

    def oracle(self, problem: Problem) -> Any:
        """Return the exact posterior mean."""
        return problem.truth["exact"]

    def random(self, problem: Problem) -> Any:
        """Return noise."""
        return Encoder(
            lambda images: draws.normal(problem.seed, range(len(images)), [self.latents], stream="random-codes")
        )

    def heuristic(self, problem: Problem) -> Any:
        """Return the pixels that vary most, as many as there are latents."""
        chosen = images_of(problem).images.flatten(1).var(0).argsort(descending=True)[: self.latents]
        return Encoder(lambda images: images.flatten(1)[:, chosen])

    def constant(self, problem: Problem) -> Any:
        """Return zeros."""
        return Encoder(lambda images: torch.zeros(len(images), self.latents))

    def score(self, problem: Problem, answer: Any) -> dict[str, float]:
        """Fit the linear map on some images and judge it on others."""
        if not hasattr(answer, "encode"):
            raise InputError(f"{self.name}: a {type(answer).__name__} has no encode(images)")
        images: Tensor = problem.truth["images"]
        with torch.no_grad():
            exact = problem.truth["exact"].encode(images).double()
            codes = answer.encode(images)
        if not isinstance(codes, Tensor) or len(codes) != len(images):
            raise InputError(f"{self.name}: encode returned {getattr(codes, 'shape', codes)}, not [{len(images)}, …]")
        codes = torch.cat([codes.double().flatten(1), torch.ones(len(codes), 1, dtype=torch.float64)], 1)
        # rank-deficient codes (constants) are met by the least-squares solution of least norm
        fitted = torch.linalg.lstsq(codes[:FITTED], exact[:FITTED], driver="gelsd").solution
        residual = (codes[FITTED:] @ fitted - exact[FITTED:]).square()
        spread = (exact[FITTED:] - exact[FITTED:].mean(0)).square()
        return {
            "explained": float(1 - residual.sum() / spread.sum()),
            "worst": float((1 - residual.sum(0) / spread.sum(0)).min()),
        }
