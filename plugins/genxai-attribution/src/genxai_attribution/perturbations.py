"""Occlusion and sampled Shapley values: what the logit loses without a part of the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genxai_core import Discriminator, draws
from genxai_core.errors import InputError

from .baselines import Baseline, Reference
from .coalitions import cells, spread, values
from .maps import Call, Maps


class Occlusion(Maps):
    """Drop of the logit when a window is replaced by the baseline: a(p) = mean over windows W ∋ p of f(x) − f(x_W←b).

    Maps ``[N, H, W]``, in logits: positive where hiding lowers the logit. Windows cover all channels; the last of each
    row is moved back so that it ends at the border. Cost: one forward per window. As captum's, with channels together.

    Parameters
    ----------
    window
        Side of the window in pixels; None is an eighth of the image's shorter side.
    stride
        Step of the window in pixels, at most ``window``; None is half of the window.
    baseline
        What the window is filled with: ``zero``, ``low``, ``mid``, ``mean``, ``blur``, ``noise``, a tensor, or a
        component with ``baseline(images)``.

    Raises
    ------
    ValueError
        If a size is out of range.

    References
    ----------
    M. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014 (arXiv:1311.2901), section
    4.2.
    """

    def __init__(self, window: int | None = None, stride: int | None = None, baseline: Baseline = "mid") -> None:
        if window is not None and window < 1:
            raise ValueError(f"window {window} must be at least 1")
        if stride is not None and (stride < 1 or (window is not None and stride > window)):
            raise ValueError(f"stride {stride} must be at least 1 and at most window, else pixels are never hidden")
        self.window, self.stride = window, stride
        self.baseline = baseline
        self._of = Reference(baseline)

    def _reference(self) -> Reference:
        return self._of

    def _sizes(self, height: int, width: int) -> tuple[int, int]:
        window = self.window or max(1, min(height, width) // 8)
        stride = self.stride or max(1, window // 2)
        if window > min(height, width) or stride > window:
            raise InputError(f"window {window} with stride {stride} does not fit an image of {height} x {width} pixels")
        return window, stride

    def _maps(self, model: Discriminator, images: Tensor, target: int, call: Call) -> Tensor:
        height, width = images.shape[2:]
        window, stride = self._sizes(height, width)
        starts = [sorted({*range(0, side - window, stride), side - window}) for side in (height, width)]
        hidden = torch.zeros(len(starts[0]) * len(starts[1]), height, width, dtype=torch.bool)
        for mask, (top, left) in zip(hidden, ((y, x) for y in starts[0] for x in starts[1]), strict=True):
            mask[top : top + window, left : left + window] = True
        whole = torch.ones(1, height, width, dtype=torch.bool)
        outcome = values(
            model,
            images,
            self._of(images, model.value_range, call.seed),
            torch.cat([whole, ~hidden]),
            target,
            call,
        )
        drop = outcome[:, :1] - outcome[:, 1:]
        covering = hidden.to(drop)
        return (torch.einsum("ns,shw->nhw", drop, covering) / covering.sum(0)).to(images.dtype)


class ShapleySampling(Maps):
    """Shapley values of the cells, by random orders: a_i = mean over orders of f(x_{before i, i}) − f(x_{before i}).

    The cells of the image replace those of the baseline one by one, in an order drawn from the seed, the same for all
    images; what each adds is its value in that order. Maps ``[N, H, W]``, in logits: each cell's value, shared by its
    pixels. They sum to f(x) − f(b) exactly for any number of orders, so ``delta`` says nothing of the error of
    sampling, which falls with the root of ``orders``. Cost: orders × grid² forwards. Unbiased; as captum's.

    Parameters
    ----------
    grid
        Cells on each side.
    orders
        Random orders of the cells.
    baseline
        What absent cells are replaced by: ``zero``, ``low``, ``mid``, ``mean``, ``blur``, ``noise``, a tensor, or a
        component with ``baseline(images)``.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    References
    ----------
    J. Castro, D. Gómez, J. Tejada, "Polynomial calculation of the Shapley value based on sampling", Computers &
    Operations Research 36 (2009), section 3.
    """

    stochastic = True
    complete = True

    def __init__(self, grid: int = 8, orders: int = 16, baseline: Baseline = "mid") -> None:
        if grid < 2:
            raise ValueError(f"grid {grid} must be at least 2")
        if orders < 1:
            raise ValueError(f"orders {orders} must be at least 1")
        self.grid, self.orders = grid, orders
        self.baseline = baseline
        self._of = Reference(baseline)

    def _reference(self) -> Reference:
        return self._of

    def _notes(self) -> dict[str, Any]:
        return {"grid": self.grid, "orders": self.orders}

    def _maps(self, model: Discriminator, images: Tensor, target: int, call: Call) -> Tensor:
        of = cells(self.grid, *images.shape[2:])
        features = self.grid**2
        baseline = self._of(images, model.value_range, call.seed)
        total = torch.zeros(len(images), features, dtype=torch.float64, device=images.device)
        for index in range(self.orders):
            order = torch.from_numpy(draws.permutation(call.seed, index, features, "shapley-sampling"))
            entered = torch.empty(features, dtype=torch.long)
            entered[order] = torch.arange(features)
            kept = entered[of] < torch.arange(features + 1)[:, None, None]  # after 0, 1, … F cells have come in
            total[:, order] += values(model, images, baseline, kept, target, call).diff(dim=1)
        return spread(total / self.orders, of).to(images.dtype)
