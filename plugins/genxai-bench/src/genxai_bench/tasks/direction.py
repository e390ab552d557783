"""Planted direction: latents are a known mixture of what is seen, so the direction of each factor is known."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from genxai_core import Direction, Samples, draws
from genxai_core.errors import InputError

from ..models.factor_generator import FACTORS, FactorGenerator
from ..task import Measure, Problem, Task

Labels = Literal["orthogonal", "correlated", "spurious"]


class PlantedDirection(Task):
    """Find the latent direction of each factor of a `FactorGenerator`, from samples with their latents.

    The factors are f = M z. **The truth is v_k, the k-th column of the pseudo-inverse M⁺ made of unit length**: since
    M M⁺ = I, moving along it changes factor k and no other, and nothing else in the picture. It is not the
    gradient of the factor, the k-th row of M, which climbs fastest but takes along every factor whose row is not
    orthogonal to it; the two are the same only where M's rows are orthonormal.

    The problem's inputs are n samples: images, latents, the factors as they are seen (monotone in f, not linear), and
    labels that say whether one of the factors is above its median. What is judged is a `Direction` with the names of
    the factors (``problem.decided["names"]``); a factor without a direction counts as cosine 0 and leakage 1, and
    directions of other names are not looked at.

    With ``labels="correlated"``, the rows of M have a cosine of ``cosine``: the factors correlate in everything that
    the generator draws, and the difference of the class means tends to the row of M, whose cosine with the truth is
    1/√(G⁻¹)_kk, G = M Mᵀ. With ``labels="spurious"``, M is orthonormal but the factors come in pairs (drawn by the
    seed) that agree in sign in ``rate`` of the given samples: the generator knows nothing of that, the samples were
    selected so. The difference of the class means then tends to a cosine of 1/√(1 + (2·rate − 1)²).

    Parameters
    ----------
    labels
        ``orthogonal``, ``correlated`` or ``spurious``: what the samples' factors have to do with one another.
    dimensions
        Length of the latents: 16, or 128 for the harder case.
    n
        How many samples are given. A mean over them is right to about √(dimensions / n).
    size
        Height and width of the images.
    cosine
        Of the factors' rows where correlated: 0 to below 1.
    rate
        Share of samples in which a pair's signs agree where spurious; 0.5 is no relation at all.

    Raises
    ------
    ValueError
        If a parameter is out of bounds.
    """

    name = "planted-direction"
    says = "latents x an orthonormal mixing -> factors; find the direction that changes one factor and no other"
    explains = "HasLatents"
    returns = "direction"
    heuristic_name = "difference of class means"
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("cosine", "mean signed cosine with the true directions, -1 to 1", 1.0, 0.0, near=0.15),
        Measure(
            "leakage",
            "share of the change in factors that goes to others than the named one, 0 to 1",
            0.0,
            1 - 1 / len(FACTORS),
            higher_is_better=False,
        ),
    )

    def __init__(
        self,
        labels: Labels = "orthogonal",
        dimensions: int = 16,
        n: int = 256,
        size: int = 32,
        cosine: float = 0.6,
        rate: float = 0.9,
    ) -> None:
        if labels not in ("orthogonal", "correlated", "spurious"):
            raise ValueError(f"labels {labels!r} is not orthogonal, correlated or spurious")
        if n < 8:
            raise ValueError(f"n {n} must be at least 8")
        if not 0 <= cosine < 1:
            raise ValueError(f"cosine {cosine} must be at least 0 and below 1")
        if not 0.5 <= rate <= 1:
            raise ValueError(f"rate {rate} must be 0.5 to 1")
        FactorGenerator(dimensions, size)  # refuses what it cannot be
        self.labels, self.cosine, self.rate = labels, cosine, rate
        self.dimensions, self.n, self.size = dimensions, n, size

    def problem(self, seed: int) -> Problem:
        """Turn the latent space at random, draw samples, label them by a factor of the seed's choice."""
        cosine = self.cosine if self.labels == "correlated" else 0.0
        model = FactorGenerator(self.dimensions, self.size, cosine, seed).eval()
        mixing = model.exact_mixing
        latents = model.sample_latents(self.n, seed)
        if self.labels == "spurious":
            latents = self._selected(latents, mixing, seed)
        samples = model.samples(latents)
        labelled = int(draws.integers(seed, [0], len(FACTORS), "labelled")[0])
        column = cast(Tensor, samples.factors)[:, labelled]
        named = FACTORS[labelled]
        inputs = Samples(
            samples.images,
            latents,
            (column > column.median()).long(),
            factors=samples.factors,
            value_range=samples.value_range,
            class_names=(f"less {named}", f"more {named}"),
            factor_names=FACTORS,
        )
        directions = torch.linalg.pinv(mixing).T
        truth = {"mixing": mixing, "directions": directions / directions.norm(dim=1, keepdim=True)}
        return Problem(model, inputs, truth=truth, decided={"names": FACTORS}, seed=seed)

    def _selected(self, latents: Tensor, mixing: Tensor, seed: int) -> Tensor:
        """Make the factors of each pair agree in sign in a share of the samples, by mirroring the second."""
        pairs = draws.permutation(seed, 0, len(FACTORS), "pairs").reshape(-1, 2)
        agree = draws.uniform(seed, range(self.n), (len(pairs),), "agree") < self.rate
        z = latents.double()
        for j, (first, second) in enumerate(pairs):
            f, g = z @ mixing[first], z @ mixing[second]
            mirrored = ((f > 0) == (g > 0)) != agree[:, j]
            z = z - 2 * (mirrored * g)[:, None] * mixing[second]  # an orthonormal row: only this factor changes
        return z.float()

    def oracle(self, problem: Problem) -> Direction:
        """Answer with the columns of the pseudo-inverse."""
        return _direction(problem.truth["directions"])

    def random(self, problem: Problem) -> Direction:
        """Answer with independent directions, uniform on the sphere."""
        return _direction(draws.normal(problem.seed, range(len(FACTORS)), (self.dimensions,), "random-direction"))

    def heuristic(self, problem: Problem) -> Direction:
        """Answer with the mean latent of the samples above each factor's median less that of the others."""
        inputs = cast(Samples, problem.inputs)
        latents, factors = cast(Tensor, inputs.latents).double(), cast(Tensor, inputs.factors)
        above = factors > factors.median(0).values
        return _direction(torch.stack([latents[a].mean(0) - latents[~a].mean(0) for a in above.T]))

    def constant(self, problem: Problem) -> Direction:
        """Answer with the diagonal of the latent space for every factor."""
        return _direction(torch.ones(len(FACTORS), self.dimensions))

    def score(self, problem: Problem, answer: Any) -> dict[str, float]:
        """Judge the directions that are named after factors."""
        if not isinstance(answer, Direction):
            raise InputError(f"{self.name} judges a Direction, not {type(answer).__name__}")
        if list(answer.vectors.shape[1:]) != [self.dimensions]:
            raise InputError(f"the vectors are {list(answer.vectors.shape)}, the latents [{self.dimensions}]")
        known = [name for name in answer.names if name in FACTORS]
        if not known:
            raise InputError(f"no direction is named after a factor ({', '.join(FACTORS)}); there are {answer.names}")
        rows = [answer.names.index(name) for name in known]
        columns = [FACTORS.index(name) for name in known]
        vectors = answer.vectors.detach().cpu().double()[rows]
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
        cosines = (vectors * problem.truth["directions"][columns]).sum(1)
        matrix = leakage_matrix(problem.truth["mixing"], vectors)
        kept = matrix[range(len(known)), columns]
        missing = len(FACTORS) - len(known)
        leakage = (float((1 - kept).sum()) + missing) / len(FACTORS)
        return {"cosine": float(cosines.sum()) / len(FACTORS), "leakage": leakage}


class CorrelatedDirection(PlantedDirection):
    """`PlantedDirection` with factors that correlate: the gradient of a factor is not the way to change it alone.

    Parameters
    ----------
    dimensions, n, size, cosine
        As for `PlantedDirection`.
    """

    name = "planted-direction-correlated"
    says = "latents x a mixing of correlated rows -> factors; find the direction that changes one factor and no other"

    def __init__(self, dimensions: int = 16, n: int = 256, size: int = 32, cosine: float = 0.6) -> None:
        super().__init__("correlated", dimensions, n, size, cosine=cosine)


class SpuriousDirection(PlantedDirection):
    """`PlantedDirection` on samples in which factors co-occur that the generator keeps apart.

    Parameters
    ----------
    dimensions, n, size, rate
        As for `PlantedDirection`.
    """

    name = "planted-direction-spurious"
    says = "an orthonormal mixing, but samples in which factors co-occur; find the direction that changes one alone"

    def __init__(self, dimensions: int = 16, n: int = 256, size: int = 32, rate: float = 0.9) -> None:
        super().__init__("spurious", dimensions, n, size, rate=rate)


def leakage_matrix(mixing: Tensor, vectors: Tensor) -> Tensor:
    """Return how the change along each direction spreads over the factors, ``[D, K]``, rows that add up to 1.

    L_ij = |(M v_i)_j| / Σ_j |(M v_i)_j|; a row of zeros for a direction that changes no factor. The truth gives the
    identity, and 1 less the entry of the named factor is its leakage.

    Parameters
    ----------
    mixing
        ``[K, d]``.
    vectors
        ``[D, d]``.
    """
    effects = (vectors @ mixing.T).abs()
    total = effects.sum(1, keepdim=True)
    return torch.where(total > 0, effects / total.clamp_min(torch.finfo(total.dtype).tiny), torch.zeros_like(effects))


def _direction(vectors: Tensor) -> Direction:
    return Direction((vectors / vectors.norm(dim=1, keepdim=True)).float(), FACTORS)
