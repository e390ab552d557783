"""LIME and KernelSHAP: a linear model of the logit over the cells of an image."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genxai_core import Discriminator, draws
from genxai_core.errors import InputError

from .baselines import Baseline, Reference
from .coalitions import cells, spread, values
from .maps import Call, Maps


class Lime(Maps):
    """Ridge regression of the logit on which cells are kept: min_w Σ_s π_s (f(x_s) − w₀ − w·z_s)² + λ‖w‖².

    z_s ∈ {0, 1}^F says which of the F = grid² cells of sample s are the image's, the others being the baseline's; kept
    or not with probability ½, the first sample all kept. π_s = exp(−d²/ρ²)^½ with ρ = 0.25 and d = 1 − √(|z_s|/F), the
    cosine distance to the whole image, as in the authors' code for images. Maps ``[N, H, W]``, in logits: each cell's
    weight, shared by its pixels. It explains the logit; the authors' code explains probabilities, which over a single
    logit are constant. Samples are the same for all images and pass in batches; one factorisation fits all images.

    Parameters
    ----------
    grid
        Cells on each side.
    samples
        Perturbed images per image. Cost: as many forwards.
    ridge
        λ, at least 0; 1 in the authors' code.
    baseline
        What a cell is replaced by: ``zero``, ``low``, ``mid``, ``mean``, ``blur``, ``noise``, a tensor, or a component
        with ``baseline(images)``.

    Raises
    ------
    ValueError
        If a parameter is out of range, or there are not more samples than cells.

    References
    ----------
    M. Ribeiro, S. Singh, C. Guestrin, "Why Should I Trust You?", KDD 2016 (arXiv:1602.04938), section 3.
    """

    stochastic = True

    def __init__(self, grid: int = 8, samples: int = 1000, ridge: float = 1.0, baseline: Baseline = "mid") -> None:
        _require(grid, samples)
        if not ridge >= 0:
            raise ValueError(f"ridge {ridge} must be at least 0")
        self.grid, self.samples, self.ridge = grid, samples, ridge
        self.baseline = baseline
        self._of = Reference(baseline)

    def _reference(self) -> Reference:
        return self._of

    def _notes(self) -> dict[str, Any]:
        return {"grid": self.grid, "samples": self.samples}

    def _maps(self, model: Discriminator, images: Tensor, target: int, call: Call) -> Tensor:
        of = cells(self.grid, *images.shape[2:])
        features = self.grid**2
        z = torch.stack([_half(call.seed, s, features) for s in range(self.samples)])
        z[0] = True
        baseline = self._of(images, model.value_range, call.seed)
        outcome = values(model, images, baseline, z[:, of], target, call)
        distance = 1 - (z.double().mean(1)).sqrt()
        weights = torch.exp(-(distance**2) / 0.25**2).sqrt().to(outcome.device)
        x = z.double().to(outcome.device)
        x = x - (weights @ x) / weights.sum()  # the intercept is not penalised
        y = outcome - (outcome @ weights / weights.sum())[:, None]
        normal = (x.T * weights) @ x + self.ridge * torch.eye(features, dtype=x.dtype, device=x.device)
        fitted = torch.linalg.solve(normal, (x.T * weights) @ y.T).T
        return spread(fitted, of).to(images.dtype)


class KernelShap(Maps):
    """Shapley values of the cells by weighted least squares, under the constraint that they sum to f(x) − f(b).

    min_φ Σ_z π(z) (f(x_z) − f(b) − φ·z)² over sets z of the F = grid² cells, π(z) ∝ 1 / (C(F, |z|) |z| (F − |z|)).
    Where ``samples`` suffices for all 2^F − 2 sets (grid 2: 14; grid 3: 510) they are enumerated and the values are
    **exact**; else sets are drawn from π, each with its complement, the same for all images. Maps ``[N, H, W]``, in
    logits: each cell's value, shared by its pixels. The sum is exact by construction, so ``delta`` says nothing of the
    error of sampling. It sees the logit, never a softmax over one value.

    Parameters
    ----------
    grid
        Cells on each side.
    samples
        Perturbed images per image. Cost: as many forwards.
    baseline
        What a cell is replaced by: ``zero``, ``low``, ``mid``, ``mean``, ``blur``, ``noise``, a tensor, or a component
        with ``baseline(images)``.

    Raises
    ------
    ValueError
        If a parameter is out of range, or there are not twice as many samples as cells.

    References
    ----------
    S. Lundberg, S.-I. Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017 (arXiv:1705.07874),
    theorem 2. Pairs: I. Covert, S.-I. Lee, "Improving KernelSHAP", AISTATS 2021 (arXiv:2012.01536), section 4.
    """

    stochastic = True
    complete = True

    def __init__(self, grid: int = 8, samples: int = 1024, baseline: Baseline = "mid") -> None:
        _require(grid, samples, factor=2)
        self.grid, self.samples = grid, samples
        self.baseline = baseline
        self._of = Reference(baseline)

    def _reference(self) -> Reference:
        return self._of

    def _notes(self) -> dict[str, Any]:
        sets = 2 ** (self.grid**2) - 2
        return {"grid": self.grid, "samples": min(self.samples, sets), "exact": self.samples >= sets}

    def _maps(self, model: Discriminator, images: Tensor, target: int, call: Call) -> Tensor:
        of = cells(self.grid, *images.shape[2:])
        features = self.grid**2
        z, weights = _sets(features, self.samples, call.seed)
        baseline = self._of(images, model.value_range, call.seed)
        ends = torch.tensor([[False], [True]]).expand(2, features)
        outcome = values(model, images, baseline, torch.cat([ends, z])[:, of], target, call)
        empty, gap = outcome[:, :1], outcome[:, 1] - outcome[:, 0]
        x, weights = z.double().to(outcome.device), weights.to(outcome.device)
        normal = (x.T * weights) @ x
        if int(torch.linalg.matrix_rank(normal, hermitian=True)) < features:
            raise InputError(f"kernel-shap: {self.samples} samples leave {features} cells undetermined; raise samples")
        moment = (x.T * weights) @ (outcome[:, 2:] - empty).T
        ones = torch.ones(features, 1, dtype=x.dtype, device=x.device)
        free, pull = torch.linalg.solve(normal, torch.cat([moment, ones], 1)).split([len(images), 1], 1)
        fitted = free - pull * (free.sum(0) - gap) / pull.sum()  # Lagrange: the values sum to the gap
        return spread(fitted.T, of).to(images.dtype)


def _require(grid: int, samples: int, factor: int = 1) -> None:
    if grid < 2:
        raise ValueError(f"grid {grid} must be at least 2")
    if samples <= factor * grid**2 and samples < 2 ** (grid**2) - 2:
        raise ValueError(f"samples {samples} must be more than {factor * grid**2} for {grid} x {grid} cells")


def _half(seed: int, index: int, features: int) -> Tensor:
    return torch.from_numpy(draws.generator(seed, index, "lime").random(features) < 0.5)


def _sets(features: int, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sets of cells, neither none nor all ``[S, F]``, and their weights ``[S]``."""
    inner = np.arange(1, features)
    kernel = 1 / (inner * (features - inner))  # of all sets of a size together, up to a constant
    if 2**features - 2 <= samples:
        z = torch.tensor(list(product((False, True), repeat=features))[1:-1])
        sizes = z.sum(1)
        number = torch.bincount(sizes, minlength=features)[sizes]
        return z, torch.from_numpy(kernel)[sizes - 1] / number
    rows = []
    for index in range(samples // 2):
        drawn = draws.generator(seed, index, "kernel-shap")
        size = int(drawn.choice(inner, p=kernel / kernel.sum()))
        row = torch.zeros(features, dtype=torch.bool)
        row[torch.from_numpy(drawn.permutation(features)[:size])] = True
        rows += [row, ~row]
    return torch.stack(rows), torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
