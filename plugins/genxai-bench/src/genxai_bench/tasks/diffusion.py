"""Diffusion of a Gaussian mixture: how far a trained model's noise prediction is from the exact one, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import genxai_core as gx
from genxai_core import draws
from genxai_core.errors import InputError

from ..models.mixture import STEPS, Mixture
from ..task import Measure, Problem, Task

TIMES = (20, 100, 400)
HELD_OUT = 64


class Predictor(nn.Module):
    """A noise prediction that is any function of x_t and t."""

    prediction_type = "epsilon"

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the prediction."""
        return self.function(x_t, t)


class NoisePrediction(Task):
    """A diffusion model is trained on draws from a mixture of Gaussians, whose noise prediction is known exactly.

    A trainer is given images and makes a model with ``predict(x_t, t)``. It says what it predicts in
    ``prediction_type`` (``epsilon``, ``sample`` or ``v_prediction``; without it the noise) and its schedule in
    ``alphas_cumprod`` (without it DDPM's linear one). What it is held to is `E[ε | x_t]`, not the noise that happened
    to be drawn: the exact model has error 0.

    The heuristic is strong where there is much noise, for then x_t is almost the noise itself. The errors at each step
    tell more than the mean.

    Parameters
    ----------
    size
        Side of the images, 16 at least.
    n
        Images to train on.
    components
        K.
    sigma
        Standard deviation about each component's mean.
    """

    name: ClassVar[str] = "noise-prediction"
    says: ClassVar[str] = "a mixture of Gaussians under diffusion: the noise to predict is known at every step"
    subject = "trainer"
    explains: ClassVar[str] = "Denoises"
    returns: ClassVar[str] = ""
    heuristic_name: ClassVar[str] = "the noised image itself"
    measures = (
        Measure("agreement", "mean cosine of predicted and exact noise over three steps, -1 to 1", 1.0, 0.0),
        *(
            Measure(
                f"error-{t}", f"‖predicted − exact‖/‖exact‖ at step {t} of {STEPS}", 0.0, None, higher_is_better=False
            )
            for t in TIMES
        ),
    )

    def __init__(self, size: int = 16, n: int = 512, components: int = 4, sigma: float = 0.1) -> None:
        self.size, self.n, self.components, self.sigma = size, n, components, sigma

    def problem(self, seed: int) -> Problem:
        """Make the mixture about K scenes, and draw the data."""
        scenes = gx.create("dataset/scenes", n=self.components, size=self.size, seed=seed)[:]
        mixture = Mixture(0.7 * scenes.images, self.sigma).eval()
        return Problem(None, mixture.sample(self.n, seed), truth={"mixture": mixture}, seed=seed)

    def oracle(self, problem: Problem) -> Any:
        """Return the mixture's own prediction."""
        return problem.truth["mixture"]

    def random(self, problem: Problem) -> Any:
        """Return noise that has nothing to do with the image."""

        def drawn(x_t: Tensor, t: Tensor) -> Tensor:
            return draws.normal(problem.seed, range(len(x_t)), x_t.shape[1:], stream="random-noise")

        return Predictor(drawn)

    def heuristic(self, problem: Problem) -> Any:
        """Take the noised image for the noise."""
        return Predictor(lambda x_t, t: x_t)

    def constant(self, problem: Problem) -> Any:
        """Return zero."""
        return Predictor(lambda x_t, t: torch.zeros_like(x_t))

    def score(self, problem: Problem, answer: Any) -> dict[str, float]:
        """Compare predictions with the exact ones, on images held out."""
        mixture: Mixture = problem.truth["mixture"]
        if not hasattr(answer, "predict"):
            raise InputError(f"{self.name}: a {type(answer).__name__} has no predict(x_t, t)")
        images = mixture.sample(HELD_OUT, problem.seed, start=self.n).images
        cosines, found = [], {}
        for step in TIMES:
            t = torch.full((HELD_OUT,), step)
            x_t = mixture.noised(images, t, problem.seed)
            exact = mixture.predict(x_t, t).double().flatten(1)
            predicted = noise_of(answer, x_t, t).double().flatten(1)
            if predicted.shape != exact.shape:
                raise InputError(f"{self.name}: predict returned {list(predicted.shape)} for {list(exact.shape)}")
            cosines.append(torch.cosine_similarity(predicted, exact, dim=1).mean())
            found[f"error-{step}"] = float((predicted - exact).norm() / exact.norm())
        return {"agreement": float(torch.stack(cosines).mean()), **found}


def noise_of(model: Any, x_t: Tensor, t: Tensor) -> Tensor:
    """Return a model's noise prediction, whatever it predicts.

    Raises
    ------
    InputError
        If its ``prediction_type`` is unknown, or its schedule is not the one that the images were noised by.
    """
    with torch.no_grad():
        output: Tensor = model.predict(x_t, t)
    kind = getattr(model, "prediction_type", "epsilon")
    levels = Mixture(x_t[:1], 1.0).alphas_cumprod
    own = getattr(model, "alphas_cumprod", levels)
    if len(own) != len(levels) or not torch.allclose(own.double().cpu(), levels, atol=1e-5):
        raise InputError(
            f"noise-prediction: the model's schedule is not DDPM's linear one over {STEPS} steps; use that"
        )
    level = levels[t].view(-1, 1, 1, 1).to(x_t.dtype)
    signal, noise = level.sqrt(), (1 - level).sqrt()
    known: dict[str, Tensor] = {
        "epsilon": output,
        "sample": (x_t - signal * output) / noise,
        "v_prediction": signal * output + noise * x_t,
    }
    if kind in known:
        return known[kind]
    raise InputError(f"noise-prediction: prediction_type {kind!r} is not one of epsilon, sample, v_prediction")
