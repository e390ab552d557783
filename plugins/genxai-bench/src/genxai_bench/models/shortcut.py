"""Discriminators that are known functions of a patch, of two patches, or of a colour, as convolutional networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genxai_core import Discriminator

CELL = 4
"""Pixels of an image that one position of the last convolution stands for."""

UNUSED, PAIRS = 4, 2
"""Decoy channels of the last convolution: without a weight in the logit, and in pairs whose weights cancel."""

_SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4


def saturated(values: Tensor, at: float, slope: float) -> Tensor:
    """Return s(v): v up to ±at, and beyond it with a lesser slope. Odd, piecewise linear."""
    inside = values.clamp(-at, at)
    return inside + slope * (values - inside)


Layer = TypeVar("Layer", bound=nn.Module)


@dataclass(frozen=True)
class PatchFunction:
    """f(x) = Σ_p w_p/(K τ) Σ_{cells i of patch p} s(e_i), e_i the mean over cell i of a·x: what `PatchNet` computes.

    K is the number of cells of a patch and s, which bends at ±τ, is `saturated`. A patch of pixel value 0
    adds 0.

    Parameters
    ----------
    size
        Height and width of the images.
    patch
        Side of a patch.
    places
        Top and left of each patch.
    weights
        w_p, the logit of a patch whose cells are all at τ.
    colour
        a, three numbers.
    saturation
        τ.
    slope
        Its slope beyond.
    """

    size: int
    patch: int
    places: tuple[tuple[int, int], ...]
    weights: tuple[float, ...]
    colour: tuple[float, float, float]
    saturation: float
    slope: float

    def regions(self) -> Tensor:
        """Return the patches, bool ``[P, H, W]``."""
        regions = torch.zeros(len(self.places), self.size, self.size, dtype=torch.bool)
        for region, (top, left) in zip(regions, self.places, strict=True):
            region[top : top + self.patch, left : left + self.patch] = True
        return regions

    def cell_weights(self) -> Tensor:
        """Return w_p/(K τ) in the cells of each patch, ``[P, H/4, W/4]`` in double precision."""
        cells = F.avg_pool2d(self.regions().double(), CELL)
        scale = 1 / (self.saturation * (self.patch // CELL) ** 2)
        return cells * torch.tensor(self.weights, dtype=torch.float64)[:, None, None] * scale

    def contributions(self, images: Tensor) -> Tensor:
        """Return what each patch adds to the logit, ``[N, P]`` in double precision."""
        _, evidence = self._evidence(images)
        return torch.einsum("nhw,phw->np", saturated(evidence, self.saturation, self.slope), self.cell_weights())

    def maps(self, images: Tensor) -> Tensor:
        """Return the integrated gradients from pixel value 0, summed over channels: ``[N, H, W]``, exactly.

        Along t·x the evidence of a cell is t·e, so that each pixel gets its share of a·x in what the cell adds:
        w/(K τ) · s(e)/e · a·x/16. Cells add up, so the sum over a cell is its Shapley value too.
        """
        pixels, evidence = self._evidence(images)
        quotient = saturated(evidence, self.saturation, self.slope) / torch.where(evidence == 0, 1.0, evidence)
        scale = torch.where(evidence == 0, 1.0, quotient) * self.cell_weights().sum(0) / CELL**2
        return pixels * scale.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)

    def _evidence(self, images: Tensor) -> tuple[Tensor, Tensor]:
        colour = torch.tensor(self.colour, dtype=torch.float64)
        pixels = torch.einsum("nchw,c->nhw", images.double(), colour)
        return pixels, F.avg_pool2d(pixels[:, None], CELL)[:, 0]


class PatchNet(Discriminator):
    """A `PatchFunction` as three convolutions with ReLU, 32×32 to 8×8 positions for 32 px, and a linear head.

    Beside the channels that carry the evidence there are edge detectors all over the image, as strong as they: some
    without a weight in the logit, and some in equal pairs whose weights, +v and −v at every position, cancel. The
    logit does not depend on them; a method that drops negative weights on its way sees half of a pair.

    Parameters
    ----------
    function
        What it computes.
    decoys
        v, as a multiple of the largest weight of a cell; 0 leaves the pairs without a weight.
    draw
        Where the mixtures of edges and the order of channels are drawn from.
    """

    class_names = ("evidence",)

    def __init__(self, function: PatchFunction, decoys: float, draw: np.random.Generator) -> None:
        super().__init__()
        self.image_shape = (3, function.size, function.size)
        first = _zeros(nn.Conv2d(3, 6, 3, padding=1, device="meta"))
        second = _zeros(nn.Conv2d(6, 6, 2, stride=2, device="meta"))
        third = _zeros(nn.Conv2d(6, 4 + UNUSED + 2 * PAIRS, 2, stride=2, device="meta"))
        self.features = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU())
        self.head = _zeros(nn.Linear(third.out_channels * (function.size // CELL) ** 2, 1, device="meta"))
        colour = torch.tensor(function.colour)
        with torch.no_grad():
            first.weight[:2, :, 1, 1] = torch.stack([colour, -colour])
            first.weight[2:] = _edge_kernels()
            for channel in range(6):
                second.weight[channel, channel] = 1 / 4
            for row, sign in enumerate((1.0, 1.0, -1.0, -1.0)):  # e, e − τ, −e, −e − τ
                third.weight[row, 0], third.weight[row, 1] = sign / 4, -sign / 4
            _bias(third)[[1, 3]] = -function.saturation
            third.weight[4:, 2:] = _mixtures(draw)[:, :, None, None] / 4
            bend = torch.tensor([1.0, function.slope - 1, -1.0, 1 - function.slope], dtype=torch.float64)
            cells = function.cell_weights().sum(0)
            weights = torch.cat([bend[:, None, None] * cells, _pairs(decoys * cells.abs().max(), cells)])
            _shuffled(third, weights, self.head, draw)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, 1]``."""
        logits: Tensor = self.head(self.features(images).flatten(1))
        return logits


@dataclass(frozen=True)
class ColourFunction:
    """f(x) = w·S(mean over pixels of m), m = max(0, 1 − ‖x − c‖₁/r) each pixel's membership: what `ColourNet` computes.

    S(a) = a/τ up to τ, where it bends. On an image of pixel value 0 it is 0 if ‖c‖₁ ≥ r.

    Parameters
    ----------
    size
        Height and width of the images.
    colour
        c, in pixel values.
    radius
        r.
    weight
        w, in logits.
    saturation
        τ, a share of the image.
    slope
        The slope of S beyond τ, as a fraction of that before.
    """

    size: int
    colour: tuple[float, float, float]
    radius: float
    weight: float
    saturation: float
    slope: float

    def membership(self, images: Tensor) -> Tensor:
        """Return m ``[N, H, W]`` in double precision."""
        colour = torch.tensor(self.colour, dtype=torch.float64)[:, None, None]
        return (1 - (images.double() - colour).abs().sum(1) / self.radius).clamp_min(0)

    def logits(self, images: Tensor) -> Tensor:
        """Return f ``[N]`` in double precision."""
        share = self.membership(images).mean((1, 2))
        return self.weight * saturated(share, self.saturation, self.slope) / self.saturation

    def maps(self, images: Tensor) -> Tensor:
        """Return the logit, shared in proportion to membership: ``[N, H, W]``.

        That is the Aumann-Shapley value of the memberships, which all enter the logit alike.
        """
        members = self.membership(images)
        whole = members.sum((1, 2))
        return members * (self.logits(images) / torch.where(whole == 0, 1.0, whole))[:, None, None]


class ColourNet(Discriminator):
    """A `ColourFunction` as three convolutions with ReLU and a head of two layers, with the decoys of `PatchNet`.

    Parameters
    ----------
    function
        What it computes.
    decoys
        The weight of a pair, as a multiple of that of the colour; 0 leaves the pairs without a weight.
    draw
        Where the mixtures of edges and the order of channels are drawn from.
    """

    class_names = ("colour",)

    def __init__(self, function: ColourFunction, decoys: float, draw: np.random.Generator) -> None:
        super().__init__()
        self.image_shape = (3, function.size, function.size)
        first = _zeros(nn.Conv2d(3, 10, 3, padding=1, device="meta"))
        second = _zeros(nn.Conv2d(10, 5, 1, device="meta"))
        third = _zeros(nn.Conv2d(5, 1 + UNUSED + 2 * PAIRS, CELL, stride=CELL, device="meta"))
        self.features = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU())
        cells = torch.full((function.size // CELL,) * 2, (CELL / function.size) ** 2, dtype=torch.float64)
        hidden = _zeros(nn.Linear(third.out_channels * cells.numel(), 2, device="meta"))
        last = _zeros(nn.Linear(2, 1, device="meta"))
        self.head = nn.Sequential(hidden, nn.ReLU(), last)
        colour = torch.tensor(function.colour)
        with torch.no_grad():
            for channel in range(3):  # x − c and c − x, rectified
                first.weight[channel, channel, 1, 1], first.weight[3 + channel, channel, 1, 1] = 1.0, -1.0
            _bias(first)[:6] = torch.cat([-colour, colour])
            first.weight[6:] = _edge_kernels()
            second.weight[0, :6], _bias(second)[0] = -1 / function.radius, 1.0
            for channel in range(4):
                second.weight[1 + channel, 6 + channel] = 1.0
            third.weight[0, 0] = 1 / CELL**2
            third.weight[1:, 1:] = _mixtures(draw)[:, :, None, None] / CELL**2
            weights = torch.cat([cells[None], _pairs(decoys * cells.max(), cells)])
            _shuffled(third, weights, hidden, draw)
            _bias(hidden)[1] = -function.saturation
            scale = function.weight / function.saturation
            last.weight[0] = torch.tensor([scale, (function.slope - 1) * scale])
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, 1]``."""
        logits: Tensor = self.head(self.features(images).flatten(1))
        return logits


def _zeros(layer: Layer) -> Layer:
    """Give a layer without storage weights of zero: made so, it draws nothing from the global generator."""
    layer = layer.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    return layer


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _edge_kernels() -> Tensor:
    """Sobel kernels of brightness in four directions, ``[4, 3, 3, 3]``."""
    kernels = torch.stack([_SOBEL, -_SOBEL, _SOBEL.T, -_SOBEL.T])
    return (kernels[:, None] / 3).expand(4, 3, 3, 3)


def _mixtures(draw: np.random.Generator) -> Tensor:
    """How much of each edge direction a decoy takes, ``[UNUSED + 2 PAIRS, 4]``; the two of a pair take the same."""
    rows = torch.from_numpy(draw.uniform(0.5, 1.5, (UNUSED + PAIRS, 4)))
    return torch.cat([rows[:UNUSED], rows[UNUSED:].repeat_interleave(2, 0)]).float()


def _pairs(weight: Tensor, cells: Tensor) -> Tensor:
    """Weights of the decoys at each cell, ``[UNUSED + 2 PAIRS, h, w]``: none, then +v and −v."""
    signs = torch.tensor([0.0] * UNUSED + [1.0, -1.0] * PAIRS, dtype=cells.dtype)
    return signs[:, None, None] * weight * torch.ones_like(cells)


def _shuffled(third: nn.Conv2d, weights: Tensor, head: nn.Linear, draw: np.random.Generator) -> None:
    """Give the last channels a drawn order, and the head its weights ``[K, h, w]`` in that order."""
    order = torch.from_numpy(draw.permutation(third.out_channels))
    third.weight.copy_(third.weight[order].clone())
    _bias(third).copy_(_bias(third)[order].clone())
    head.weight.copy_(weights[order].flatten().expand_as(head.weight))
