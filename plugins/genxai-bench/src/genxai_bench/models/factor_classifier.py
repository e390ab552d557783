"""Two-class classifiers over the factors of an image whose least change to the other class is known in closed form."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from genxai_core import Discriminator, draws
from genxai_core.errors import InputError

Kind = Literal["linear", "quadratic"]

CELLS = 4
"""An image is 4 x 4 cells; each mark has one of its own."""

GAIN = 4.0
RADIUS = 0.8
OVER = 1e-3
"""How far past the boundary, as a share of the way, the exact counterfactual goes: the boundary is of neither class."""


class FactorClassifier(Discriminator):
    """Tells ``target`` from ``other`` by M factors f = P x: how strongly each of M marks shows in its cell.

    A mark is a faint coloured wave p_i of unit length and mean 0 that fills one of the image's 4 x 4 cells. The first
    layer, ``marks``, is a convolution with the marks as kernels and the cell as stride, ``[N, M, 4, 4]``; the
    classifier reads channel i at cell i. Cells do not overlap, so P has orthonormal rows. The logits are (−g/2, g/2):

    - ``linear``: g = 4·⟨α, f⟩, |α| = 1. The least change to g = 0 is along w = Pᵀα alone: δ = −⟨α, f⟩ w.
    - ``quadratic``: g = 4·(r² − |f − c|²), r = 0.8: the target class is a ball of factors around c. From outside, the
      least change goes straight towards c as far as the ball: δ = −(1 − r/|f − c|) Pᵀ(f − c).

    Parameters
    ----------
    kind
        ``linear`` or ``quadratic``.
    marks
        How many factors M, 1 to 16.
    size
        Height and width: a multiple of 4, at least 24.
    seed
        Of the marks, their cells, and α or c.

    Raises
    ------
    InputError
        If one of them is out of bounds.
    """

    class_names = ("other", "target")

    def __init__(self, kind: Kind = "linear", marks: int = 4, size: int = 32, seed: int = 0) -> None:
        super().__init__()
        if kind not in ("linear", "quadratic"):
            raise InputError(f"kind {kind!r} is not linear or quadratic")
        if not 1 <= marks <= CELLS**2:
            raise InputError(f"marks {marks} must be 1 to {CELLS**2}: each has a cell of its own")
        if size < 24 or size % CELLS:
            raise InputError(f"size {size} must be a multiple of {CELLS}, at least 24")
        self.kind, self.image_shape = kind, (3, size, size)
        cell = size // CELLS
        kernels = torch.stack([_mark(seed, i, cell) for i in range(marks)])
        self.cells = [divmod(int(c), CELLS) for c in draws.permutation(seed, 0, CELLS**2, "cells")[:marks]]
        signs = 1 - 2 * draws.integers(seed, range(marks), 2, "signs").double()
        at = signs * (0.6 + 0.4 * draws.uniform(seed, [0], (marks,), "strengths")[0].double())
        self.centre = at / at.norm() if kind == "linear" else at
        self.patterns = torch.zeros(marks, 3, size, size, dtype=torch.float64)
        read = torch.zeros(marks, CELLS, CELLS)
        for i, (row, column) in enumerate(self.cells):
            self.patterns[i, :, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = kernels[i]
            read[i, row, column] = 1
        self.marks = nn.Conv2d(3, marks, cell, stride=cell, bias=False)
        with torch.no_grad():
            self.marks.weight.copy_(kernels)
        self.register_buffer("read", read)
        self.register_buffer("at", self.centre.float())

    read: Tensor
    at: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, 2]``."""
        factors = (self.marks(images) * self.read).sum((2, 3))
        if self.kind == "linear":
            gap = GAIN * (factors * self.at).sum(1)
        else:
            gap = GAIN * (RADIUS**2 - (factors - self.at).square().sum(1))
        return torch.stack([-gap / 2, gap / 2], 1)

    # -- the truth, in double precision -----------------------------------------------------------------------------

    def factors(self, images: Tensor) -> Tensor:
        """Return f = P x, ``[N, M]``."""
        return images.double().flatten(1) @ self.patterns.flatten(1).T

    def gap(self, images: Tensor) -> Tensor:
        """Return g, the logit of ``target`` less that of ``other``, ``[N]``."""
        factors = self.factors(images)
        if self.kind == "linear":
            return GAIN * (factors @ self.centre)
        return GAIN * (RADIUS**2 - (factors - self.centre).square().sum(1))

    def least_change(self, images: Tensor) -> Tensor:
        """Return δ of least length ``[N, 3, size, size]`` with g(x + δ) = 0, for images of the class ``other``."""
        factors = self.factors(images)
        if self.kind == "linear":
            step = -(factors @ self.centre)[:, None] * self.centre
        else:
            away = factors - self.centre
            step = -(1 - RADIUS / away.norm(dim=1, keepdim=True)) * away
        return torch.einsum("nm,mchw->nchw", step, self.patterns)

    def on_target(self, change: Tensor) -> Tensor:
        """Return what of a change ``[N, 3, size, size]`` the classifier can read: its part along w, or in P's rows."""
        basis = self.patterns.flatten(1)
        if self.kind == "linear":
            basis = (self.centre @ basis)[None]
        flat = change.double().flatten(1)
        return (flat @ basis.T @ basis).view_as(change)

    def with_factors(self, images: Tensor, factors: Tensor) -> Tensor:
        """Return images with their factors set to ``[N, M]``, changed along the marks and nowhere else, in single."""
        step = factors.double() - self.factors(images)
        return (images.double() + torch.einsum("nm,mchw->nchw", step, self.patterns)).float()


def _mark(seed: int, index: int, cell: int) -> Tensor:
    """Return a wave of 1 to 3 half periods, across or down, in a colour: ``[3, cell, cell]``, length 1, mean 0."""
    g = draws.generator(seed, index, "mark")
    place = math.pi * (torch.arange(cell, dtype=torch.float64) + 0.5) / cell
    wave = torch.cos(int(g.integers(1, 4)) * place).expand(cell, cell)
    colour = torch.from_numpy(g.uniform(0.5, 1.0, 3) * g.choice([-1.0, 1.0], 3))
    mark = colour[:, None, None] * (wave.T if g.integers(2) else wave)
    unit: Tensor = mark / mark.norm()
    return unit
