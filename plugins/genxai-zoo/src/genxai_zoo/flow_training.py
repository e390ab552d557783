"""Trains a normalising flow by maximum likelihood."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genxai_core import Dataset, Samples, Spec, draws
from genxai_core.errors import InputError

from .flow import Flow
from .likelihood import Draw, LikelihoodTrainer

_DEFAULT = Spec("generator/flow")
LOOKED_AT = 4096
"""How many images tell mean and covariance."""


class FlowTrainer(LikelihoodTrainer):
    """Fits a flow to images ``[N, C, H, W]`` by Adam on −log p, of dequantised images where they have levels.

    Before the first step the flow takes mean and deviation of each pixel from the training images. Images that are held
    out have their mean log p in ``info["held_out_log_prob"]``, in nats.

    Parameters
    ----------
    model
        A ``generator/flow``; size, channels and value range are the data's. Its ``native`` and ``levels`` must be those
        of the data, else they are refused.
    steps
        Number of training steps.
    batch
        Images per step, over all processes together.
    lr
        Adam's learning rate at the start; it falls linearly to zero.
    holdout
        Share of the images that is kept out of training, to measure on; 0 keeps none.
    whiten
        Whether the flow takes the covariance of the pixels, too, by which it begins as a Gaussian of full covariance,
        with Ledoit and Wolf's shrinkage ("A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices",
        2004). It helps where the images are nearly Gaussian; digits it spoils.

    Raises
    ------
    ValueError
        If a number is out of its bounds.
    """

    name = "flow"
    family = Flow

    def __init__(
        self,
        model: Spec = _DEFAULT,
        steps: int = 600,
        batch: int = 64,
        lr: float = 2e-3,
        holdout: float = 0.1,
        whiten: bool = False,
    ) -> None:
        super().__init__(model, steps, batch, lr, holdout)
        self.whiten = whiten

    def _said(self) -> list[bool]:
        return [self.whiten]

    @torch.no_grad()
    def _prepare(self, model: Flow, data: Samples | Dataset, train: list[int]) -> None:
        """Check that the images are of the model's native size and levels, and standardise by them."""
        images = data[train[:LOOKED_AT]].images.to(model.shift)
        v = model.to_native(images)
        scale = data.value_range[1] - data.value_range[0]
        _check_native(model, float((model.from_native(v) - images.clamp(*data.value_range)).abs().max()) / scale)
        if model.levels:
            _check_levels(model, v)
            v = v.round() + draws.uniform(0, range(len(v)), model.native_shape, stream="first-look").to(v) - 0.5
        if bool((v == v[:1]).all()):
            raise InputError(
                f"trainer/flow: training images ({len(train)}) that do not differ have no density; give at least 2 "
                f"that do, or hold fewer out"
            )
        line = model.to_line(v)[0].double()
        model.shift.copy_(line.mean(0))
        covariance = _covariance(line - line.mean(0))
        if not self.whiten:
            covariance = covariance.diagonal().diag()
        model.factor.copy_(torch.linalg.cholesky(covariance))

    def _losses(self, model: Flow, images: Tensor, draw: Draw) -> dict[str, Tensor]:
        v = model.to_native(images)
        if model.levels:
            v = v.round() + draw(draws.uniform, model.native_shape, "dequantisation") - 0.5
        loss = -model.density(v).mean()
        return {"loss": loss, "bits_per_dimension": loss / (math.log(2) * math.prod(model.native_shape))}


def _check_native(model: Flow, off: float) -> None:
    """Refuse images that are no upsampling of smaller ones: their density would be that of other images."""
    if off > 1e-3:
        raise InputError(
            f"trainer/flow: the images are no bilinear upsampling of {model.native_shape[1]} px (off by {off:.2g} of "
            f"the value range); set the model's native to the size that they were made at, or to 0"
        )


def _check_levels(model: Flow, v: Tensor) -> None:
    off = float((v - v.round()).abs().max())
    if off > 0.05:
        raise InputError(
            f"trainer/flow: pixels at {model.native_shape[1]} px are not of {model.levels} levels (off by {off:.2g} of "
            f"one); set the model's levels to those of the data (256 for files of 8 bits), or to 0 for continuous ones"
        )


def _covariance(centred: Tensor) -> Tensor:
    """Return the covariance of rows, shrunk towards a multiple of the identity (Ledoit and Wolf 2004).

    Raises
    ------
    InputError
        If rows that are more than their dimensions do not fill them: there is no density then.
    """
    n, d = centred.shape
    empirical = centred.T @ centred / n
    spread = torch.linalg.eigvalsh(empirical)
    rank = int((spread > 1e-8 * spread[-1]).sum())
    if n > d and rank < d:
        raise InputError(
            f"trainer/flow: the images fill {rank} of {d} dimensions, so that they have no density there; set the "
            f"model's native to the size that they were made at, or its levels to those of their pixels"
        )
    mean = spread.mean()
    away = (empirical - mean * torch.eye(d).to(empirical)).square().sum()
    noise = ((centred.square().sum(1).square()).sum() / n - empirical.square().sum()) / n
    weight = float((noise / away).clamp(0, 1)) if float(away) > 0 else 1.0
    shrunk: Tensor = (1 - weight) * empirical + max(weight, 1e-4) * mean * torch.eye(d).to(empirical)
    return shrunk
